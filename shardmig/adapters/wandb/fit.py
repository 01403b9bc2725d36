"""What W&B will hold of a chunk: the documented approximations. Pure.

Reason codes (all approximations unless said otherwise):

    step-shared            points of a series with one step: a row of W&B's history has one value a key, the last one
    step-negative          W&B's steps begin at 0: a negative one becomes 0
    negative-zero          -0.0 in a series becomes 0.0
    config-truncated       a text of more than 100,000 characters is cut
    step-rounded, step-merged, name-changed (note): see `sidecar.fitting`

Times are exact: a row has one, and those that differ from it are kept beside it (see `times`). NaN, infinities, -0.0 and
datetimes of the config are texts, which the types in the manifest turn back exactly.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from shardmig.adapters.sidecar.exact import ExactPoints
from shardmig.adapters.sidecar.fitting import (
    Mask,
    Metrics,
    NativePoints,
    counted,
    fit_steps,
    lengths_of,
    merged,
    name_changed,
    owners,
    take,
)
from shardmig.adapters.sidecar.rules import FittedField, FittedPoints, Rules, Value
from shardmig.adapters.sidecar.scalars import field_of, text_of
from shardmig.records import Field, FieldType, Finding, Float64s, FloatPoints, Int64s

MAX_TEXT: Final = 100_000
"""W&B asks for values of less than 1 MB, and a config of less than 10 MB."""


class WandbRules(Rules):
    """The approximations of W&B: one value a key and step."""

    def fit_field(self, field: Field) -> FittedField:
        """As Rules: a value of the config."""
        value = field.value
        if isinstance(value, float) and (not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)):
            return FittedField(text_of(field), True, [])
        if field.type == "datetime":
            return FittedField(text_of(field), True, [])
        if isinstance(value, str) and len(value) > MAX_TEXT:
            finding = Finding("approximation", "config-truncated", field.path, detail=f"{len(value)} characters")
            return FittedField(value[:MAX_TEXT], False, [finding])
        return FittedField(value, True, [])

    def field_of(self, path: str, field_type: FieldType, value: Value) -> Field:
        """As Rules. A whole number stands for a float too: not every JSON writer keeps `.0`."""
        if isinstance(value, bool):
            return Field(path, "bool", value)
        if isinstance(value, int | float):
            return Field(path, "float", float(value)) if field_type == "float" else self.other_field(path, value)
        if isinstance(value, list):
            return Field(path, "string_set", value)
        return (
            field_of(path, field_type, value) if field_type in ("float", "datetime") else Field(path, "string", value)
        )

    def fit_times(self, times_ms: Int64s) -> tuple[Int64s, dict[str, Mask]]:
        """As Rules."""
        return times_ms, {}

    def fit_values(self, values: Float64s) -> tuple[Float64s, dict[str, Mask]]:
        """As Rules."""
        negative_zero = (values == 0) & np.signbit(values)
        return (values + 0.0 if negative_zero.any() else values), {"negative-zero": negative_zero}

    def fit_points(self, points: FloatPoints) -> FittedPoints:
        """As Rules. Of points with one step the last is held; it stands for all of them in the sidecar."""
        owner = owners(points)
        numbers, rounded = fit_steps(points, self.load)
        values, changed = self.fit_values(points.values)
        negative = numbers < 0
        numbers = np.maximum(numbers, 0)
        last = np.ones(len(owner), dtype=np.bool_)
        last[:-1] = (owner[1:] != owner[:-1]) | (numbers[1:] != numbers[:-1])
        ends = np.flatnonzero(last)
        stands_for = ends[np.searchsorted(ends, np.arange(len(owner)))]
        given = NativePoints(numbers, points.times_ms[stands_for], values[stands_for])
        reasons = {
            "step-rounded": rounded,
            "step-merged": rounded.any() & merged(owner, numbers, points.steps.units),
            "step-negative": negative,
            "step-shared": ~last,
            **changed,
        }
        inexact: Mask = np.any(list(reasons.values()), axis=0)
        inexact |= inexact[stands_for]
        if len(ends) < len(owner):
            inexact |= np.bincount(stands_for)[stands_for] > 1
        findings = [name_changed(path) for path in points.paths if self.naming.key(path) != path]
        for code, mask in reasons.items():
            findings += counted(code, mask, owner, points.paths)
        exact = ExactPoints(take(points, inexact), given.part(inexact)) if inexact.any() else None
        lengths = lengths_of(owner, last, len(points.paths))
        keys = [self.naming.key(path) for path in points.paths]
        return FittedPoints(Metrics(keys, lengths, *given.part(last)), exact, findings)
