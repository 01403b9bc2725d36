"""What a history row holds beside numbers (histograms, tables, images), put in order of steps on disk."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from shardmig.archive.layout import disk_errors

_MOST_BYTES: Final = 16 * 2**20
_HEAD: Final = struct.Struct("<qqqq")


class Item(NamedTuple):
    """One JSON value of a row; `key` numbers its key."""

    step: int
    key: int
    time_ms: int
    text: bytes


class ItemSpool:
    """Takes items in any order and gives them back step by step. Memory: 16 MiB. `folder`: an empty one of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Item] = []
        self._size_bytes = 0
        self._stored: list[Path] = []

    def add(self, item: Item) -> None:
        """Take an item. Raises DiskFull."""
        self._waiting.append(item)
        self._size_bytes += len(item.text) + _HEAD.size
        if self._size_bytes >= _MOST_BYTES:
            self._store()

    def by_step(self) -> Iterator[Item]:
        """All items in order of (step, key); equal ones as they came."""
        self._waiting.sort(key=_order)
        return heapq.merge(*map(_read, self._stored), self._waiting, key=_order)

    def _store(self) -> None:
        path = self._folder / f"{len(self._stored)}.items"
        self._waiting.sort(key=_order)
        with disk_errors("staging of history rows"), path.open("wb") as file:
            for item in self._waiting:
                file.write(_HEAD.pack(item.step, item.key, item.time_ms, len(item.text)) + item.text)
        self._stored.append(path)
        self._waiting, self._size_bytes = [], 0


def _order(item: Item) -> tuple[int, int]:
    return item.step, item.key


def _read(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            step, key, time_ms, size = _HEAD.unpack(head)
            yield Item(step, key, time_ms, file.read(size))
