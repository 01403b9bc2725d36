"""What MLflow will hold of a chunk: the documented approximations, one rule a function. Pure.

Reason codes (all approximations unless said otherwise):

    infinity-clamped           ±inf becomes ±1.7976931348623157e308
    negative-zero              -0.0 becomes 0.0
    time-missing               a point without time gets time 0 (1970-01-01)
    time-negative              a time before 1970 becomes 0
    step-rounded               step x multiplier is no integer and is rounded half to even (--allow-step-merge only)
    step-merged                two steps of a series became one by that (--allow-step-merge only)
    duplicate-points-collapse  points of a series equal in step, time and value are one point
    param-truncated            a text over 6000 characters is cut
    character-replaced         NUL and lone surrogates become U+FFFD: SQL stores refuse them
    name-changed (note)        MLflow does not take the field's name; the map is stored with the run

String and histogram series and files are artifacts and exact. `Fitted.native` is in the archive's own terms (field
paths, steps divided by the multiplier): what `read_run` gives without a sidecar. `Fitted.exact` holds every original
row of each point that changed or collapsed, and of those equal to it.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardmig import steps as step_arithmetic
from shardmig.adapters.base import Fitted
from shardmig.adapters.mlflow.manifest import wanted_path
from shardmig.adapters.mlflow.naming import Naming, without_control_characters
from shardmig.adapters.mlflow.scalars import field_of, text_of
from shardmig.adapters.mlflow.series_files import NAMES
from shardmig.adapters.mlflow.store import Metrics
from shardmig.errors import StepConflict
from shardmig.records import (
    NO_TIME,
    Chunk,
    Field,
    Fields,
    Files,
    Finding,
    FloatPoints,
    HistogramPoints,
    Int64s,
    LoadOptions,
    Steps,
    StringPoints,
)

MAX_PARAM: Final = 6000
LARGEST: Final = 1.7976931348623157e308

Mask = NDArray[np.bool_]


class FittedMetrics(NamedTuple):
    """Points ready for MLflow, the original rows of what changed (None = nothing), and why."""

    metrics: Metrics
    exact: FloatPoints | None
    findings: list[Finding]


class FittedParam(NamedTuple):
    """One param: its text in MLflow, whether that is the exact text, and why not."""

    text: str
    is_exact: bool
    findings: list[Finding]


def fit_chunk(chunk: Chunk, load: LoadOptions, naming: Naming) -> Fitted:
    """`WriteSide.fit` of MLflow. Raises StepConflict, naming the field and the multiplier that would do."""
    if isinstance(chunk, FloatPoints):
        fitted = fit_points(chunk, load, naming)
        return Fitted(_as_points(fitted.metrics, chunk, multiplier_of(chunk, load)), fitted.exact, fitted.findings)
    if isinstance(chunk, Fields):
        return _fit_fields(chunk, naming)
    if isinstance(chunk, Files):
        wanted = [(file.path, file.path if file.is_tree else wanted_path(file)) for file in chunk.files]
        return Fitted(
            chunk,
            None,
            [_name_changed(path) for path, name in wanted if naming.artifact(name) != naming.wanted_artifact(name)],
        )
    if isinstance(chunk, StringPoints | HistogramPoints):
        own, _ = NAMES["string_series" if isinstance(chunk, StringPoints) else "histogram_series"]
        changed = [path for path in chunk.paths if naming.artifact(f"{path}/{own}") != f"{path}/{own}"]
        return Fitted(chunk, None, [_name_changed(path) for path in changed])
    return Fitted(chunk, None, [])


def fit_param(field: Field) -> FittedParam:
    """The text of a scalar as a param."""
    exact = text_of(field)
    findings = []
    text = without_control_characters(exact)
    if text != exact:
        findings.append(Finding("approximation", "character-replaced", field.path))
    if len(text) > MAX_PARAM:
        findings.append(Finding("approximation", "param-truncated", field.path, detail=f"{len(text)} characters"))
        text = text[:MAX_PARAM]
    return FittedParam(text, text == exact, findings)


def fit_points(points: FloatPoints, load: LoadOptions, naming: Naming) -> FittedMetrics:
    """Points of several series as MLflow's metrics."""
    owner = np.repeat(np.arange(len(points.paths)), points.lengths)
    numbers, rounded = _fit_steps(points, load)
    times, missing, negative = fit_times(points.times_ms)
    values, infinite, negative_zero = fit_values(points.values)
    grouped, repeated = _duplicates(owner, numbers, times, values)
    metrics = Metrics([naming.key(path) for path in points.paths], points.lengths, numbers, times, values)
    if repeated.any():
        metrics = _without(metrics, owner, repeated)
    findings = [_name_changed(path) for path in points.paths if naming.key(path) != naming.wanted_key(path)]
    for code, mask in {
        "step-rounded": rounded,
        "step-merged": rounded.any() & _merged(owner, numbers, points.steps.units),
        "time-missing": missing,
        "time-negative": negative,
        "infinity-clamped": infinite,
        "negative-zero": negative_zero,
        "duplicate-points-collapse": repeated,
    }.items():
        findings += _counted(code, mask, owner, points.paths)
    inexact = rounded | missing | negative | infinite | negative_zero | grouped
    return FittedMetrics(metrics, take(points, inexact) if inexact.any() else None, findings)


def take(points: FloatPoints, rows: Mask) -> FloatPoints:
    """The points under a mask; series without any are left out."""
    owner = np.repeat(np.arange(len(points.paths)), points.lengths)
    lengths = np.bincount(owner[rows], minlength=len(points.paths)).astype(np.int64)
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
    """What MLflow tells values apart by: their bits, all NaN alike."""
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def _fit_steps(points: FloatPoints, load: LoadOptions) -> tuple[Int64s, Mask]:
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


def fit_times(times_ms: Int64s) -> tuple[Int64s, Mask, Mask]:
    """Times as MLflow holds them; which were missing, which negative."""
    missing = times_ms == NO_TIME
    return np.maximum(times_ms, 0), missing, (times_ms < 0) & ~missing


def fit_values(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Mask, Mask]:
    """Values as MLflow holds them; which were infinite, which -0.0."""
    infinite = np.isinf(values)
    negative_zero = (values == 0) & np.signbit(values)
    if infinite.any() or negative_zero.any():
        values = np.clip(values, -LARGEST, LARGEST) + 0.0  # -0.0 + 0.0 is 0.0
    return values, infinite, negative_zero


def _duplicates(owner: Int64s, numbers: Int64s, times: Int64s, values: NDArray[np.float64]) -> tuple[Mask, Mask]:
    """Rows that another row equals, and those among them that are not the first."""
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


def _merged(owner: Int64s, numbers: Int64s, units: Int64s) -> Mask:
    """Rows whose step is another one than that of the row before and became equal to it."""
    merged = np.zeros(len(owner), dtype=np.bool_)
    merged[1:] = (owner[1:] == owner[:-1]) & (numbers[1:] == numbers[:-1]) & (units[1:] != units[:-1])
    return merged


def _without(metrics: Metrics, owner: Int64s, repeated: Mask) -> Metrics:
    kept = ~repeated
    lengths = np.bincount(owner[kept], minlength=len(metrics.keys)).astype(np.int64)
    return Metrics(metrics.keys, lengths, metrics.steps[kept], metrics.times_ms[kept], metrics.values[kept])


def _as_points(metrics: Metrics, points: FloatPoints, multiplier: int) -> FloatPoints:
    steps = step_arithmetic.divide(metrics.steps, multiplier)
    return FloatPoints(points.paths, metrics.lengths, steps, metrics.times_ms, metrics.values)


def _fit_fields(chunk: Fields, naming: Naming) -> Fitted:
    native, exact, findings = [], [], []
    for field in chunk.fields:
        if not naming.is_param(field):
            native.append(field)
            findings += naming.findings(field)
            continue
        fitted = fit_param(field)
        native.append(field if fitted.is_exact else field_of(field.path, field.type, fitted.text))
        findings += fitted.findings
        if not fitted.is_exact:
            exact.append(field)
        if naming.key(field.path) != naming.wanted_key(field.path):
            findings.append(_name_changed(field.path))
    return Fitted(Fields(native), Fields(exact) if exact else None, findings)


def _counted(code: str, mask: Mask, owner: Int64s, paths: list[str]) -> list[Finding]:
    if not mask.any():
        return []
    counts = np.bincount(owner[mask], minlength=len(paths)).tolist()
    return [
        Finding("approximation", code, path, count=count) for path, count in zip(paths, counts, strict=True) if count
    ]


def _name_changed(path: str) -> Finding:
    return Finding("note", "name-changed", path)
