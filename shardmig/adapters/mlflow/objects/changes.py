"""What MLflow made of an object's scalar fields, kept with the object itself: the counterpart of a run's manifest.

After an object is written it is read, and every field that is not what it should be is written into tags, together
with what MLflow has instead: ids, times, locations, references to what is not here. Reading back, a field that still
is what MLflow had then is given as the original; one that somebody changed since is given as it is.

The pieces of a new object are TAG and a number: it is not whole before its last tag. A merge writes to an object that is
whole and must not be found with half of the pieces: it writes all of them beside those that hold, and then WHICH, one tag
that says which do and how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from shardmig.errors import BadInput
from shardmig.records import Field, FieldType

WHICH: Final = "shardmig.changes"
TAG: Final = f"{WHICH}."
BESIDE: Final = "shardmig.changes_b."
CHARACTERS: Final = 3000
"""Of one tag. MLflow's smallest tags take 5000 characters of any script."""

Value = int | float | str | bool | list[str]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One field: its value, and what MLflow has instead. None = no such field. `is_left`: it was here before the last copy,
    which did not bring it: it is no difference between that one and its source, and is copied on."""

    path: str
    type: FieldType
    value: Value | None
    given: Value | None
    is_left: bool = False


def part_of(path: str) -> str:
    """What a field is a part of, as a rule: a version, an assessment, or itself."""
    return "/".join(path.split("/", 2)[:2])


def changes(wanted: Iterable[Field], held: Iterable[Field], is_volatile: Callable[[str], bool]) -> list[Change]:
    """How what is held differs from what was wanted, sorted; what MLflow changes by itself differs always."""
    wanted_values = {(field.path, field.type): field.value for field in wanted}
    held_values = {(field.path, field.type): field.value for field in held}
    return [
        Change(*key, wanted_values.get(key), held_values.get(key))
        for key in sorted(wanted_values.keys() | held_values.keys())
        if wanted_values.get(key) != held_values.get(key) or is_volatile(key[0])
    ]


def restored(
    held: Iterable[Field], known: Iterable[Change], is_volatile: Callable[[str], bool], *, is_all: bool = True
) -> list[Field]:
    """The fields as they were, as far as they are still what MLflow had when they were written; none of a part that is
    gone. `is_all`: what was left here, too."""
    known = list(known)
    values: dict[tuple[str, FieldType], Value | None] = {(field.path, field.type): field.value for field in held}
    gone = {part_of(change.path) for change in known if change.given is not None} - {
        part_of(path) for path, _ in values
    }
    for change in known:
        key = (change.path, change.type)
        if part_of(change.path) not in gone and (is_volatile(change.path) or values.get(key) == change.given):
            values[key] = change.value if is_all or not change.is_left else None
    return [Field(path, kind, value) for (path, kind), value in sorted(values.items()) if value is not None]


def encode(known: list[Change], tags: Mapping[str, str] | None = None) -> dict[str, str]:
    """As tags of an object that is being made; instead of those that it has."""
    held, pieces = tags or {}, _pieces(TAG, known)
    blank = {key: " " for key in held if key.startswith(TAG)}
    which = {WHICH: f"{TAG} {len(pieces)}"} if WHICH in held else {}
    return blank | pieces | which


def switched(known: list[Change], tags: Mapping[str, str], name: str) -> dict[str, str]:
    """As tags of an object that is whole, in the order in which they are to be set; {} where it says so already."""
    if known == decode(tags, name):
        return {}
    beside = BESIDE if _which(tags)[0] == TAG else TAG
    pieces = _pieces(beside, known)
    return pieces | {WHICH: f"{beside} {len(pieces)}"}


def decode(tags: Mapping[str, str], name: str) -> list[Change]:
    """Back from the tags of an object. Raises BadInput, naming it."""
    try:
        folder, count = _which(tags)
        text = "".join(tags[f"{folder}{number}"] for number in range(count))
        return msgspec.json.decode(text, type=list[Change]) if text.strip() else []
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise BadInput(f"the tags {TAG}* of {name} cannot be read: {error}") from error


def _pieces(folder: str, known: list[Change]) -> dict[str, str]:
    text = msgspec.json.encode(known).decode() if known else ""
    starts = range(0, len(text), CHARACTERS)
    return {f"{folder}{number}": text[start : start + CHARACTERS] for number, start in enumerate(starts)}


def _which(tags: Mapping[str, str]) -> tuple[str, int]:
    """Which pieces hold, and how many there are."""
    if not tags.get(WHICH, "").strip():
        return TAG, sum(key.startswith(TAG) for key in tags)
    folder, _, count = tags[WHICH].partition(" ")
    return folder, int(count)
