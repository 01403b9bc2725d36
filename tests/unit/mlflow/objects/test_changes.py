"""What MLflow made of an object's fields is kept, and taken back as long as nobody changed it."""

from __future__ import annotations

import pytest

from shardmig.adapters.mlflow.objects.changes import Change, changes, decode, encode, restored, switched
from shardmig.errors import BadInput
from shardmig.records import Field

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


def many(text: str, count: int = 60) -> list[Change]:
    return [Change(f"versions/{number}/source", "string", text, None) for number in range(count)]


@pytest.mark.parametrize(("before", "after"), [(60, 60), (60, 90), (90, 60), (60, 0), (0, 60)])
def test_who_is_cut_between_the_tags_of_a_merge_leaves_what_was_told_before(before: int, after: int) -> None:
    old, new = many("a" * 100, before), many("b" * 100, after)
    tags: dict[str, str] = encode(old)
    for told, to_tell in ((old, new), (new, old), (old, new)):  # each merge again
        assert decode(tags, "x") == told
        for key, text in list(switched(to_tell, tags, "x").items())[:-1]:
            tags[key] = text
            assert decode(tags, "x") == told
        tags |= switched(to_tell, tags, "x")
    assert decode(tags, "x") == new
    assert switched(new, tags, "x") == {}


def test_pieces_that_a_discarded_object_left_are_no_part_of_the_next_one() -> None:
    left = encode(many("a" * 100)) | switched(many("b" * 100), {}, "x")
    assert decode(left | encode(many("c", 3), left), "x") == many("c", 3)


def test_changes_that_an_earlier_shardmig_told_are_read() -> None:
    assert decode({"shardmig.changes.0": '[["sys/id","string","old",', "shardmig.changes.1": '"new"]]'}, "x") == [
        Change("sys/id", "string", "old", "new")
    ]


def test_of_a_part_that_is_gone_nothing_comes_back() -> None:
    wanted = [
        Field("versions/1/run", "string", "r"),
        Field("versions/1/time", "int", 1),
        Field("tags/a", "string", "1"),
    ]
    held = [Field("versions/1/time", "int", 7)]
    known = changes(wanted, held, lambda path: path.endswith("time"))
    assert restored(held, known, _is_volatile) == sorted(wanted, key=lambda field: field.path)
    assert restored([], known, lambda path: path.endswith("time")) == wanted[2:]


def test_damaged_tags_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="the model"):
        decode({"shardmig.changes.0": "[["}, "the model")
