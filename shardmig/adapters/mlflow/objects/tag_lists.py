"""Ids in tags of an object, as many tags as it takes: a name, a point and a number from 0 each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from shardmig.adapters.mlflow.objects.changes import CHARACTERS
from shardmig.records import MigrationKey

WAITS: Final = "shardmig.waits"
"""Migration keys of what an object refers to and what is not here. Once one of them is, it is written again."""


def ids_told(name: str, tags: Mapping[str, str]) -> list[str]:
    """The ids, each once. The name alone was the only tag, before there were several."""
    begin = f"{name}."
    numbers = sorted(int(key.removeprefix(begin)) for key in tags if key.startswith(begin))
    texts = [tags.get(name, ""), *(tags[f"{begin}{number}"] for number in numbers)]
    return list(dict.fromkeys(" ".join(texts).split()))


def id_tags(name: str, ids: Iterable[str], tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that tell the ids, instead of those that are there. Who is cut between them tells too many: an id moves from a
    later tag to an earlier one at most."""
    pieces: list[str] = []
    for one in dict.fromkeys(ids):
        if pieces and len(pieces[-1]) + 1 + len(one) <= CHARACTERS:
            pieces[-1] += f" {one}"
        else:
            pieces.append(one)
    held = {f"{name}.{number}": piece for number, piece in enumerate(pieces)}
    return held | {key: " " for key in tags if key not in held and (key == name or key.startswith(f"{name}."))}


def waiting_for(tags: Mapping[str, str]) -> list[MigrationKey]:
    """What an object with these tags waits for."""
    return [MigrationKey(key) for key in ids_told(WAITS, tags)]


def waiting_tags(keys: Iterable[MigrationKey], tags: Mapping[str, str]) -> dict[str, str]:
    """As `id_tags`."""
    return id_tags(WAITS, keys, tags)
