"""What a history holds beside numbers, put in order of its fields on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shardmig.archive.layout import disk_errors
from shardmig.records import FieldType

_MOST_BYTES: Final = 16 * 2**20

Key = tuple[str, FieldType]


class Entry(NamedTuple):
    """One value: its step, time and JSON text."""

    step: int
    time_ms: int
    text: str


class EntrySpool:
    """Values by field, each field in the order in which they came. Memory: 16 MiB. `folder`: an empty one of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[Key, int] = {}
        self._waiting: dict[Key, list[Entry]] = {}
        self._size_bytes = 0

    def add(self, key: Key, entry: Entry) -> None:
        """Take a value. Raises DiskFull."""
        self._numbers.setdefault(key, len(self._numbers))
        self._waiting.setdefault(key, []).append(entry)
        self._size_bytes += len(entry.text) + 100
        if self._size_bytes > _MOST_BYTES:
            self._store()

    def keys(self) -> list[Key]:
        """The fields, sorted."""
        return sorted(self._numbers)

    def entries(self, key: Key) -> Iterator[Entry]:
        """The values of one field."""
        file = self._file(key)
        if file.exists():
            with file.open("rb") as lines:
                for line in lines:
                    yield Entry(*msgspec.json.decode(line, type=tuple[int, int, str]))
        yield from self._waiting.get(key, [])

    def _store(self) -> None:
        for key, entries in self._waiting.items():
            with disk_errors("staging of values"), self._file(key).open("ab") as file:
                file.writelines(msgspec.json.encode(tuple(entry)) + b"\n" for entry in entries)
        self._waiting, self._size_bytes = {}, 0

    def _file(self, key: Key) -> Path:
        return self._folder / f"{self._numbers[key]}.entries"
