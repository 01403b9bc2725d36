"""Histories as MLflow's API answers them, page by page in the order of time, put into the order of the archive."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.archive.merging import merged_rows, sort_blocks
from shardmig.archive.rows import Column
from shardmig.archive.scratch import ScratchColumn
from shardmig.errors import Unavailable
from shardmig.records import Float64s, Int64s

ROWS_HELD: Final = 100_000
"""Rows of one series that are kept in memory; a longer one goes to nameless files while it comes in."""


class History:
    """The points of one series while its pages come in. Memory: about ROWS_HELD rows, however long it is.

    `may_repeat`: a point that comes twice was logged twice (in files; databases hold it once). Within one page that is
    always so.
    """

    def __init__(self, key: str, *, may_repeat: bool = False) -> None:
        self._key = key
        self._may_repeat = may_repeat
        self._pages: list[list[Column]] = []
        self._held = 0
        self._scratch: list[ScratchColumn] = []
        self._spilled = 0
        self._repeats = 0
        """How many points came once more within their page."""

    def __len__(self) -> int:
        """Its points so far."""
        return self._held + self._spilled

    def add(self, steps: Sequence[int], times_ms: Sequence[int], values: Sequence[float]) -> None:
        """Take a page. Raises DiskFull."""
        numbers = _ordered(np.array(values, np.float64).view(np.int64))
        page = [np.array(steps, np.int64), np.array(times_ms, np.int64), numbers]
        if not self._may_repeat:
            page = _in_order(page)
            self._repeats += _repeats(page)
        self._pages.append(page)
        self._held += len(steps)
        if self._held > ROWS_HELD:
            self._spill()

    def in_order(self, rows: int) -> Iterator[Metrics]:
        """The points by (step, time, value), NaN last, about `rows` at a time, cut at the ends of steps only; then all
        is closed. Raises Unavailable when a point came in two pages: somebody writes to the run and the pages moved."""
        repeats = 0
        try:
            for steps, times_ms, numbers in _cut(self._sorted(), rows):
                repeats += _repeats([steps, times_ms, numbers])
                if repeats > self._repeats and not self._may_repeat:
                    raise Unavailable(f"the history of {self._key} changed while it was read")
                values: Float64s = _ordered(numbers).view(np.float64)
                yield Metrics([self._key], np.array([len(steps)], np.int64), steps, times_ms, values)
        finally:
            self.close()

    def close(self) -> None:
        """Give the space back; idempotent."""
        for column in self._scratch:
            column.close()
        self._pages, self._held, self._scratch, self._spilled, self._repeats = [], 0, [], 0, 0

    def _sorted(self) -> Iterator[list[Column]]:
        if not self._scratch:
            if self._pages:
                yield _in_order([np.concatenate(parts) for parts in zip(*self._pages, strict=True)])
            return
        self._spill()
        sort_blocks(self._scratch, 0, self._spilled)
        yield from merged_rows(self._scratch, 0, self._spilled)

    def _spill(self) -> None:
        if not self._scratch:  # in a folder a scratch column grows as it is written
            self._scratch = [ScratchColumn(0, np.int64, Path(tempfile.gettempdir())) for _ in range(3)]
        for page in self._pages:
            for column, part in zip(self._scratch, page, strict=True):
                column.write(self._spilled, part)
            self._spilled += len(page[0])
        self._pages, self._held = [], 0


def _in_order(columns: list[Column]) -> list[Column]:
    order = np.lexsort(columns[::-1])
    return [column[order] for column in columns]


def _cut(batches: Iterable[list[Column]], rows: int) -> Iterator[list[Column]]:
    """Sorted batches as parts of `rows` rows, or as many more as the last step needs to be whole."""
    held: list[Column] = []
    for batch in batches:
        held = [np.concatenate(pair) for pair in zip(held, batch, strict=True)] if held else batch
        starts = np.flatnonzero(np.diff(held[0])) + 1
        start = 0
        while (at := int(np.searchsorted(starts, start + rows))) < len(starts):
            stop = int(starts[at])
            yield [column[start:stop] for column in held]
            start = stop
        held = [column[start:] for column in held]
    if held and len(held[0]):
        yield held


def _repeats(rows: list[Column]) -> int:
    """How many of these sorted rows are as the one before."""
    return int(np.count_nonzero(np.logical_and.reduce([np.diff(column) == 0 for column in rows])))


def _ordered(bits: Int64s) -> Int64s:
    """The bits of doubles as numbers that sort as the doubles do, NaN last; the same function leads back."""
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))
