"""Columns of points on disk, for runs that do not fit memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from shardmig.archive.layout import disk_errors
from shardmig.records import Float64s, Int64s

_NAMES: Final = ("steps", "keys", "times_ms", "values")
_ROW: Final = np.dtype([("steps", "<i8"), ("keys", "<i8"), ("times_ms", "<i8"), ("values", "<f8")])


class Points(msgspec.Struct, frozen=True):
    """Points row by row; `keys` numbers the series of each."""

    steps: Int64s
    keys: Int64s
    times_ms: Int64s
    values: Float64s

    def __len__(self) -> int:
        return len(self.steps)

    def part(self, rows: slice | Int64s) -> Points:
        """Some of the rows."""
        return Points(self.steps[rows], self.keys[rows], self.times_ms[rows], self.values[rows])


def joined(parts: list[Points]) -> Points:
    """All rows of all parts."""
    if len(parts) == 1:
        return parts[0]
    return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))


class Stored:
    """Points in a file, column after column, mapped into memory when they are read."""

    def __init__(self, path: Path, points: Points) -> None:
        self._path = path
        self._count = len(points)
        with disk_errors("staging of points"), path.open("wb") as file:
            for name in _NAMES:
                file.write(np.ascontiguousarray(getattr(points, name)).data)

    def __len__(self) -> int:
        return self._count

    def column(self, name: str) -> Int64s:
        """A whole column, on disk until it is touched."""
        place = _NAMES.index(name) * self._count * 8
        return np.memmap(self._path, _ROW[name], "r", place, (self._count,))

    def some_steps(self, start: int, count: int) -> Int64s:
        """Some rows of the first column, in memory. (Mapped files count as memory of the process.)"""
        with self._path.open("rb") as file:
            file.seek(start * 8)
            return np.fromfile(file, _ROW["steps"], max(0, min(count, self._count - start)))

    def part(self, start: int, stop: int) -> Points:
        """Some rows, in memory."""
        columns = []
        with self._path.open("rb") as file:
            for number, name in enumerate(_NAMES):
                file.seek((number * self._count + start) * 8)
                columns.append(np.fromfile(file, _ROW[name], stop - start))
        return Points(*columns)
