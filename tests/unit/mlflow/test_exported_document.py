"""A JSON document is walked through as json itself reads it, wherever its blocks are cut."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.mlflow.exported.document import Document, opened
from shardmig.errors import BadInput

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
TEXTS = st.dictionaries(st.text(), st.lists(VALUES) | VALUES, max_size=5)


@given(TEXTS, st.integers(1, 40), st.sampled_from([None, 2]))
def test_walking_gives_what_json_gives(told: dict[str, Any], block_chars: int, indent: int | None) -> None:
    document = Document(io.StringIO(json.dumps(told, indent=indent)), block_chars)
    found: dict[str, Any] = {}
    for key in document.members():
        found[key] = list(document.items()) if isinstance(told[key], list) else document.value()
    assert found == told


def test_numbers_that_are_no_json_are_taken() -> None:
    document = Document(io.StringIO('{"a": [NaN, Infinity, -Infinity, 1]}'), 3)
    [key] = [key for key in document.members() for value in [list(document.items())] if value[3] == 1]
    assert key == "a"


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', '{"a" 1}', '{"a": [1 2]}', '{"a": [1, ', "{'a': 1}"])
def test_a_document_that_is_cut_or_damaged_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"run\.json"):
        _walk(path, enters="[" in text)


def _walk(path: Path, *, enters: bool) -> None:
    with opened(path) as document:
        for _ in document.members():
            list(document.items()) if enters else document.value()
