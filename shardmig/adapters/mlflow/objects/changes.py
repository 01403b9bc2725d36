"""What MLflow made of an object's scalar fields, kept with the object itself: the counterpart of a run's manifest.

After an object is written it is read, and every field that is not what it should be is written into tags, together
with what MLflow has instead: ids, times, locations, references to what is not here. Reading back, a field that still
is what MLflow had then is given as the original; one that somebody changed since is given as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from shardmig.errors import BadInput
from shardmig.records import Field, FieldType

TAG: Final = "shardmig.changes."
CHARACTERS: Final = 3000
"""Of one tag. MLflow's smallest tags take 5000 characters of any script."""

Value = int | float | str | bool | list[str]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One field: its value, and what MLflow has instead. None = no such field."""

    path: str
    type: FieldType
    value: Value | None
    given: Value | None


def changes(wanted: Iterable[Field], held: Iterable[Field], is_volatile: Callable[[str], bool]) -> list[Change]:
    """How what is held differs from what was wanted, sorted; what MLflow changes by itself differs always."""
    wanted_values = {(field.path, field.type): field.value for field in wanted}
    held_values = {(field.path, field.type): field.value for field in held}
    return [
        Change(*key, wanted_values.get(key), held_values.get(key))
        for key in sorted(wanted_values.keys() | held_values.keys())
        if wanted_values.get(key) != held_values.get(key) or is_volatile(key[0])
    ]


def restored(held: Iterable[Field], known: Iterable[Change], is_volatile: Callable[[str], bool]) -> list[Field]:
    """The fields as they were, as far as they are still what MLflow had when they were written."""
    values: dict[tuple[str, FieldType], Value | None] = {(field.path, field.type): field.value for field in held}
    for change in known:
        key = (change.path, change.type)
        if is_volatile(change.path) or values.get(key) == change.given:
            values[key] = change.value
    return [Field(path, kind, value) for (path, kind), value in sorted(values.items()) if value is not None]


def encode(known: list[Change], tags: Mapping[str, str] | None = None) -> dict[str, str]:
    """As tags; where there are none, instead of those that the object has."""
    if not known and f"{TAG}0" in (tags or {}):
        return {f"{TAG}0": "[]"}
    text = msgspec.json.encode(known).decode()
    pieces = [text[start : start + CHARACTERS] for start in range(0, len(text), CHARACTERS)]
    return {f"{TAG}{number}": piece for number, piece in enumerate(pieces)} if known else {}


def decode(tags: Mapping[str, str], name: str) -> list[Change]:
    """Back from the tags of an object. Raises BadInput, naming it."""
    numbers = sorted(int(key.removeprefix(TAG)) for key in tags if key.startswith(TAG))
    if not numbers:
        return []
    try:
        text = "".join(tags[f"{TAG}{number}"] for number in numbers)
        return msgspec.json.decode(text, type=list[Change]) if text.strip() else []
    except (msgspec.DecodeError, KeyError) as error:
        raise BadInput(f"the tags {TAG}* of {name} cannot be read: {error}") from error
