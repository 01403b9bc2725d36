"""What stands in ZenML's metadata for a scalar, and back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.sidecar.scalars import text_of
from shardmig.adapters.zenml.fit import KEPT_CHARACTERS, ROW_BYTES, ZenmlRules, flattened, rows, size_bytes
from shardmig.adapters.zenml.naming import Naming
from shardmig.records import Field, Fields, FieldType, LoadOptions

_RULES = ZenmlRules(LoadOptions(), Naming())
_INT64 = st.integers(-(2**63), 2**63 - 1)
_SCALARS: st.SearchStrategy[tuple[FieldType, Any]] = st.one_of(
    st.tuples(st.just("int"), _INT64),
    st.tuples(st.just("float"), st.floats()),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("string"), st.text()),
    st.tuples(st.just("datetime"), st.integers(-(10**14), 10**14)),
    st.tuples(st.just("string_set"), st.lists(st.text(), unique=True).map(sorted)),
)


@given(_SCALARS)
def test_every_scalar_goes_through_json_and_comes_back(scalar: tuple[FieldType, Any]) -> None:
    field = Field("path", *scalar)
    fitted = _RULES.fit_field(field)
    assert fitted.is_exact
    held = json.loads(json.dumps(fitted.value, allow_nan=False))
    back = _RULES.field_of("path", field.type, held)
    assert (back.type, text_of(back)) == (field.type, text_of(field))


def test_what_is_too_long_is_cut_and_told() -> None:
    for field in (Field("a", "string", "🚀" * 5000), Field("a", "string_set", [f"{n:09}" for n in range(5000)])):
        fitted = _RULES.fit(Fields([field]))
        assert [finding.code for finding in fitted.findings] == ["value-truncated"]
        assert isinstance(fitted.native, Fields)
        assert fitted.native.fields == [Field("a", "string", text_of(field)[:KEPT_CHARACTERS])]
        assert fitted.exact == Fields([field])
        assert size_bytes(_RULES.fit_field(field).value) < ROW_BYTES


@given(st.dictionaries(st.text(max_size=40), st.text(max_size=400), max_size=60))
def test_rows_hold_everything_once_and_none_is_too_long(values: dict[str, str]) -> None:
    big = {f"{key}-{number}": value * 20 for key, value in values.items() for number in range(5)}
    cut = list(rows(big))
    assert {key: value for row in cut for key, value in row.items()} == big
    assert sum(map(len, cut)) == len(big)
    assert all(size_bytes(row) <= ROW_BYTES or len(row) == 1 for row in cut)


def test_metadata_of_others_becomes_scalars() -> None:
    metadata = {"a": {"b": 1, "c": {"d": None}}, "e": ["x", "y"], "f": ["y", "x"], "g": 2**70, "h": True}
    found = {flat.key: (flat.value, flat.is_exact) for flat in flattened(metadata)}
    assert found == {
        "a/b": (1, True),
        "a/c/d": ("null", False),
        "e": (["x", "y"], True),
        "f": ('["y", "x"]', False),
        "g": (str(2**70), False),
        "h": (True, True),
    }
