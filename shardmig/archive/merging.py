"""Sorting one series that is too long for memory: blocks sorted in place, then merged, stable all the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from shardmig.archive.rows import Column, Keys
from shardmig.archive.scratch import ScratchColumn
from shardmig.records import Int64s

BLOCK_ROWS: Final = 400_000
_LEAST_ROWS: Final = 1_024


def sort_blocks(columns: Sequence[ScratchColumn], start: int, stop: int, block_rows: int = BLOCK_ROWS) -> int:
    """Sort rows start to stop in blocks, in place, by the first three columns. Returns the number of blocks."""
    blocks = range(start, stop, block_rows)
    for begin in blocks:
        end = min(begin + block_rows, stop)
        whole, fraction, times = (column.read(begin, end) for column in columns[:3])
        order = np.lexsort((times, fraction, whole))
        for column in columns:
            column.write(begin, column.read(begin, end)[order])
    return len(blocks)


def merged_rows(
    columns: Sequence[ScratchColumn], start: int, stop: int, block_rows: int = BLOCK_ROWS
) -> Iterator[list[Column]]:
    """The rows of sorted blocks in order, rows of equal key in block order. Memory: about one block."""
    bounds = [(begin, min(begin + block_rows, stop)) for begin in range(start, stop, block_rows)]
    window = max(_LEAST_ROWS, block_rows // len(bounds))
    blocks = [_Block(columns, begin, end, window) for begin, end in bounds]
    while alive := [block for block in blocks if block.fill()]:
        takes = _ready(alive)
        taken = [block.take(count) for block, count in zip(alive, takes, strict=True) if count]
        merged = [np.concatenate(parts) for parts in zip(*taken, strict=True)]
        order = np.lexsort((merged[2], merged[1], merged[0]))
        yield [column[order] for column in merged]


class _Block:
    """A sorted block, of which a window is in memory."""

    def __init__(self, columns: Sequence[ScratchColumn], start: int, stop: int, window: int) -> None:
        self._columns = columns
        self._at, self._stop = start, stop
        self._window = window
        self._held: list[Column] = []

    def fill(self) -> bool:
        """Read on if nothing is left in memory; False at the end."""
        if (not self._held or len(self._held[0]) == 0) and self._at < self._stop:
            end = min(self._at + self._window, self._stop)
            self._held = [column.read(self._at, end) for column in self._columns]
            self._at = end
        return bool(self._held) and len(self._held[0]) > 0

    @property
    def keys(self) -> Keys:
        """The sort keys in memory."""
        return Keys(self._held[0], self._held[1], self._held[2])

    @property
    def last(self) -> tuple[int, int, int]:
        """The highest key in memory."""
        whole, fraction, times = (int(column[-1]) for column in self.keys)
        return whole, fraction, times

    def take(self, count: int) -> list[Column]:
        """Remove the first rows from memory."""
        taken = [column[:count] for column in self._held]
        self._held = [column[count:] for column in self._held]
        return taken


def _ready(blocks: list[_Block]) -> list[int]:
    """How many rows of each block may be given out: all below the lowest of the last keys, and those equal to it up to
    the first block that has it last, since that one may hold more of them further on."""
    bound = min(block.last for block in blocks)
    holder = next(index for index, block in enumerate(blocks) if block.last == bound)
    return [_count_upto(block.keys, bound, with_equal=index <= holder) for index, block in enumerate(blocks)]


def _count_upto(keys: Keys, bound: tuple[int, int, int], *, with_equal: bool) -> int:
    edge = Keys(*(_repeat(value, len(keys.whole)) for value in bound))
    below = ~edge.is_below(keys) if with_equal else keys.is_below(edge)
    return int(below.sum())


def _repeat(value: int, count: int) -> Int64s:
    return np.full(count, value, dtype=np.int64)
