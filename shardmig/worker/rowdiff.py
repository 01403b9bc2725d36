"""Which rows of a series differ between two readings, in bounded memory.

Only called for fields whose digests differ. Rows fall into buckets by step and time; a first reading finds the buckets
that differ, a second collects just their rows and pairs them. Knows no system and no archive: it is handed readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardmig.archive.digest import float_bits, plain_step
from shardmig.records import (
    MAX_STEP_SCALE,
    Chunk,
    Finding,
    FloatPoints,
    HistogramPoints,
    Int64s,
    Points,
    StringPoints,
)
from shardmig.steps import whole_and_fraction
from shardmig.worker.differences import SHOWN, preview, time_text

Reading = Callable[[], Iterable[Chunk]]
"""Opens one side's chunks of the fields in question; may be called several times."""

SeriesKey = tuple[str, str]
"""(path, field type)"""

UInt64s = NDArray[np.uint64]

ROWS_HELD: Final = 250_000
"""Rows that are compared one by one; beyond it only those of some differing buckets are (and it is said)."""

_BUCKETS_HELD: Final = 1 << 21
_MOST_BUCKETS: Final = 4096


class _Rows(NamedTuple):
    """Rows of one series in a form that does not depend on step scale or NaN payload. `shown` is filled for texts
    and histograms only; a float shows its own bits."""

    whole: Int64s
    fraction: Int64s
    times_ms: Int64s
    values: UInt64s
    shown: list[str]

    def take(self, mask: NDArray[np.bool_]) -> _Rows:
        shown = [text for text, keep in zip(self.shown, mask.tolist(), strict=True) if keep] if self.shown else []
        return _Rows(self.whole[mask], self.fraction[mask], self.times_ms[mask], self.values[mask], shown)

    def places(self) -> UInt64s:
        """A hash of step and time: rows that differ only in value fall into one bucket."""
        mixed = self.whole.view(np.uint64)
        for column in (self.fraction, self.times_ms):
            mixed = _mixed(mixed) ^ column.view(np.uint64)
        return _mixed(mixed)

    def buckets(self, count: int) -> NDArray[np.intp]:
        return (self.places() % np.uint64(count)).astype(np.intp)


class _Row(NamedTuple):
    step: Decimal
    time_ms: int
    value: int
    shown: str


class _Buckets:
    """Of one series, by bucket: the sum of row hashes, expected minus found, and the rows of both sides."""

    def __init__(self, buckets: int) -> None:
        self.sums = np.zeros(buckets, dtype=np.uint64)
        self.rows = np.zeros(buckets, dtype=np.int64)

    def add(self, rows: _Rows, sign: int) -> None:
        numbers = rows.buckets(len(self.sums))
        change = np.zeros_like(self.sums)
        np.add.at(change, numbers, _mixed(_mixed(rows.values) ^ rows.places()))
        self.sums = self.sums + change if sign > 0 else self.sums - change
        self.rows += np.bincount(numbers, minlength=len(self.rows))

    def differing(self, most_rows: int) -> tuple[NDArray[np.bool_], int]:
        """Mask of the differing buckets that fit `most_rows` (at least one), and how many differ in all."""
        numbers = np.flatnonzero(self.sums)
        taken = max(1, int(np.searchsorted(np.cumsum(self.rows[numbers]), most_rows, side="right")))
        mask = np.zeros(len(self.sums), dtype=np.bool_)
        mask[numbers[:taken]] = True
        return mask, len(numbers)


def row_differences(expected: Reading, found: Reading, rows: dict[SeriesKey, int]) -> dict[SeriesKey, list[Finding]]:
    """What differs in each series named by `rows` (its value: the greater number of rows of the two sides).

    Series that do not differ have an empty list. Reads each side once, or twice when more than ROWS_HELD rows are in
    question. Kind of the findings: loss; codes: points-missing, points-extra, values-differ, times-differ,
    steps-differ.
    """
    if sum(rows.values()) <= ROWS_HELD:
        masks = {key: np.ones(1, dtype=np.bool_) for key in rows}
        remarks = dict.fromkeys(rows, "")
    else:
        masks, remarks = _choose_buckets(expected, found, rows)
    collected: dict[SeriesKey, tuple[list[_Rows], list[_Rows]]] = {key: ([], []) for key in rows}
    for side, reading in enumerate((expected, found)):
        for key, part in _series(reading(), rows):
            if kept := _in_buckets(part, masks[key]):
                collected[key][side].append(kept)
    return {key: list(_paired(key, *collected[key], remarks[key])) for key in rows}


def _choose_buckets(
    expected: Reading, found: Reading, rows: dict[SeriesKey, int]
) -> tuple[dict[SeriesKey, NDArray[np.bool_]], dict[SeriesKey, str]]:
    count = max(16, min(_MOST_BUCKETS, _BUCKETS_HELD // len(rows)))
    buckets = {key: _Buckets(count) for key in rows}
    for sign, reading in ((1, expected), (-1, found)):
        for key, part in _series(reading(), rows):
            buckets[key].add(part, sign)
    masks: dict[SeriesKey, NDArray[np.bool_]] = {}
    remarks: dict[SeriesKey, str] = {}
    for key, bucket in buckets.items():
        masks[key], differing = bucket.differing(max(1000, ROWS_HELD // len(rows)))
        taken = int(masks[key].sum())
        remarks[key] = "" if taken >= differing else f"; at least: counted in {taken} of {differing} differing parts"
    return masks, remarks


def _in_buckets(rows: _Rows, mask: NDArray[np.bool_]) -> _Rows | None:
    if len(mask) == 1:
        return rows
    wanted = mask[rows.buckets(len(mask))]
    return rows.take(wanted) if wanted.any() else None


def _series(chunks: Iterable[Chunk], wanted: dict[SeriesKey, int]) -> Iterator[tuple[SeriesKey, _Rows]]:
    for chunk in chunks:
        if not isinstance(chunk, Points):
            continue
        kind = _type_of(chunk)
        for path, part in chunk.series():
            if (path, kind) in wanted:
                yield (path, kind), _rows(part)


def _type_of(chunk: Points) -> str:
    match chunk:
        case FloatPoints():
            return "float_series"
        case StringPoints():
            return "string_series"
        case HistogramPoints():
            return "histogram_series"


def _rows(part: Points) -> _Rows:
    whole, fraction = whole_and_fraction(part.steps)
    if isinstance(part, FloatPoints):
        return _Rows(whole, fraction, part.times_ms, float_bits(part.values), [])
    texts = part.values.to_list() if isinstance(part, StringPoints) else _histogram_texts(part)
    values = [int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) for text in texts]
    return _Rows(
        whole,
        fraction,
        part.times_ms,
        np.array(values, dtype=np.uint64),
        [preview(text) for text in texts],
    )


def _histogram_texts(part: HistogramPoints) -> list[str]:
    histograms = part.values
    texts = []
    for number in range(len(histograms)):
        one = histograms[number : number + 1]
        texts.append(f"{one.kinds[0]} edges {one.edges.tolist()} values {one.values.tolist()}")
    return texts


def _paired(key: SeriesKey, expected: list[_Rows], found: list[_Rows], remark: str) -> Iterator[Finding]:
    """Rows on one side only, paired where two agree in all but one column."""
    missing, extra = _only_on_one_side(expected, found)
    for code, same in (
        ("values-differ", lambda row: (row.step, row.time_ms)),
        ("times-differ", lambda row: (row.step, row.value)),
        ("steps-differ", lambda row: (row.time_ms, row.value)),
    ):
        pairs, missing, extra = _pairs(missing, extra, same)
        if pairs:
            shown = [f"{_place(one)}: {_change(code, one, other)}" for one, other in pairs[:SHOWN]]
            yield Finding("loss", code, key[0], len(pairs), "; ".join(shown) + remark)
    for code, rows, word in (("points-missing", missing, "expected"), ("points-extra", extra, "found")):
        if rows:
            shown = [f"{_place(row)}: {word} {row.shown}" for row in rows[:SHOWN]]
            yield Finding("loss", code, key[0], len(rows), "; ".join(shown) + remark)


def _pairs(
    missing: list[_Row], extra: list[_Row], same: Callable[[_Row], tuple[object, ...]]
) -> tuple[list[tuple[_Row, _Row]], list[_Row], list[_Row]]:
    waiting: dict[tuple[object, ...], list[_Row]] = {}
    for row in reversed(extra):
        waiting.setdefault(same(row), []).append(row)
    pairs, unpaired = [], []
    for row in missing:
        if partners := waiting.get(same(row)):
            pairs.append((row, partners.pop()))
        else:
            unpaired.append(row)
    return pairs, unpaired, sorted(row for partners in waiting.values() for row in partners)


def _only_on_one_side(expected: list[_Rows], found: list[_Rows]) -> tuple[list[_Row], list[_Row]]:
    """The multiset difference, both ways, by step."""
    sides = [*expected, *found]
    if not sides:
        return [], []
    columns = [np.concatenate(parts) for parts in zip(*[rows[:3] for rows in sides], strict=True)]
    values = np.concatenate([rows.values for rows in sides])
    shown = [text for rows in sides for text in rows.shown]
    signs = np.ones(len(values), dtype=np.int64)
    signs[sum(len(rows.values) for rows in expected) :] = -1
    order = np.lexsort((values, *reversed(columns)))
    columns = [column[order] for column in columns]
    values, signs = values[order], signs[order]
    changed = np.any([np.diff(column) != 0 for column in (*columns, values)], axis=0)
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))
    surplus = np.add.reduceat(signs, starts)
    missing: list[_Row] = []
    extra: list[_Row] = []
    for group in np.flatnonzero(surplus).tolist():
        at = int(starts[group])
        step = Decimal(int(columns[0][at])) + Decimal(int(columns[1][at])).scaleb(-MAX_STEP_SCALE)
        text = shown[int(order[at])] if shown else repr(float(values[at : at + 1].view(np.float64)[0]))
        row = _Row(step, int(columns[2][at]), int(values[at]), text)
        (missing if surplus[group] > 0 else extra).extend([row] * abs(int(surplus[group])))
    return missing, extra


def _change(code: str, one: _Row, other: _Row) -> str:
    match code:
        case "values-differ":
            return f"expected {one.shown}, found {other.shown}"
        case "times-differ":
            return f"value {one.shown}, found at {time_text(other.time_ms)}"
        case _:
            return f"value {one.shown}, found at step {plain_step(other.step)}"


def _place(row: _Row) -> str:
    return f"step {plain_step(row.step)}, {time_text(row.time_ms)}"


def _mixed(numbers: UInt64s) -> UInt64s:
    """The finalizer of splitmix64: every bit of the result depends on every bit of the number."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
