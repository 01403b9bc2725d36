"""What MLflow will hold of a chunk: the documented approximations, one rule a function. Pure.

Reason codes (all approximations unless said otherwise):

    infinity-clamped           ±inf becomes ±1.7976931348623157e308
    negative-zero              -0.0 becomes 0.0
    time-missing               a point without time gets time 0 (1970-01-01)
    time-negative              a time before 1970 becomes 0
    duplicate-points-collapse  points of a series equal in step, time and value are one point
    param-truncated            a text over 6000 characters is cut
    character-replaced         NUL and lone surrogates become U+FFFD: SQL stores refuse them
    step-rounded, step-merged, name-changed: see `sidecar.fitting`

String and histogram series and files are artifacts and exact. `Fitted.native` is in the archive's own terms (field
paths, steps divided by the multiplier): what `read_run` gives without a sidecar. `Fitted.exact` holds every original
row of each point that changed or collapsed, and of those equal to it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardmig import steps as step_arithmetic
from shardmig.adapters.base import Fitted
from shardmig.adapters.mlflow.naming import Naming, without_control_characters
from shardmig.adapters.mlflow.store import Metrics
from shardmig.adapters.sidecar.exact import ExactPoints
from shardmig.adapters.sidecar.fitting import (
    Mask,
    NativePoints,
    counted,
    duplicates,
    fit_steps,
    merged,
    multiplier_of,
    name_changed,
    owners,
    take,
)
from shardmig.adapters.sidecar.manifest import wanted_path
from shardmig.adapters.sidecar.scalars import field_of, text_of
from shardmig.adapters.sidecar.series_files import NAMES
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
    StringPoints,
)

MAX_PARAM: Final = 6000
LARGEST: Final = 1.7976931348623157e308


class FittedMetrics(NamedTuple):
    """Points ready for MLflow, the original rows of what changed (None = nothing), and why."""

    metrics: Metrics
    exact: ExactPoints | None
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
        return Fitted(
            _as_points(fitted.metrics, chunk, multiplier_of(chunk, load)),
            None if fitted.exact is None else fitted.exact.points,
            fitted.findings,
        )
    if isinstance(chunk, Fields):
        return _fit_fields(chunk, naming)
    if isinstance(chunk, Files):
        wanted = [(file.path, file.path if file.is_tree else wanted_path(file)) for file in chunk.files]
        return Fitted(
            chunk,
            None,
            [name_changed(path) for path, name in wanted if naming.artifact(name) != naming.wanted_artifact(name)],
        )
    if isinstance(chunk, StringPoints | HistogramPoints):
        own, _ = NAMES["string_series" if isinstance(chunk, StringPoints) else "histogram_series"]
        changed = [path for path in chunk.paths if naming.artifact(f"{path}/{own}") != f"{path}/{own}"]
        return Fitted(chunk, None, [name_changed(path) for path in changed])
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
    owner = owners(points)
    numbers, rounded = fit_steps(points, load)
    times, missing, negative = fit_times(points.times_ms)
    values, infinite, negative_zero = fit_values(points.values)
    grouped, repeated = duplicates(owner, numbers, times, values)
    metrics = Metrics([naming.key(path) for path in points.paths], points.lengths, numbers, times, values)
    if repeated.any():
        metrics = _without(metrics, owner, repeated)
    findings = [name_changed(path) for path in points.paths if naming.key(path) != naming.wanted_key(path)]
    for code, mask in {
        "step-rounded": rounded,
        "step-merged": rounded.any() & merged(owner, numbers, points.steps.units),
        "time-missing": missing,
        "time-negative": negative,
        "infinity-clamped": infinite,
        "negative-zero": negative_zero,
        "duplicate-points-collapse": repeated,
    }.items():
        findings += counted(code, mask, owner, points.paths)
    inexact = rounded | missing | negative | infinite | negative_zero | grouped
    exact = ExactPoints(take(points, inexact), NativePoints(numbers, times, values).part(inexact))
    return FittedMetrics(metrics, exact if inexact.any() else None, findings)


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
            findings.append(name_changed(field.path))
    return Fitted(Fields(native), Fields(exact) if exact else None, findings)
