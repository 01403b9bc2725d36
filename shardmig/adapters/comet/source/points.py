"""Points of a system that logs them interleaved and typed loosely, as chunks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Final, NamedTuple

import numpy as np

from shardmig import steps as exact_steps
from shardmig.adapters.comet.source import native
from shardmig.errors import StepConflict
from shardmig.records import NO_TIME, Finding, FloatPoints, Int64s, Steps, StringPoints, Texts
from shardmig.selection import Matcher

_MOST_ROWS: Final = 50_000
"""Rows held as Python objects."""
_EXACT: Final = 2.0**53
"""Up to here every integer is a double."""
_INT64: Final = range(-(2**63), 2**63)


class Row(NamedTuple):
    """One point. `name` has its context already."""

    name: str
    value: int | float | str | None
    step: int | float | None
    epoch: int | float | None
    time_ms: int | None


class _Column(NamedTuple):
    path: str
    step: int | float | Decimal
    time_ms: int
    value: float | str


class PointChunks:
    """Collects points and gives chunks of them, each series in the order in which it was logged. Memory: one chunk.

    named: what a field is called that is to be called so; step_multiplier: by which its steps were multiplied.
    """

    def __init__(
        self,
        matcher: Matcher,
        chunk_points: int,
        *,
        system_metrics: bool,
        named: Callable[[str], str],
        step_multiplier: int,
    ) -> None:
        self._matcher = matcher
        self._most = min(chunk_points, _MOST_ROWS)
        self._system_metrics = system_metrics
        self._named = named
        self._step_multiplier = step_multiplier
        self._floats: list[_Column] = []
        self._texts: list[_Column] = []
        self._places: Counter[str] = Counter()
        self._paths: dict[str, tuple[str, str, bool]] = {}
        self._without_step: Counter[str] = Counter()
        self._rounded: Counter[str] = Counter()
        self._lost: Counter[tuple[str, str]] = Counter()

    def add(self, rows: Iterable[Row]) -> Iterator[FloatPoints | StringPoints]:
        """Points of metrics."""
        for row in rows:
            path, epoch_path, is_wanted = self._paths.get(row.name) or self._path_of(row.name)
            if not is_wanted or (step := self._step_of(path, row.step)) is None:
                continue
            self._add_value(path, step, _time_of(row), row.value)
            self._add_epoch(epoch_path, step, row)
            if len(self._floats) >= self._most or len(self._texts) >= self._most:
                yield from self._full()

    def add_epochs(self, rows: Iterable[Row]) -> Iterator[FloatPoints | StringPoints]:
        """The epochs alone, of points that are given elsewhere."""
        for row in rows:
            _, path, is_wanted = self._paths.get(row.name) or self._path_of(row.name)
            if row.epoch is None or not is_wanted or (step := self._step_of(path, row.step)) is None:
                continue
            self._add_epoch(path, step, row)
            if len(self._floats) >= self._most:
                yield from self._full()

    def wants(self, name: str) -> bool:
        """Is anything of this metric wanted?"""
        return (self._paths.get(name) or self._path_of(name))[2]

    def add_text(self, path: str, text: str, time_ms: int | None) -> Iterator[FloatPoints | StringPoints]:
        """The next text of a series."""
        path = self._named(path)
        if self._matcher.wants_field(path, "string_series"):
            self._texts.append(_Column(path, self._places[path], NO_TIME if time_ms is None else time_ms, text))
            self._places[path] += 1
            if len(self._texts) >= self._most:
                yield from self._full()

    def rest(self) -> Iterator[FloatPoints | StringPoints]:
        """What is left."""
        while self._floats or self._texts:
            yield from self._full()

    def findings(self) -> list[Finding]:
        """What could not be kept as it was."""
        detail = "points without step have their place in the series as step"
        return [
            *(
                Finding("note", "step-missing", path, count, detail)
                for path, count in sorted(self._without_step.items())
            ),
            *(Finding("approximation", "int-to-float", path, count) for path, count in sorted(self._rounded.items())),
            *(Finding("loss", code, path, count) for (code, path), count in sorted(self._lost.items())),
        ]

    def _path_of(self, name: str) -> tuple[str, str, bool]:
        is_system = name.startswith("sys.")
        path = self._named((native.SYSTEM_METRICS if is_system else native.METRICS) + name)
        epoch_path = self._named(native.EPOCHS + name)
        is_wanted = (self._system_metrics or not is_system) and (
            self._matcher.wants_field(path, "float_series")
            or self._matcher.wants_field(path, "string_series")
            or self._matcher.wants_field(epoch_path, "float_series")
        )
        self._paths[name] = (path, epoch_path, is_wanted)
        return self._paths[name]

    def _step_of(self, path: str, step: int | float | None) -> int | float | Decimal | None:
        place = self._places[path]
        self._places[path] += 1
        if step is None:
            self._without_step[path] += 1
            return place
        divided: int | float | Decimal = step
        if self._step_multiplier != 1 and math.isfinite(step):
            divided = _decimal(step) / self._step_multiplier
        is_kept = divided in _INT64 if isinstance(divided, int) else _can_be_kept(divided)
        if is_kept:
            return divided
        self._lost["step-unreadable", path] += 1
        return None

    def _add_epoch(self, path: str, step: int | float | Decimal, row: Row) -> None:
        if row.epoch is not None and self._matcher.wants_field(path, "float_series"):
            self._floats.append(_Column(path, step, _time_of(row), float(row.epoch)))

    def _add_value(self, path: str, step: int | float | Decimal, time_ms: int, value: int | float | str | None) -> None:
        if value is None:
            self._lost["value-missing", path] += 1
        elif (number := _number_of(value)) is None:
            if self._matcher.wants_field(path, "string_series"):
                self._texts.append(_Column(path, step, time_ms, str(value)))
        elif self._matcher.wants_field(path, "float_series"):
            self._floats.append(_Column(path, step, time_ms, number))
            if abs(number) >= _EXACT and not _is_exactly(number, value):
                self._rounded[path] += 1

    def _full(self) -> Iterator[FloatPoints | StringPoints]:
        """At most one chunk of each."""
        floats, self._floats = self._floats[: self._most], self._floats[self._most :]
        texts, self._texts = self._texts[: self._most], self._texts[self._most :]
        if floats:
            yield from map(_float_points, _of_one_scale(floats))
        if texts:
            yield from map(_string_points, _of_one_scale(texts))


def _time_of(row: Row) -> int:
    return NO_TIME if row.time_ms is None else row.time_ms


def _number_of(value: int | float | str) -> float | None:
    """None for a text that is no number (1_000 is one to Python alone), and for an integer beyond all doubles."""
    if isinstance(value, str) and "_" in value:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def exact_step(step: int | float, multiplier: int) -> Decimal:
    """The step that was multiplied to this one."""
    exact = _decimal(step) / multiplier
    return exact.normalize() if exact else Decimal(0)


def exact_number(value: int | float | str | None) -> float | None:
    """The double that a value of a metric is; None where none is exactly that."""
    number = None if value is None else _number_of(value)
    if value is None or number is None:
        return None
    return number if abs(number) < _EXACT or _is_exactly(number, value) else None


def _is_exactly(number: float, value: int | float | str) -> bool:
    """Was no integer rounded to this double?"""
    try:
        return isinstance(value, float) or not math.isfinite(number) or int(value) == int(number)
    except ValueError:  # the text of a number with a point or an exponent, which was a double before
        return True


def _decimal(step: int | float | Decimal) -> Decimal:
    return step if isinstance(step, Decimal) else Decimal(repr(step))


def _can_be_kept(step: float | Decimal) -> bool:
    try:
        exact_steps.from_decimals([_decimal(step)] if math.isfinite(step) else [])
    except StepConflict:
        return False
    return math.isfinite(step)


def _of_one_scale(rows: list[_Column]) -> Iterator[list[_Column]]:
    """The rows in as few parts as one column of steps each allows."""
    if all(type(row.step) is int for row in rows):
        yield rows
        return
    try:
        exact_steps.from_decimals([_decimal(row.step) for row in rows])
        yield rows
    except StepConflict:
        half = len(rows) // 2
        yield from _of_one_scale(rows[:half])
        yield from _of_one_scale(rows[half:])


def _float_points(rows: list[_Column]) -> FloatPoints:
    paths, lengths, order = _grouped(rows)
    values = np.array([row.value for row in rows], dtype=np.float64)[order]
    return FloatPoints(paths, lengths, _steps_of(rows, order), _times_of(rows, order), values)


def _string_points(rows: list[_Column]) -> StringPoints:
    paths, lengths, order = _grouped(rows)
    texts = Texts.from_list([str(rows[row].value) for row in order.tolist()])
    return StringPoints(paths, lengths, _steps_of(rows, order), _times_of(rows, order), texts)


def _grouped(rows: list[_Column]) -> tuple[list[str], Int64s, Int64s]:
    """The series of some rows, how many rows each has, and the order that brings them together."""
    codes: dict[str, int] = {}
    owner = np.array([codes.setdefault(row.path, len(codes)) for row in rows], dtype=np.int64)
    order = np.argsort(owner, kind="stable").astype(np.int64)
    return list(codes), np.bincount(owner, minlength=len(codes)).astype(np.int64), order


def _steps_of(rows: list[_Column], order: Int64s) -> Steps:
    steps = [row.step for row in rows]
    if all(type(step) is int for step in steps):
        return Steps(np.array(steps, dtype=np.int64)[order])
    exact = exact_steps.from_decimals([_decimal(step) for step in steps])
    return Steps(exact.units[order], exact.scale)


def _times_of(rows: list[_Column], order: Int64s) -> Int64s:
    return np.array([row.time_ms for row in rows], dtype=np.int64)[order]
