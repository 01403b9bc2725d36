"""Puts exact points back in the place of their approximations.

A point that the target holds stands for the exact rows that it was given instead of: those are given back. A point
that stands for no exact row any more (it was changed in the target) is given as it is, and exact rows whose
approximation the target no longer holds are not given at all: so a change in the target is never covered up. Exact rows
that a target was not given anything for (NaN and infinities, where it holds only finite values) are always given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from shardmig import steps
from shardmig.adapters.sidecar.exact import ExactPoints
from shardmig.adapters.sidecar.fitting import NativePoints, value_bits
from shardmig.archive.rows import Keys, Rows, points_of
from shardmig.records import FloatPoints, Int64s, Points


class Overlay:
    """The exact rows of one series, in step order, taken as the native ones go by. Memory: about one chunk of both."""

    def __init__(
        self, path: str, exact: Iterator[ExactPoints], multiplier: int, *, holds_only_finite: bool = False
    ) -> None:
        self._path = path
        self._holds_only_finite = holds_only_finite
        self._exact = exact
        self._multiplier = multiplier
        self._waiting: list[ExactPoints] = []

    def restored(self, native: NativePoints) -> Iterator[Points]:
        """The next points of the series, exact, from the next ones that the target holds (whole steps only)."""
        exact = self._up_to(int(native.steps[-1]))
        parts = [native, *(part.native for part in exact)]
        columns = [np.concatenate(column) for column in zip(*map(_key, parts), strict=True)]
        group = _groups(*columns)
        is_exact = np.arange(len(group)) >= len(native.steps)
        has_native, has_exact = np.zeros(len(group), np.bool_), np.zeros(len(group), np.bool_)
        has_native[group[~is_exact]] = True
        has_exact[group[is_exact]] = True
        left_out = is_exact & np.concatenate([self._left_out(part) for part in parts])
        kept = np.where(is_exact, has_native[group] | left_out, ~has_exact[group])
        lengths = np.array([len(native.steps)], dtype=np.int64)
        steps_of = steps.divide(native.steps, self._multiplier)
        held = FloatPoints([self._path], lengths, steps_of, native.times_ms, native.values)
        yield from self._in_order([held, *(part.points for part in exact)], kept)

    def rest(self) -> Iterator[Points]:
        """Behind the last of those points: what the target was not given."""
        for part in itertools.chain(self._waiting, self._exact):
            yield from self._in_order([part.points], self._left_out(part.native))

    def _left_out(self, rows: NativePoints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return ~np.isfinite(rows.values) & self._holds_only_finite

    def _up_to(self, last: int) -> list[ExactPoints]:
        while not self._waiting or int(self._waiting[-1].native.steps[-1]) <= last:
            part = next(self._exact, None)
            if part is None:
                break
            self._waiting.append(part)
        ends = [int(np.searchsorted(part.native.steps, last, side="right")) for part in self._waiting]
        taken = [part.part(slice(0, end)) for part, end in zip(self._waiting, ends, strict=True)]
        left = [part.part(slice(end, None)) for part, end in zip(self._waiting, ends, strict=True)]
        self._waiting = [part for part in left if len(part.native.steps)]
        return taken

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


def _key(rows: NativePoints) -> tuple[Int64s, Int64s, Int64s]:
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
