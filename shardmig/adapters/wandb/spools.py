"""Points of a run put into another order on disk: series after series becomes step after step, and back.

Memory: about a million points, however long the run is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from shardmig.adapters.wandb.columns import Points, Stored, joined
from shardmig.records import Int64s

MOST_IN_MEMORY: Final = 1_000_000


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
        memory, all windows together about `most` points."""
        self._store()
        window = self._most // max(1, len(self._sorted))
        places = [0] * len(self._sorted)
        columns = [part.column("steps") for part in self._sorted]
        while ends := [
            int(column[min(place + window, len(column)) - 1])
            for place, column in zip(places, columns, strict=True)
            if place < len(column)
        ]:
            stops = [int(np.searchsorted(column, min(ends), side="right")) for column in columns]
            rows = zip(self._sorted, places, stops, strict=True)
            yield _in_order(joined([part.part(start, stop) for part, start, stop in rows if stop > start]))
            places = stops

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


def _in_order(points: Points) -> Points:
    order: Int64s = np.lexsort((points.keys, points.steps))
    return points.part(order)
