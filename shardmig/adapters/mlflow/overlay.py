"""Puts exact points back in the place of their approximations.

A point that MLflow holds stands for the exact rows whose documented approximation it is: those are given instead of
it. A point that is no exact row's approximation any more (it was changed in MLflow) is given as it is, and exact rows
whose approximation MLflow no longer holds are not given at all: so a change in MLflow is never covered up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from shardmig import steps
from shardmig.adapters.mlflow.fit import fit_times, fit_values, value_bits
from shardmig.adapters.mlflow.store import Metrics
from shardmig.archive.rows import Keys, Rows, points_of
from shardmig.records import Float64s, FloatPoints, Int64s, Points


class _Exact(NamedTuple):
    """Exact rows beside the (step, time, value) that MLflow holds for each."""

    points: FloatPoints
    steps: Int64s
    times_ms: Int64s
    values: Float64s

    def part(self, rows: slice) -> _Exact:
        points = self.points
        some = FloatPoints(points.paths, points.lengths, points.steps[rows], points.times_ms[rows], points.values[rows])
        return _Exact(some, self.steps[rows], self.times_ms[rows], self.values[rows])


class Overlay:
    """The exact rows of one series, in step order, taken as the native ones go by. Memory: about one chunk of both."""

    def __init__(self, path: str, exact: Iterator[FloatPoints], multiplier: int) -> None:
        self._path = path
        self._exact = exact
        self._multiplier = multiplier
        self._waiting: list[_Exact] = []

    def restored(self, native: Metrics) -> Iterator[Points]:
        """The next points of the series, exact, from the next ones that MLflow holds (whole steps only)."""
        exact = self._up_to(int(native.steps[-1]))
        columns = [np.concatenate(column) for column in zip(_key(native), *(_key(part) for part in exact), strict=True)]
        group = _groups(*columns)
        is_exact = np.arange(len(group)) >= len(native)
        has_native, has_exact = np.zeros(len(group), np.bool_), np.zeros(len(group), np.bool_)
        has_native[group[~is_exact]] = True
        has_exact[group[is_exact]] = True
        kept = np.where(is_exact, has_native[group], ~has_exact[group])
        parts = [
            FloatPoints(
                [], native.lengths, steps.divide(native.steps, self._multiplier), native.times_ms, native.values
            )
        ]
        yield from self._in_order([*parts, *(part.points for part in exact)], kept)

    def _up_to(self, last: int) -> list[_Exact]:
        while not self._waiting or int(self._waiting[-1].steps[-1]) <= last:
            points = next(self._exact, None)
            if points is None:
                break
            self._waiting.append(self._fitted(points))
        taken = [part.part(slice(0, int(np.searchsorted(part.steps, last, side="right")))) for part in self._waiting]
        left = [part.part(slice(len(some.steps), None)) for part, some in zip(self._waiting, taken, strict=True)]
        self._waiting = [part for part in left if len(part.steps)]
        return taken

    def _fitted(self, points: FloatPoints) -> _Exact:
        numbers, _ = steps.multiply(points.steps, self._multiplier)
        return _Exact(points, numbers, fit_times(points.times_ms)[0], fit_values(points.values)[0])

    def _in_order(self, parts: list[FloatPoints], kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Points]:
        normal = [steps.whole_and_fraction(part.steps) for part in parts]
        whole = np.concatenate([keys[0] for keys in normal])[kept]
        fraction = np.concatenate([keys[1] for keys in normal])[kept]
        times_ms = np.concatenate([part.times_ms for part in parts])[kept]
        values = np.concatenate([part.values for part in parts])[kept]
        order = np.lexsort((times_ms, fraction, whole))
        keys = Keys(whole[order], fraction[order], times_ms[order])
        if len(order):
            lengths = np.array([len(order)], dtype=np.int64)
            yield from points_of(Rows("float_series", [self._path], lengths, keys, [values[order]], []))


def _key(rows: Metrics | _Exact) -> tuple[Int64s, Int64s, Int64s]:
    return rows.steps, rows.times_ms, value_bits(rows.values)


def _groups(numbers: Int64s, times_ms: Int64s, bits: Int64s) -> Int64s:
    """For each row the number of its group of rows equal in all three."""
    order = np.lexsort((bits, times_ms, numbers))
    new = np.zeros(len(order), dtype=np.int64)
    for column in (numbers, times_ms, bits):
        new[1:] |= column[order][1:] != column[order][:-1]
    group = np.empty_like(new)
    group[order] = np.cumsum(new)
    return group
