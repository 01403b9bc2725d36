"""What a target holds of a chunk: one frame for all targets, in which each states its own approximations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from shardmig import steps as step_arithmetic
from shardmig.adapters.base import Fitted
from shardmig.adapters.sidecar.exact import ExactPoints
from shardmig.adapters.sidecar.fitting import (
    Mask,
    Metrics,
    NativePoints,
    counted,
    duplicates,
    fit_steps,
    lengths_of,
    merged,
    multiplier_of,
    name_changed,
    owners,
    take,
)
from shardmig.adapters.sidecar.manifest import wanted_path
from shardmig.adapters.sidecar.naming import Naming
from shardmig.adapters.sidecar.series_files import NAMES
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    FieldType,
    Files,
    Finding,
    Float64s,
    FloatPoints,
    HistogramPoints,
    Int64s,
    LoadOptions,
    StringPoints,
)

Value = int | float | str | bool | list[str]


class FittedField(NamedTuple):
    """What the target is given of a scalar, whether that is the exact value, and why not."""

    value: Value
    is_exact: bool
    findings: list[Finding]


class FittedPoints(NamedTuple):
    """Points as the target is given them, the original rows of what changed (None = nothing did), and why."""

    metrics: Metrics
    exact: ExactPoints | None
    findings: list[Finding]


class Rules(ABC):
    """A target with whole-numbered steps subclasses it. Pure.

    String and histogram series and files are stored as files, and exact. `Fitted.native` is in the archive's own terms
    (field paths, steps divided by the multiplier): what is read back without a sidecar. `Fitted.exact` holds every
    original row of each point that changed or collapsed, and of those equal to it.
    """

    merges_equal_points = False
    """Are points of a series that are equal in step, time and value one point?"""
    holds_only_finite = False
    """Are points that are NaN or infinite left out of the target? The sidecar has them then."""

    def __init__(self, load: LoadOptions, naming: Naming) -> None:
        self.load = load
        self.naming = naming

    @abstractmethod
    def fit_field(self, field: Field) -> FittedField:
        """What the target is given of a scalar."""

    @abstractmethod
    def field_of(self, path: str, field_type: FieldType, value: Value) -> Field:
        """The scalar that a value in the target stands for; of another type where it cannot be of this one."""

    @abstractmethod
    def fit_times(self, times_ms: Int64s) -> tuple[Int64s, dict[str, Mask]]:
        """Times as the target holds them, and by reason code which changed."""

    @abstractmethod
    def fit_values(self, values: Float64s) -> tuple[Float64s, dict[str, Mask]]:
        """Values as the target holds them, and by reason code which changed."""

    def at_risk(self, points: FloatPoints) -> dict[str, Mask]:  # noqa: ARG002
        """By reason code, rows that are given unchanged and that the target may not keep: the sidecar has them."""
        return {}

    def other_field(self, path: str, value: Value) -> Field:
        """The scalar that a value stands for which no manifest knows."""
        if isinstance(value, list):
            return Field(path, "string_set", value)
        kinds: dict[type, FieldType] = {bool: "bool", int: "int", float: "float", str: "string"}
        return Field(path, kinds[type(value)], value)

    def fit(self, chunk: Chunk) -> Fitted:
        """`WriteSide.fit`. Raises StepConflict, naming the field and the multiplier that would do."""
        if isinstance(chunk, FloatPoints):
            fitted = self.fit_points(chunk)
            exact = None if fitted.exact is None else fitted.exact.points
            return Fitted(self._as_points(fitted, chunk), exact, fitted.findings)
        if isinstance(chunk, Fields):
            return self._fit_fields(chunk)
        if isinstance(chunk, Files):
            wanted = [(file.path, file.path if file.is_tree else wanted_path(file)) for file in chunk.files]
            naming = self.naming
            changed = [path for path, name in wanted if naming.artifact(name) != naming.wanted_artifact(name)]
            return Fitted(chunk, None, [name_changed(path) for path in changed])
        if isinstance(chunk, StringPoints | HistogramPoints):
            own, _ = NAMES["string_series" if isinstance(chunk, StringPoints) else "histogram_series"]
            changed = [path for path in chunk.paths if self.naming.artifact(f"{path}/{own}") != f"{path}/{own}"]
            return Fitted(chunk, None, [name_changed(path) for path in changed])
        return Fitted(chunk, None, [])

    def fit_points(self, points: FloatPoints) -> FittedPoints:
        """Points as the target is given them. Raises StepConflict."""
        owner = owners(points)
        numbers, rounded = fit_steps(points, self.load)
        times_ms, changed_times = self.fit_times(points.times_ms)
        values, changed_values = self.fit_values(points.values)
        native = NativePoints(numbers, times_ms, values)
        steps = {"step-rounded": rounded, "step-merged": rounded.any() & merged(owner, numbers, points.steps.units)}
        reasons = steps | changed_times | changed_values | self.at_risk(points)
        inexact: Mask = np.any(list(reasons.values()), axis=0)
        lengths, kept = points.lengths, native
        left_out: Mask = np.zeros(len(owner), np.bool_)
        if self.merges_equal_points:
            grouped, reasons["duplicate-points-collapse"] = duplicates(owner, *native)
            left_out |= reasons["duplicate-points-collapse"]
            inexact |= grouped
        if self.holds_only_finite:
            reasons["value-not-finite"] = ~np.isfinite(values)
            left_out |= reasons["value-not-finite"]
            inexact |= left_out
        if left_out.any():
            lengths, kept = lengths_of(owner, ~left_out, len(lengths)), native.part(~left_out)
        naming = self.naming
        findings = [name_changed(path) for path in points.paths if naming.key(path) != naming.wanted_key(path)]
        for code, mask in reasons.items():
            findings += counted(code, mask, owner, points.paths)
        exact = ExactPoints(take(points, inexact), native.part(inexact)) if inexact.any() else None
        metrics = Metrics([naming.key(path) for path in points.paths], lengths, *kept)
        return FittedPoints(metrics, exact, findings)

    def _as_points(self, fitted: FittedPoints, points: FloatPoints) -> FloatPoints:
        metrics = fitted.metrics
        exact_steps = step_arithmetic.divide(metrics.steps, multiplier_of(points, self.load))
        paths = [path for path, length in zip(points.paths, metrics.lengths.tolist(), strict=True) if length]
        return FloatPoints(paths, metrics.lengths[metrics.lengths > 0], exact_steps, metrics.times_ms, metrics.values)

    def _fit_fields(self, chunk: Fields) -> Fitted:
        native, exact, findings = [], [], []
        for field in chunk.fields:
            if not self.naming.is_param(field):
                native.append(field)
                findings += self.naming.findings(field)
                continue
            fitted = self.fit_field(field)
            native.append(field if fitted.is_exact else self.field_of(field.path, field.type, fitted.value))
            findings += fitted.findings
            if not fitted.is_exact:
                exact.append(field)
            if self.naming.key(field.path) != self.naming.wanted_key(field.path):
                findings.append(name_changed(field.path))
        return Fitted(Fields(native), Fields(exact) if exact else None, findings)
