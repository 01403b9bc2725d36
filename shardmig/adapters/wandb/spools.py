"""Points of a run put into another order on disk: series after series becomes step after step, and back.

Memory: about half a million points, however long the run is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from shardmig.adapters.wandb.columns import Points, Stored, joined
from shardmig.records import Int64s

MOST_IN_MEMORY: Final = 500_000
_WINDOW: Final = 200_000
"""About so many points are given back at a time: their texts take twenty times the room of the numbers."""


class StepSpool:
    """Takes points series by series and gives them back step by step. `folder`: an empty one of its own."""

    def __init__(self, folder: Path, most: int = MOST_IN_MEMORY) -> None:
        self._folder = folder
        self._most = most
        self._waiting: list[Points] = []
        self._count = 0
        self._sorted: list[Stored] = []

    def add(self, points: Points) -> None:
        """Take points. Raises DiskFull."""
        self._waiting.append(points)
        self._count += len(points)
        if self._count >= self._most:
            self._store()

    def by_step(self) -> Iterator[Points]:
        """All points in order of (step, key), whole steps at a time. Sorted parts are merged: of each, one window is in
        memory."""
        self._store()
        window = max(1, min(self._most, _WINDOW) // max(1, len(self._sorted)))
        places = [0] * len(self._sorted)
        while stops := self._stops(places, window):
            rows = zip(self._sorted, places, stops, strict=True)
            yield _in_order(joined([part.part(start, stop) for part, start, stop in rows if stop > start]))
            places = stops

    def _stops(self, places: list[int], window: int) -> list[int]:
        """Where the next window of each part ends; none when all are at their end."""
        blocks = [part.some_steps(place, window) for part, place in zip(self._sorted, places, strict=True)]
        ends = [int(block[-1]) for block in blocks if len(block)]
        parts = zip(self._sorted, places, blocks, strict=True)
        return [_stop(part, place, block, min(ends)) for part, place, block in parts] if ends else []

    def _store(self) -> None:
        if not self._count:
            return
        points = _in_order(joined(self._waiting))
        self._sorted.append(Stored(self._folder / f"{len(self._sorted)}.steps", points))
        self._waiting, self._count = [], 0


class SeriesSpool:
    """Takes points step by step and gives back each series. `folder`: an empty one of its own."""

    def __init__(self, folder: Path, most: int = MOST_IN_MEMORY) -> None:
        self._folder = folder
        self._most = most
        self._waiting: list[Points] = []
        self._count = 0
        self._sorted: list[Stored] = []

    def add(self, points: Points) -> None:
        """Take points, in the order in which their series hold them. Raises DiskFull."""
        self._waiting.append(points)
        self._count += len(points)
        if self._count >= self._most:
            self.finish()

    def finish(self) -> None:
        """After the last point; may be called again."""
        if not self._count:
            return
        points = joined(self._waiting)
        order = np.argsort(points.keys, kind="stable")
        self._sorted.append(Stored(self._folder / f"{len(self._sorted)}.series", points.part(order)))
        self._waiting, self._count = [], 0

    def series(self, key: int, rows: int) -> Iterator[Points]:
        """The points of one series, at most `rows` at a time, in the order in which they came."""
        for part in self._sorted:
            keys = part.column("keys")
            first, last = (int(np.searchsorted(keys, key, side=side)) for side in ("left", "right"))
            for start in range(first, last, rows):
                yield part.part(start, min(start + rows, last))


def _stop(part: Stored, place: int, block: Int64s, bound: int) -> int:
    """Behind the last row of a part whose step is at most the bound. `block`: the steps from `place` on."""
    inside = int(np.searchsorted(block, bound, side="right"))
    while inside == len(block) > 0:
        place += len(block)
        block = part.some_steps(place, len(block))
        inside = int(np.searchsorted(block, bound, side="right"))
    return place + inside


def _in_order(points: Points) -> Points:
    order: Int64s = np.lexsort((points.keys, points.steps))
    return points.part(order)
