"""The history of a run as it is written: all series merged by step, one row a step.

W&B drops a row whose step is smaller than that of the row before, so nothing may be written series by series.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.history import RowEncoder, Rows, json_item
from shardmig.adapters.wandb.items import Item
from shardmig.adapters.wandb.log import LogWriter
from shardmig.adapters.wandb.times import TimesWriter
from shardmig.errors import Unsupported
from shardmig.records import NO_TIME, Int64s

MOST_ROW_BYTES: Final = 10 * 2**20 - 200 * 2**10
"""wandb-core sends no line of history above 10 MiB - 100 KiB."""
_MOST_ITEM_BYTES: Final = 16 * 2**20
_MOST_ROW_ITEM_BYTES: Final = 5 * 2**20
_NOTHING: Final = Points(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))


class _Window(NamedTuple):
    points: Points
    items: list[Item]


class History:
    """Writes the rows of one run. One use. `rows`, `values`: how many rows and numbers. `left_out`: items that no row had room for, by key."""

    def __init__(self, log: LogWriter, times: TimesWriter, keys: list[str], start_ms: int) -> None:
        self._log = log
        self._times = times
        self._keys = keys
        self._encoder = RowEncoder(keys, start_ms)
        self._time_ms = start_ms
        self._has_value = np.zeros(len(keys), dtype=np.bool_)
        self._values = np.zeros(len(keys), dtype=np.float64)
        self._texts: dict[str, bytes] = {}
        self.rows = 0
        self.values = 0
        self.step = 0
        self.left_out: Counter[str] = Counter()

    def write(self, points: Iterator[Points], items: Iterator[Item]) -> None:
        """All points and items, both in step order. Raises Unsupported for a row that W&B cannot take, DiskFull."""
        for window in _paired(points, items):
            self._write_window(window)

    @property
    def last_values(self) -> dict[str, float]:
        """The last value of each series."""
        numbers = np.flatnonzero(self._has_value).tolist()
        return dict(zip((self._keys[number] for number in numbers), self._values[numbers].tolist(), strict=True))

    @property
    def last_texts(self) -> Mapping[str, bytes]:
        """The last item of each key that has any."""
        return self._texts

    @property
    def time_ms(self) -> int:
        """Of the last row."""
        return self._time_ms

    def _write_window(self, window: _Window) -> None:
        points = window.points
        item_steps = np.fromiter((item.step for item in window.items), np.int64, len(window.items))
        steps = _distinct(points.steps)
        if len(item_steps):
            steps = np.union1d(steps, item_steps)
        row_of = np.searchsorted(steps, points.steps)
        times_ms = self._row_times(
            len(steps), row_of, points.times_ms, np.searchsorted(steps, item_steps), window.items
        )
        starts = np.append(np.searchsorted(points.steps, steps), len(points))
        rows = Rows(steps, times_ms, starts, points.keys, points.values)
        self._log.add_all(self._bounded(rows, self._items_by_step(window.items)))
        self._times.add(points, times_ms[row_of])
        self._has_value[points.keys] = True
        self._values[points.keys] = points.values  # of equal keys the last one stays
        self._texts |= {self._keys[item.key]: item.text for item in window.items}
        self.rows += len(steps)
        self.values += len(points)
        self.step = int(steps[-1])

    def _bounded(self, rows: Rows, extra: dict[int, bytes]) -> list[bytes]:
        records = self._encoder.encode(rows, extra)
        if max(map(len, records)) > MOST_ROW_BYTES:
            raise Unsupported(
                f"step {int(rows.steps[np.argmax([len(record) for record in records])])} has more values than W&B takes "
                "in one row (10 MB)",
                hint="load fewer fields with --attributes or --exclude-attributes",
            )
        return records

    def _items_by_step(self, items: list[Item]) -> dict[int, bytes]:
        """Of items with one step and key the last; not those that make a row too large."""
        by_place = {(item.step, item.key): item.text for item in items}
        by_step: dict[int, bytes] = {}
        for (step, key), text in by_place.items():
            held = by_step.get(step, b"")
            if len(held) + len(text) > _MOST_ROW_ITEM_BYTES:
                self.left_out[self._keys[key]] += 1
            else:
                by_step[step] = held + json_item(self._keys[key], text)
        return by_step

    def _row_times(
        self, count: int, row_of: Int64s, times_ms: Int64s, item_rows: Int64s, items: Iterable[Item]
    ) -> Int64s:
        """The greatest time of each row; a row without any has that of the row before."""
        rows = np.full(count, NO_TIME, dtype=np.int64)
        np.maximum.at(rows, row_of, times_ms)
        for row, item in zip(item_rows.tolist(), items, strict=True):
            rows[row] = max(int(rows[row]), item.time_ms)
        known = np.maximum.accumulate(np.where(rows != NO_TIME, np.arange(count), -1))
        filled = np.where(known >= 0, rows[np.maximum(known, 0)], self._time_ms)
        self._time_ms = int(filled[-1])
        return filled


def _distinct(ascending: Int64s) -> Int64s:
    """Each value once; without the sorting or hashing of `np.unique`."""
    first = np.ones(len(ascending), dtype=np.bool_)
    first[1:] = ascending[1:] != ascending[:-1]
    return ascending[first]


class _Ahead:
    """Items with the next one in sight."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._next = next(items, None)

    def up_to(self, last: int) -> tuple[list[Item], bool]:
        """The items up to a step; where they are many only those up to the end of an earlier step, and True."""
        taken: list[Item] = []
        size_bytes = 0
        while (item := self._next) is not None and item.step <= last:
            if size_bytes > _MOST_ITEM_BYTES and item.step != taken[-1].step:
                return taken, True
            taken.append(item)
            size_bytes += len(item.text)
            self._next = next(self._items, None)
        return taken, False


def _paired(points: Iterator[Points], items: Iterator[Item]) -> Iterator[_Window]:
    """Points and items of the same steps; no window has much more than 16 MiB of items."""
    ahead = _Ahead(items)
    for window in itertools.chain(points, [_NOTHING]):
        last = int(window.steps[-1]) if len(window) else 2**63 - 1
        left = window
        is_full = True
        while is_full:
            taken, is_full = ahead.up_to(last)
            end = int(np.searchsorted(left.steps, taken[-1].step if is_full else last, side="right"))
            if end or taken:
                yield _Window(left.part(slice(0, end)), taken)
            left = left.part(slice(end, None))
