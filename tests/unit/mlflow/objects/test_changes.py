"""What MLflow made of an object's fields is kept, and taken back as long as nobody changed it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from shardmig.adapters.mlflow.objects.base import REGISTRY, ObjectClass, Stored
from shardmig.adapters.mlflow.objects.changes import Change, changes, decode, encode, restored
from shardmig.adapters.mlflow.objects.merging import ObjectMerge
from shardmig.errors import BadInput
from shardmig.records import Field, RunId

WANTED = [Field("sys/id", "string", "old"), Field("tags/a", "string", "1"), Field("updated", "int", 5)]
HELD = [Field("sys/id", "string", "new"), Field("tags/a", "string", "1"), Field("updated", "int", 6)]


def _is_volatile(path: str) -> bool:
    return path == "updated"


def test_what_differs_is_a_change_and_what_mlflow_changes_by_itself_always_is() -> None:
    assert changes(WANTED, HELD, _is_volatile) == [
        Change("sys/id", "string", "old", "new"),
        Change("updated", "int", 5, 6),
    ]
    assert changes(WANTED, WANTED, _is_volatile) == [Change("updated", "int", 5, 5)]


def test_fields_come_back_as_they_were() -> None:
    known = changes(WANTED, HELD, _is_volatile)
    later = [*HELD[:2], Field("updated", "int", 99)]
    assert restored(later, known, _is_volatile) == WANTED


def test_a_field_that_somebody_changed_since_is_given_as_it_is() -> None:
    known = changes(WANTED, HELD, _is_volatile)
    changed = [Field("sys/id", "string", "changed"), *HELD[1:]]
    assert restored(changed, known, _is_volatile)[0] == Field("sys/id", "string", "changed")


def test_a_field_that_mlflow_added_is_left_out_and_one_that_it_left_out_is_there() -> None:
    known = changes(WANTED[:1], HELD[1:2], _is_volatile)
    assert restored(HELD[1:2], known, _is_volatile) == WANTED[:1]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_changes_survive_as_tags_of_bounded_length(count: int) -> None:
    known = [Change(f"versions/{number}/ü", "string", "日本" * 10, None) for number in range(count)]
    tags = encode(known)
    assert all(len(text) <= 3000 for text in tags.values())
    assert decode({"other": "tag", **tags}, "x") == known


def test_changes_that_were_told_too_early_are_taken_back() -> None:
    early = encode(changes(WANTED, HELD, _is_volatile))
    assert decode(early | encode([], early), "x") == []
    assert encode([], {"other": "tag"}) == {}


def test_pieces_that_an_early_merge_blanked_are_no_changes() -> None:
    assert decode({"shardmig.changes.0": " ", "shardmig.changes.1": " "}, "x") == []


def test_a_blank_piece_within_a_long_text_is_a_part_of_it() -> None:
    known = [Change("sys/description", "string", " " * 9000, None)]
    assert decode(encode(known), "x") == known


def test_an_object_is_readable_after_a_merge_that_left_no_changes() -> None:
    known = [Change(f"versions/{number}/source", "string", "s" * 100, None) for number in range(60)]
    stored = Stored(id="1", project=REGISTRY, name=RunId("x"), tags=encode(known), content=None, revision="")
    assert len(stored.tags) > 1
    kind = SimpleNamespace(fields=lambda stored: iter(HELD), is_volatile=_is_volatile, is_own=_is_volatile)
    merge = ObjectMerge(cast("ObjectClass", kind), stored, HELD)
    assert decode(stored.tags | merge.tags([]), "x") == []


def test_damaged_tags_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="the model"):
        decode({"shardmig.changes.0": "[["}, "the model")
