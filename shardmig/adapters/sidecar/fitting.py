"""What targets with whole-numbered steps have in common: numbers for steps, rows that became equal, counted findings.

Pure and columnar. Reason codes that come from here (all approximations unless said otherwise):

    step-rounded               step x multiplier is no integer and is rounded half to even (--allow-step-merge only)
    step-merged                two steps of a series became one by that (--allow-step-merge only)
    name-changed (note)        the target does not take the field's name; the map is stored with the run
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardmig import steps as step_arithmetic
from shardmig.errors import StepConflict
from shardmig.records import Finding, Float64s, FloatPoints, Int64s, LoadOptions, Steps

Mask = NDArray[np.bool_]


class NativePoints(NamedTuple):
    """Points as the target holds them, row by row: steps are its own whole numbers."""

    steps: Int64s
    times_ms: Int64s
    values: Float64s

    def part(self, rows: slice | Mask) -> NativePoints:
        """Some of the rows."""
        return NativePoints(self.steps[rows], self.times_ms[rows], self.values[rows])


class Metrics(msgspec.Struct, frozen=True):
    """Points as the target holds them, series after series: series i has the next lengths[i] rows.

    Keys are the target's (not field paths) and unique within one Metrics. A series may go on in the next Metrics.
    """

    keys: list[str]
    lengths: Int64s
    steps: Int64s
    times_ms: Int64s
    values: Float64s

    def __len__(self) -> int:
        return len(self.steps)

    def spans(self) -> Iterator[tuple[str, slice]]:
        """Each key with the rows of its series."""
        ends = np.cumsum(self.lengths).tolist()
        for key, start, end in zip(self.keys, [0, *ends], ends, strict=False):
            yield key, slice(start, end)

    def points(self) -> NativePoints:
        """Its rows."""
        return NativePoints(self.steps, self.times_ms, self.values)


def owners(points: FloatPoints) -> Int64s:
    """For each row the position of its series."""
    return np.repeat(np.arange(len(points.paths)), points.lengths)


def lengths_of(owner: Int64s, rows: Mask, series: int) -> Int64s:
    """How many rows under a mask each of so many series has."""
    return np.bincount(owner[rows], minlength=series).astype(np.int64)


def take(points: FloatPoints, rows: Mask) -> FloatPoints:
    """The points under a mask; series without any are left out."""
    owner = owners(points)
    lengths = lengths_of(owner, rows, len(points.paths))
    return FloatPoints(
        [path for path, length in zip(points.paths, lengths.tolist(), strict=True) if length],
        lengths[lengths > 0],
        Steps(points.steps.units[rows], points.steps.scale),
        points.times_ms[rows],
        points.values[rows],
    )


def multiplier_of(points: FloatPoints, load: LoadOptions) -> int:
    """The step multiplier: the chosen one, or while none is chosen the smallest that keeps these steps."""
    return load.step_multiplier or step_arithmetic.needs(points.steps).denominator


def value_bits(values: NDArray[np.float64]) -> Int64s:
    """What tells values apart: their bits, all NaN alike."""
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def fit_steps(points: FloatPoints, load: LoadOptions) -> tuple[Int64s, Mask]:
    """The number of each step, and which were rounded. Raises StepConflict, naming the field and the multiplier that
    would do."""
    multiplier = multiplier_of(points, load)
    try:
        numbers, rounded = step_arithmetic.multiply(points.steps, multiplier)
    except StepConflict:
        for path, series in points.series():
            _multiply_one(path, series.steps, multiplier)
        raise
    if rounded.any():
        if not load.allow_step_merge:
            raise _step_conflict(points, rounded, multiplier)
        step_arithmetic.divide(np.ones(1, dtype=np.int64), multiplier)  # raises if steps could not be led back
    return numbers, rounded


def _multiply_one(path: str, steps: Steps, multiplier: int) -> None:
    try:
        step_arithmetic.multiply(steps, multiplier)
    except StepConflict as error:
        raise StepConflict(f"{path}: {error.message}", field=path, hint=error.hint) from error


def _step_conflict(points: FloatPoints, rounded: Mask, multiplier: int) -> StepConflict:
    first = int(np.argmax(rounded))
    which = int(np.searchsorted(np.cumsum(points.lengths), first, side="right"))
    path, series = next(pair for index, pair in enumerate(points.series()) if index == which)
    needed = math.lcm(multiplier, step_arithmetic.needs(series.steps).denominator)
    step = points.steps[first : first + 1].to_decimals()[0].normalize()
    return StepConflict(
        f"{path}: step {step:f} x {multiplier} is no integer",
        field=path,
        hint=f"load with --step-multiplier {needed}, or accept merged steps with --allow-step-merge",
    )


def duplicates(owner: Int64s, numbers: Int64s, times: Int64s, values: NDArray[np.float64]) -> tuple[Mask, Mask]:
    """Rows that another row of their series equals in all three columns, and those among them that are not the first."""
    grouped, repeated = np.zeros(len(owner), dtype=np.bool_), np.zeros(len(owner), dtype=np.bool_)
    columns = (value_bits(values), times, numbers, owner)
    if len(owner) < 2 or _is_strictly_ascending(owner, numbers, times):
        return grouped, repeated
    order = np.lexsort(columns)
    same = np.ones(len(owner) - 1, dtype=np.bool_)
    for column in columns:
        same &= np.diff(column[order]) == 0
    repeated[order[1:][same]] = True
    grouped[order[1:][same]] = True
    grouped[order[:-1][same]] = True
    return grouped, repeated


def _is_strictly_ascending(owner: Int64s, numbers: Int64s, times: Int64s) -> bool:
    """The usual case, told without sorting: every point has its own (series, step, time)."""
    same_series = owner[1:] == owner[:-1]
    same_step = numbers[1:] == numbers[:-1]
    ascending = (numbers[1:] > numbers[:-1]) | (same_step & (times[1:] > times[:-1]))
    return bool(np.all(ascending | ~same_series))


def merged(owner: Int64s, numbers: Int64s, units: Int64s) -> Mask:
    """Rows whose step is another one than that of the row before and became equal to it."""
    merged = np.zeros(len(owner), dtype=np.bool_)
    merged[1:] = (owner[1:] == owner[:-1]) & (numbers[1:] == numbers[:-1]) & (units[1:] != units[:-1])
    return merged


def counted(code: str, mask: Mask, owner: Int64s, paths: list[str]) -> list[Finding]:
    """An approximation of each series that has rows under the mask, with their number."""
    if not mask.any():
        return []
    counts = np.bincount(owner[mask], minlength=len(paths)).tolist()
    return [
        Finding("approximation", code, path, count=count) for path, count in zip(paths, counts, strict=True) if count
    ]


def name_changed(path: str) -> Finding:
    """The note that a field is called otherwise in the target."""
    return Finding("note", "name-changed", path)
