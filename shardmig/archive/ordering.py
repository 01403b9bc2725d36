"""Points in canonical order from points in any order, in bounded memory.

Canonical: series by (path, type), rows by (step, time, arrival). A counting sort on disk: the first pass over the chunks
counts rows per series, the second puts each row into the place of its series in scratch columns, arrival kept. Reading
them from front to back gives the series in order; a series whose rows are out of order is sorted before it is read: in
memory if it is short, else block by block and merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from shardmig.archive.merging import merged_rows, sort_blocks
from shardmig.archive.rows import (
    CHUNK_BYTES,
    Blob,
    Column,
    Keys,
    Rows,
    SeriesType,
    content_sizes,
    cut_row,
    points_of,
    rows_of,
)
from shardmig.archive.scratch import ScratchColumn
from shardmig.records import Int64s, Points

_IN_MEMORY_BYTES: Final = 48 << 20
_BLOB_TYPES: Final[dict[SeriesType, list[type[np.generic]]]] = {
    "float_series": [],
    "string_series": [np.uint8],
    "histogram_series": [np.float64, np.float64],
}
_FIXED_TYPES: Final[dict[SeriesType, list[type[np.generic]]]] = {
    "float_series": [np.float64],
    "string_series": [],
    "histogram_series": [np.int64],
}
_READ_ROWS: Final = 100_000


def ordered_points(again: Callable[[], Iterable[Points]], scratch: Path, chunk_points: int) -> Iterator[Points]:
    """The points that `again()` gives, in canonical order, in chunks of at most `chunk_points`.

    `again` is called twice and must give the same chunks both times. Rows equal in step and time are not split over two
    chunks unless there are more of them than `chunk_points`. `scratch` is a folder on disk; it is used only when the
    points do not fit a few dozen MB.
    """
    counts: dict[SeriesType, _Counts] = {}
    for points in again():
        rows = rows_of(points)
        counts.setdefault(rows.type, _Counts(rows.type)).add(rows)
    size = sum(count.bytes() for count in counts.values())
    folder = scratch if size > _IN_MEMORY_BYTES else None
    placed = {series_type: _Placed(count, folder) for series_type, count in counts.items()}
    try:
        for points in again():
            rows = rows_of(points)
            placed[rows.type].place(rows)
        series = sorted((path, series_type) for series_type, count in counts.items() for path in count.rows)
        for series_type, group in groupby(series, key=lambda pair: pair[1]):
            for rows in placed[series_type].read([path for path, _ in group], chunk_points):
                yield from points_of(rows)
    finally:
        for columns in placed.values():
            columns.close()


class _Counts:
    """How many rows, and elements of content, each series has."""

    def __init__(self, series_type: SeriesType) -> None:
        self.type = series_type
        self.rows: dict[str, int] = {}
        self.content: list[dict[str, int]] = [{} for _ in _BLOB_TYPES[series_type]]

    def add(self, rows: Rows) -> None:
        for path, length in zip(rows.paths, rows.lengths.tolist(), strict=True):
            if length:
                self.rows[path] = self.rows.get(path, 0) + length
        for totals, blob in zip(self.content, rows.blobs, strict=True):
            for path, count in zip(rows.paths, _sums(blob.counts, rows.lengths).tolist(), strict=True):
                totals[path] = totals.get(path, 0) + count

    def content_bytes(self, path: str) -> int:
        return sum(
            totals[path] * np.dtype(dtype).itemsize
            for totals, dtype in zip(self.content, _BLOB_TYPES[self.type], strict=True)
        )

    def bytes(self) -> int:
        columns = 3 + len(_FIXED_TYPES[self.type]) + 2 * len(_BLOB_TYPES[self.type])
        return sum(count * columns * 8 + self.content_bytes(path) for path, count in self.rows.items())


class _Placed:
    """All rows of one type, each series in one piece, series by path."""

    def __init__(self, counts: _Counts, folder: Path | None) -> None:
        self.type = counts.type
        paths = sorted(counts.rows)
        self._start = _starts(paths, counts.rows)
        self._next = dict(self._start)
        self._stop = {path: self._start[path] + counts.rows[path] for path in paths}
        self._bytes = {path: counts.content_bytes(path) for path in paths}
        total = sum(counts.rows.values())
        blobs, fixed = _BLOB_TYPES[self.type], _FIXED_TYPES[self.type]
        # One column each: whole, fraction, time, the fixed ones, and per blob where its content starts and how much.
        dtypes = [np.int64] * 3 + fixed + [np.int64] * (2 * len(blobs))
        self._columns = [ScratchColumn(total, dtype, folder) for dtype in dtypes]
        self._content_next = [_starts(paths, totals) for totals in counts.content]
        self._content = [
            ScratchColumn(sum(totals.values()), dtype, folder)
            for totals, dtype in zip(counts.content, blobs, strict=True)
        ]

    def place(self, rows: Rows) -> None:
        """Put rows behind those of their series that came before."""
        columns: list[Column] = [*rows.keys, *rows.fixed]
        for index, blob in enumerate(rows.blobs):
            columns += [self._place_content(rows, index), blob.counts]
        targets = _reserve(self._next, rows.paths, rows.lengths)
        for source, start in _stretches(targets, rows.lengths):
            for index, column in enumerate(columns):
                part = column[source]
                if index != 1 or part.any():  # fractions are zero already
                    self._columns[index].write(start, part)

    def read(self, paths: list[str], max_rows: int) -> Iterator[Rows]:
        """The rows of these series, neighbours by path, in order."""
        group: list[str] = []
        group_rows = group_bytes = 0
        for path in paths:
            rows, size = self._stop[path] - self._start[path], self._bytes[path]
            if group and (group_rows + rows > max_rows or group_bytes + size > CHUNK_BYTES):
                yield from self._read_group(group, max_rows)
                group, group_rows, group_bytes = [], 0, 0
            group.append(path)
            group_rows, group_bytes = group_rows + rows, group_bytes + size
        yield from self._read_group(group, max_rows)

    def close(self) -> None:
        for column in (*self._columns, *self._content):
            column.close()

    def _place_content(self, rows: Rows, index: int) -> Int64s:
        """Put the content of one blob into place; returns where each row's content now starts."""
        blob = rows.blobs[index]
        lengths = _sums(blob.counts, rows.lengths)
        targets = _reserve(self._content_next[index], rows.paths, lengths)
        for source, start in _stretches(targets, lengths):
            self._content[index].write(start, blob.content[source])
        before_row = np.cumsum(blob.counts) - blob.counts
        before_series = np.cumsum(lengths) - lengths
        starts: Int64s = np.repeat(targets - before_series, rows.lengths) + before_row
        return starts

    def _read_group(self, paths: list[str], max_rows: int) -> Iterator[Rows]:
        start, stop = self._start[paths[0]], self._stop[paths[-1]]
        if len(paths) == 1:
            for columns in _cut(self._series_in_order(start, stop), self._sizes, max_rows):
                yield self._rows(paths, np.array([len(columns[0])], dtype=np.int64), columns)
            return
        columns = self._fixed_columns(start, stop)
        lengths = np.array([self._stop[path] - self._start[path] for path in paths], dtype=np.int64)
        series = np.repeat(np.arange(len(paths)), lengths)
        keys = _keys(columns)
        if (keys.part(slice(1, None)).is_below(keys.part(slice(-1))) & (series[1:] == series[:-1])).any():
            order = np.lexsort((keys.times_ms, keys.fraction, keys.whole, series))
            columns = [column[order] for column in columns]
        yield self._rows(paths, lengths, columns)

    def _series_in_order(self, start: int, stop: int) -> Iterator[list[Column]]:
        if self._is_in_order(start, stop):
            return self._windows(start, stop)
        if sort_blocks(self._columns, start, stop) == 1:
            return self._windows(start, stop)
        return merged_rows(self._columns, start, stop)

    def _is_in_order(self, start: int, stop: int) -> bool:
        for begin in range(start, stop, _READ_ROWS):
            # one row more than the window: the first of the next
            end = min(begin + _READ_ROWS + 1, stop)
            keys = Keys(*(column.read(begin, end) for column in self._columns[:3]))
            if keys.part(slice(1, None)).is_below(keys.part(slice(-1))).any():
                return False
        return True

    def _windows(self, start: int, stop: int) -> Iterator[list[Column]]:
        for begin in range(start, stop, _READ_ROWS):
            yield self._fixed_columns(begin, min(begin + _READ_ROWS, stop))

    def _fixed_columns(self, start: int, stop: int) -> list[Column]:
        return [column.read(start, stop) for column in self._columns]

    def _sizes(self, columns: list[Column]) -> Int64s:
        counts = columns[3 + len(_FIXED_TYPES[self.type]) + 1 :: 2]
        blobs = [Blob(count, content.read(0, 0)) for count, content in zip(counts, self._content, strict=True)]
        return content_sizes(blobs, len(columns[0]))

    def _rows(self, paths: list[str], lengths: Int64s, columns: list[Column]) -> Rows:
        fixed_end = 3 + len(_FIXED_TYPES[self.type])
        blobs = [
            Blob(counts, _gather(content, starts, counts))
            for starts, counts, content in zip(
                columns[fixed_end::2], columns[fixed_end + 1 :: 2], self._content, strict=True
            )
        ]
        return Rows(self.type, paths, lengths, _keys(columns), columns[3:fixed_end], blobs)


class _Stretch(NamedTuple):
    source: slice | Int64s
    start: int


def _stretches(targets: Int64s, lengths: Int64s) -> Iterator[_Stretch]:
    """Which rows go where, with as few writes as possible: spans whose targets touch are written together."""
    sources = np.cumsum(lengths) - lengths
    order = np.argsort(targets, kind="stable")
    order = order[lengths[order] > 0]
    targets, sources, lengths = targets[order], sources[order], lengths[order]
    breaks = np.flatnonzero(targets[1:] != targets[:-1] + lengths[:-1]) + 1
    for spans in np.split(np.arange(len(targets)), breaks) if len(targets) else []:
        first, count = spans[0], lengths[spans]
        if len(spans) == 1:
            yield _Stretch(slice(int(sources[first]), int(sources[first] + lengths[first])), int(targets[first]))
        else:
            shift = sources[spans] - (np.cumsum(count) - count)
            yield _Stretch(np.repeat(shift, count) + np.arange(int(count.sum())), int(targets[first]))


def _reserve(next_places: dict[str, int], paths: list[str], lengths: Int64s) -> Int64s:
    targets = np.zeros(len(paths), dtype=np.int64)
    for index, (path, length) in enumerate(zip(paths, lengths.tolist(), strict=True)):
        if length:
            place = targets[index] = next_places[path]
            next_places[path] = int(place) + length
    return targets


def _cut(
    batches: Iterable[list[Column]], sizes: Callable[[list[Column]], Int64s], max_rows: int
) -> Iterator[list[Column]]:
    held: list[Column] = []
    for batch in batches:
        held = [np.concatenate(pair) for pair in zip(held, batch, strict=True)] if held else batch
        while len(held[0]) > (count := cut_row(_keys(held), sizes(held), max_rows)):
            yield [column[:count] for column in held]
            held = [column[count:] for column in held]
    if held:
        yield held


def _gather(content: ScratchColumn, starts: Int64s, counts: Int64s) -> Column:
    """The content of rows, end to end: one read for each stretch that lies together."""
    if len(starts) == 0:
        return content.read(0, 0)
    breaks = np.flatnonzero(starts[1:] != starts[:-1] + counts[:-1]) + 1
    firsts = np.concatenate(([0], breaks))
    lasts = np.concatenate((breaks, [len(starts)])) - 1
    ends = starts[lasts] + counts[lasts]
    parts = [content.read(start, end) for start, end in zip(starts[firsts].tolist(), ends.tolist(), strict=True)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _keys(columns: list[Column]) -> Keys:
    return Keys(columns[0], columns[1], columns[2])


def _sums(counts: Int64s, lengths: Int64s) -> Int64s:
    totals = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=totals[1:])
    ends = np.cumsum(lengths)
    sums: Int64s = totals[ends] - totals[ends - lengths]
    return sums


def _starts(paths: list[str], totals: dict[str, int]) -> dict[str, int]:
    starts: dict[str, int] = {}
    place = 0
    for path in paths:
        starts[path] = place
        place += totals.get(path, 0)
    return starts
