"""Points of many series on their way into chunks: gathered row by row, grouped and checked column by column.

Steps are kept exactly: as integers of 1e-6 (what Neptune 3.x has, and nearly every step of 2.x), else as decimals.
Rows that a server would refuse because their step does not rise are kept and counted: they were logged, and the
archive can hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.errors import StepConflict
from shardmig.records import (
    MAX_STEP_SCALE,
    NO_TIME,
    FieldType,
    FloatPoints,
    HistogramPoints,
    Histograms,
    Int64s,
    Points,
    Steps,
    StringPoints,
    Texts,
)
from shardmig.steps import from_decimals

MICRO: Final = 1_000_000
_NONE: Final = int(np.iinfo(np.int64).min)
_FLOAT_EXACT: Final = 2.0**53
_MICRO_EXACT: Final = 9.2e12
_INT64_MAX: Final = 2**63 - 1
_KINDS: Final[tuple[FieldType, ...]] = ("float_series", "string_series", "histogram_series", "file_series")
PointKind = Literal["float_series", "string_series", "histogram_series"]

Histogram = tuple[str, list[float], list[float]]
"""Kind, edges, values."""


class SeriesState(msgspec.Struct, array_like=True):
    """What is remembered of a series between windows. `last`: its highest step as decimal text, "" = no point yet."""

    path: str
    kind: FieldType
    rows: int = 0
    last: str = ""


class SeriesTable:
    """All series of a run met so far, by number, with their highest step."""

    def __init__(self, states: Sequence[SeriesState] = ()) -> None:
        self.paths: list[str] = []
        self.kinds: list[FieldType] = []
        self.rows: list[int] = []
        self.last = np.full(64, _NONE, dtype=np.int64)
        self.fine: dict[int, Decimal] = {}
        self._numbers: dict[tuple[str, FieldType], int] = {}
        for state in states:
            number = self.number(state.path, state.kind)
            self.rows[number] = state.rows
            if state.last:
                self._set_last(number, Decimal(state.last))

    def types_at(self, path: str) -> list[FieldType]:
        """Which kinds of series a path holds."""
        return [kind for kind in _KINDS if (path, kind) in self._numbers]

    def number(self, path: str, kind: FieldType) -> int:
        """The number of a series, new or known."""
        found = self._numbers.get((path, kind))
        if found is not None:
            return found
        self._numbers[path, kind] = number = len(self.paths)
        self.paths.append(path)
        self.kinds.append(kind)
        self.rows.append(0)
        if number == len(self.last):
            self.last = np.concatenate([self.last, np.full(number, _NONE, dtype=np.int64)])
        return number

    def states(self) -> list[SeriesState]:
        """For a cursor."""
        texts = [self._last_text(number) for number in range(len(self.paths))]
        return [SeriesState(*row) for row in zip(self.paths, self.kinds, self.rows, texts, strict=True)]

    def last_decimal(self, number: int) -> Decimal | None:
        """The highest step of a series, exactly."""
        if number in self.fine:
            return self.fine[number]
        micro = int(self.last[number])
        return None if micro == _NONE else Decimal(micro).scaleb(-6)

    def note_single(self, number: int, step: Decimal | None) -> tuple[Decimal, bool]:
        """Account for one row outside the columns (a file of a series): its step (None = the next one), and whether
        the step rises."""
        last = self.last_decimal(number)
        if step is None:
            step = Decimal(0) if last is None else last + 1
        self.rows[number] += 1
        rises = last is None or step > last
        if rises:
            self._set_last(number, step)
        return (step.to_integral_value() if step == step.to_integral_value() else step.normalize()), rises

    def _set_last(self, number: int, step: Decimal) -> None:
        micro = step.scaleb(6)
        if number not in self.fine and micro == micro.to_integral_value() and abs(micro) < _MICRO_EXACT * MICRO:
            self.last[number] = int(micro)
        else:
            self.fine[number] = step

    def _last_text(self, number: int) -> str:
        last = self.last_decimal(number)
        return "" if last is None else str(last)


class Rows:
    """Points of one kind, row by row. The lists are open to the loops that fill them: a call a point is too dear.

    steps: numbers, None = the next step of its series; or, with `micro_steps`, integers of 1e-6.
    times: seconds, None = none; or, with `micro_steps`, ms.
    """

    def __init__(self, kind: PointKind, *, micro_steps: bool = False) -> None:
        self.kind = kind
        self.micro_steps = micro_steps
        self.clear()

    def __len__(self) -> int:
        return len(self.numbers)

    def clear(self) -> None:
        """Forget all rows."""
        self._floats: NDArray[np.float64] | None = None
        self.numbers: list[int] = []
        self.steps: list[Any] = []
        self.times: list[Any] = []
        self.values: list[Any] = []

    def chunks(self, table: SeriesTable, most: int, findings: FindingLog) -> Iterator[Points]:
        """All rows as chunks of at most `most` points, series after series, each in order of arrival. Updates the
        highest steps in `table`."""
        if not self.numbers:
            return
        numbers = np.array(self.numbers, dtype=np.int64)
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        units, is_exact = self._micro_units(order)
        starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
        for first, number in zip(starts.tolist(), numbers[starts].tolist(), strict=True):
            if number in table.fine:
                is_exact[first] = False
        plain = _whole_groups(is_exact, starts)
        if not self.micro_steps:
            plain &= _fill_next_steps(units, numbers, starts, table)
        times = self._times(order, numbers, table, findings)
        keep = plain.repeat(np.diff(np.r_[starts, len(numbers)]))
        if keep.any():
            _count_not_rising(units[keep], numbers[keep], table, findings)
            yield from self._cut(order[keep], numbers[keep], Steps(units[keep], 6), times[keep], table, most)
        ends = np.r_[starts[1:], len(numbers)]
        for start, end, is_plain in zip(starts.tolist(), ends.tolist(), plain.tolist(), strict=True):
            if not is_plain:
                yield from self._fine_chunks(
                    order[start:end], int(numbers[start]), times[start:end], table, most, findings
                )
        for number, rows in zip(numbers[starts].tolist(), np.diff(np.r_[starts, len(numbers)]).tolist(), strict=True):
            table.rows[number] += rows

    def _micro_units(self, order: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        """Steps in 1e-6 (_NONE = not given), and where that is exact."""
        try:
            if self.micro_steps:
                return np.array(self.steps, dtype=np.int64)[order], np.ones(len(order), dtype=np.bool_)
            steps = np.array(self.steps, dtype=np.float64)[order]
        except OverflowError:
            return np.zeros(len(order), dtype=np.int64), np.zeros(len(order), dtype=np.bool_)
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = np.rint(steps * MICRO)
            is_whole = (steps == np.rint(steps)) & (np.abs(steps) < _MICRO_EXACT)
            is_fine = (np.abs(scaled) < _FLOAT_EXACT) & (scaled / MICRO == steps)
            units = np.where(is_fine, scaled, 0).astype(np.int64)
            units[is_whole] = steps[is_whole].astype(np.int64) * MICRO
        missing = np.isnan(steps)
        units[missing] = _NONE
        if missing.any() and int(missing.sum()) != self.steps.count(None):
            given = np.fromiter((step is None for step in self.steps), dtype=np.bool_, count=len(self.steps))
            missing = given[order]
        return units, is_whole | is_fine | missing

    def _times(self, order: Int64s, numbers: Int64s, table: SeriesTable, findings: FindingLog) -> Int64s:
        """Times in ms. Seconds become ms as the 1.x client makes them for its server: int(ts * 1000), toward zero."""
        if self.micro_steps:
            return np.array(self.times, dtype=np.int64)[order]
        seconds = np.array(self.times, dtype=np.float64)[order]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = seconds * 1000
            is_time = np.abs(scaled) < _FLOAT_EXACT
        times = np.full(len(scaled), NO_TIME, dtype=np.int64)
        times[is_time] = scaled[is_time].astype(np.int64)
        if not is_time.all():
            for position in np.flatnonzero(~is_time).tolist():
                if self.times[order[position]] is not None:
                    findings.add("loss", "bad-time", field=table.paths[numbers[position]])
        return times

    def _cut(
        self, order: Int64s, numbers: Int64s, steps: Steps, times: Int64s, table: SeriesTable, most: int
    ) -> Iterator[Points]:
        if steps.scale == 6 and not (steps.units % MICRO).any():
            steps = Steps(steps.units // MICRO, 0)
        for start in range(0, len(order), most):
            part = slice(start, start + most)
            met = numbers[part]
            starts = np.flatnonzero(np.r_[True, met[1:] != met[:-1]])
            lengths = np.diff(np.r_[starts, len(met)]).astype(np.int64)
            paths = [table.paths[number] for number in met[starts].tolist()]
            yield self._points(paths, lengths, steps[part], times[part], order[part])

    def _points(self, paths: list[str], lengths: Int64s, steps: Steps, times: Int64s, order: Int64s) -> Points:
        values = [self.values[position] for position in order.tolist()] if self.kind != "float_series" else []
        if self.kind == "string_series":
            return StringPoints(paths, lengths, steps, times, Texts.from_list(values))
        if self.kind == "histogram_series":
            return HistogramPoints(paths, lengths, steps, times, _histograms(values))
        if self._floats is None:
            self._floats = np.array(self.values, dtype=np.float64)
        return FloatPoints(paths, lengths, steps, times, self._floats[order])

    def _fine_chunks(
        self, order: Int64s, number: int, times: Int64s, table: SeriesTable, most: int, findings: FindingLog
    ) -> Iterator[Points]:
        """One series whose steps are not all multiples of 1e-6 in 64 bits: a decimal a point."""
        steps, kept = [], []
        for row, position in enumerate(order.tolist()):
            step = self._decimal(self.steps[position], table.paths[number], findings)
            if step is None and self.steps[position] is not None:
                continue
            before = table.last_decimal(number)
            if step is None:
                step = Decimal(0) if before is None else before + 1
            elif before is not None and step <= before:
                findings.add("note", "step-not-increasing", field=table.paths[number])
            table.fine[number] = step if before is None else max(step, before)
            steps.append(step)
            kept.append(row)
        rows = np.array(kept, dtype=np.int64)
        for first, column in _columns(steps):
            part = rows[first : first + len(column)]
            numbers = np.full(len(part), number, dtype=np.int64)
            yield from self._cut(order[part], numbers, column, times[part], table, most)

    def _decimal(self, step: Any, path: str, findings: FindingLog) -> Decimal | None:
        if step is None:
            return None
        exact = Decimal(step).scaleb(-6) if self.micro_steps else Decimal(repr(step))
        if not exact.is_finite() or abs(exact) > _INT64_MAX:
            findings.add("loss", "bad-step", field=path, detail=f"step {step}")
            return None
        held = _held(exact)
        if held != exact:
            findings.add("approximation", "step-rounded", field=path, detail=f"step {step}")
        return held


def _held(step: Decimal) -> Decimal:
    """The step itself, or rounded to as many digits as a 64-bit integer with one scale holds."""
    digits = max(0, -int(step.normalize().as_tuple().exponent))
    digits = min(digits, MAX_STEP_SCALE)
    while abs(step.scaleb(digits)) > _INT64_MAX:
        digits -= 1
    return step.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN) if digits else step.to_integral_value()


def _whole_groups(flags: NDArray[np.bool_], starts: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.logical_and.reduceat(flags, starts)


def _fill_next_steps(units: Int64s, numbers: Int64s, starts: NDArray[np.intp], table: SeriesTable) -> NDArray[np.bool_]:
    """Give rows without step the one after the highest before them, in place. False for a group that needs decimals:
    the step before is not whole."""
    done = np.ones(len(starts), dtype=np.bool_)
    missing = units == _NONE
    if not missing.any():
        return done
    ends = np.r_[starts[1:], len(units)]
    counts = np.add.reduceat(missing, starts)
    for group in np.flatnonzero(counts).tolist():
        start, end = int(starts[group]), int(ends[group])
        last = int(table.last[numbers[start]])
        if counts[group] == end - start:
            first = 0 if last == _NONE else last + MICRO
            units[start:end] = first + np.arange(end - start) * MICRO
            continue
        for row in range(start, end):
            if units[row] == _NONE:
                units[row] = 0 if last == _NONE else last + MICRO
            last = max(last, int(units[row]))
    return done


def _count_not_rising(units: Int64s, numbers: Int64s, table: SeriesTable, findings: FindingLog) -> None:
    """Count the rows whose step is not above all before them in their series; remember the highest steps."""
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    before = np.empty_like(units)
    before[1:] = units[:-1]
    before[starts] = table.last[numbers[starts]]
    falls = units <= before
    if falls.any():
        ends = np.r_[starts[1:], len(units)]
        for group in np.flatnonzero(np.logical_or.reduceat(falls, starts)).tolist():
            part = units[starts[group] : ends[group]]
            highest = np.maximum.accumulate(np.r_[table.last[numbers[starts[group]]], part])
            count = int((part <= highest[:-1]).sum())
            findings.add("note", "step-not-increasing", field=table.paths[numbers[starts[group]]], count=count)
    met = numbers[starts]
    table.last[met] = np.maximum(table.last[met], np.maximum.reduceat(units, starts))


def _columns(steps: list[Decimal]) -> Iterator[tuple[int, Steps]]:
    """Columns of exact steps and where each begins: as long as one scale holds them."""
    pending = [(0, len(steps))] if steps else []
    while pending:
        start, end = pending.pop()
        try:
            yield start, from_decimals(steps[start:end])
        except StepConflict:
            middle = (start + end) // 2
            pending += [(middle, end), (start, middle)]


def _histograms(values: Sequence[Histogram]) -> Histograms:
    return Histograms(
        [kind for kind, _, _ in values],
        np.array([len(edges) for _, edges, _ in values], dtype=np.int64),
        np.array([edge for _, edges, _ in values for edge in edges], dtype=np.float64),
        np.array([len(counts) for _, _, counts in values], dtype=np.int64),
        np.array([count for _, _, counts in values for count in counts], dtype=np.float64),
    )
