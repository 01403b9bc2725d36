"""Rows of series in normal form: what ordering, parquet and the spool have in common.

A column of steps is held as whole part and fraction (in 1e-18), so that rows of any scale can stand side by side.
Texts and histograms are counts beside flat content. No Python object per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardmig.errors import BadInput
from shardmig.records import (
    MAX_STEP_SCALE,
    Chunk,
    FloatPoints,
    HistogramPoints,
    Histograms,
    Int64s,
    Points,
    Steps,
    StringPoints,
    Texts,
)
from shardmig.steps import whole_and_fraction

SeriesType = Literal["float_series", "string_series", "histogram_series"]
Column = NDArray[Any]

CHUNK_BYTES: Final = 32 << 20
"""Bound on the texts and histograms held at once: in a chunk, a row group, a frame of the spool."""

KINDS: Final = ("COUNTING", "DENSITY")
_INT64_MAX: Final = 2**63 - 1


class Keys(NamedTuple):
    """What rows of one series are sorted by: step (whole part, fraction in 1e-18), then time in ms."""

    whole: Int64s
    fraction: Int64s
    times_ms: Int64s

    def part(self, rows: slice) -> Keys:
        """Some of them."""
        return Keys(self.whole[rows], self.fraction[rows], self.times_ms[rows])

    def is_below(self, other: Keys) -> NDArray[np.bool_]:
        """Row by row: does this one stand before the other?"""
        steps_equal = (self.whole == other.whole) & (self.fraction == other.fraction)
        steps_below = (self.whole < other.whole) | ((self.whole == other.whole) & (self.fraction < other.fraction))
        below: NDArray[np.bool_] = steps_below | (steps_equal & (self.times_ms < other.times_ms))
        return below

    def changes(self) -> Int64s:
        """The rows that differ from the row before them."""
        changed = np.zeros(max(len(self.whole) - 1, 0), dtype=np.bool_)
        for column in self:
            changed |= column[1:] != column[:-1]
        return np.flatnonzero(changed) + 1


class Blob(NamedTuple):
    """Content of several rows, end to end: row i has the next counts[i] elements."""

    counts: Int64s
    content: Column


class Rows(NamedTuple):
    """Rows of several series of one type, series after series. `fixed`: one value a row; `blobs`: many."""

    type: SeriesType
    paths: list[str]
    lengths: Int64s
    keys: Keys
    fixed: list[Column]
    blobs: list[Blob]


def type_of(points: Points) -> SeriesType:
    """The type of the series in a chunk."""
    match points:
        case FloatPoints():
            return "float_series"
        case StringPoints():
            return "string_series"
        case HistogramPoints():
            return "histogram_series"


def rows_of(points: Points) -> Rows:
    """A chunk in normal form."""
    keys = Keys(*whole_and_fraction(points.steps), points.times_ms)
    fixed: list[Column]
    blobs: list[Blob]
    match points:
        case FloatPoints():
            fixed, blobs = [points.values], []
        case StringPoints():
            texts = points.values
            fixed, blobs = [], [Blob(np.diff(texts.offsets), np.frombuffer(texts.utf8, dtype=np.uint8))]
        case HistogramPoints():
            values = points.values
            kinds = np.fromiter(map(_kind_code, values.kinds), dtype=np.int64, count=len(values))
            fixed = [kinds]
            blobs = [Blob(values.edge_counts, values.edges), Blob(values.value_counts, values.values)]
    return Rows(type_of(points), points.paths, points.lengths, keys, fixed, blobs)


def points_of(rows: Rows) -> Iterator[Points]:
    """Chunks from normal form: one, unless the steps do not fit one 64-bit column at one scale."""
    payload = _payload(rows)
    for part, steps in steps_of(rows.keys.whole, rows.keys.fraction):
        paths, lengths = spans_within(rows.paths, rows.lengths, part)
        times = rows.keys.times_ms[part]
        some = payload[part] if len(steps) < len(rows.keys.whole) else payload
        if isinstance(some, Texts):
            yield StringPoints(paths, lengths, steps, times, some)
        elif isinstance(some, Histograms):
            yield HistogramPoints(paths, lengths, steps, times, some)
        else:
            yield FloatPoints(paths, lengths, steps, times, some)


def steps_of(whole: Int64s, fraction: Int64s) -> Iterator[tuple[slice, Steps]]:
    """Steps from normal form, each with the rows it stands for: one column, unless no scale holds all in 64 bits. Equal
    neighbours stay together. Raises BadInput for a step with more digits than 64 bits hold."""
    return _fitting_steps(whole, fraction, 0)


def slice_points(points: Points, part: slice) -> Points:
    """Some rows of a chunk, as views where possible."""
    paths, lengths = spans_within(points.paths, points.lengths, part)
    return type(points)(paths, lengths, points.steps[part], points.times_ms[part], points.values[part])  # type: ignore[arg-type]


def spans_within(paths: list[str], lengths: Int64s, part: slice) -> tuple[list[str], Int64s]:
    """Which series, and how many rows of each, lie in rows `part`; series without rows are left out."""
    ends = np.cumsum(lengths)
    inside = np.minimum(ends, part.stop) - np.maximum(ends - lengths, part.start)
    chosen = np.flatnonzero(inside > 0)
    return [paths[index] for index in chosen.tolist()], inside[chosen]


def cut_row(keys: Keys, sizes: Int64s, max_rows: int) -> int:
    """How many of these rows make the next chunk: at most `max_rows` and about CHUNK_BYTES, and never a cut between
    rows of equal key, unless those alone are too many. `sizes`: bytes of each row's content."""
    heavy = int(np.searchsorted(np.cumsum(sizes), CHUNK_BYTES, side="right"))
    most = max(1, min(max_rows, heavy, len(sizes)))
    if most == len(sizes):
        return most
    changes = keys.part(slice(0, most + 1)).changes()
    return int(changes[-1]) if len(changes) else most


def content_sizes(blobs: list[Blob], count: int) -> Int64s:
    """Bytes of content of each row."""
    sizes = np.zeros(count, dtype=np.int64)
    for blob in blobs:
        sizes += blob.counts * blob.content.itemsize
    return sizes


def pieces_of(chunk: Chunk) -> list[Chunk]:
    """A chunk, cut where its texts or histograms are more than CHUNK_BYTES."""
    if not isinstance(chunk, StringPoints | HistogramPoints):
        return [chunk]
    rows = rows_of(chunk)
    ends = np.cumsum(content_sizes(rows.blobs, len(chunk.times_ms)))
    if len(ends) <= 1 or ends[-1] <= CHUNK_BYTES:
        return [chunk]
    pieces: list[Chunk] = []
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK_BYTES, side="right")))
        pieces.append(slice_points(chunk, slice(start, stop)))
        start = stop
    return pieces


def _payload(rows: Rows) -> Any:
    match rows.type:
        case "float_series":
            return rows.fixed[0]
        case "string_series":
            (texts,) = rows.blobs
            offsets = np.zeros(len(texts.counts) + 1, dtype=np.int64)
            np.cumsum(texts.counts, out=offsets[1:])
            return Texts(offsets, texts.content.tobytes())
        case "histogram_series":
            edges, values = rows.blobs
            kinds = [KINDS[code] for code in rows.fixed[0].tolist()]
            return Histograms(kinds, edges.counts, edges.content, values.counts, values.content)


def _fitting_steps(whole: Int64s, fraction: Int64s, start: int) -> Iterator[tuple[slice, Steps]]:
    scale = _scale(fraction)
    power = 10**scale
    highest = max(abs(int(whole.max())), abs(int(whole.min()))) + 1 if len(whole) else 0
    if scale == 0 or highest * power <= _INT64_MAX:
        units = whole if scale == 0 else whole * power + fraction // 10 ** (MAX_STEP_SCALE - scale)
        yield slice(start, start + len(whole)), Steps(units, scale)
        return
    changes = np.flatnonzero((whole[1:] != whole[:-1]) | (fraction[1:] != fraction[:-1])) + 1
    if len(changes) == 0:
        yield slice(start, start + len(whole)), _one_step(int(whole[0]), int(fraction[0]), scale, len(whole))
        return
    middle = int(changes[np.abs(changes - len(whole) // 2).argmin()])
    yield from _fitting_steps(whole[:middle], fraction[:middle], start)
    yield from _fitting_steps(whole[middle:], fraction[middle:], start + middle)


def _one_step(whole: int, fraction: int, scale: int, count: int) -> Steps:
    units = whole * 10**scale + fraction // 10 ** (MAX_STEP_SCALE - scale)
    if abs(units) > _INT64_MAX:
        raise BadInput(f"the step {whole} + {fraction}e-18 has more digits than 64 bits hold")
    return Steps(np.full(count, units, dtype=np.int64), scale)


def _scale(fraction: Int64s) -> int:
    common = int(np.gcd.reduce(fraction)) if len(fraction) else 0
    if common == 0:
        return 0
    scale = MAX_STEP_SCALE
    while common % 10 == 0:
        common //= 10
        scale -= 1
    return scale


def _kind_code(kind: str) -> int:
    try:
        return KINDS.index(kind)
    except ValueError:
        raise BadInput(f"a histogram has the unknown type {kind!r}", hint=f"known: {', '.join(KINDS)}") from None
