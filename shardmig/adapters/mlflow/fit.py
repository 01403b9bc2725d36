"""What MLflow will hold of a chunk: the documented approximations, one rule a function. Pure.

Reason codes (all approximations unless said otherwise):

    infinity-clamped           ±inf becomes ±1.7976931348623157e308
    negative-zero              -0.0 becomes 0.0
    time-missing               a point without time gets time 0 (1970-01-01)
    time-negative              a time before 1970 becomes 0
    duplicate-points-collapse  points of a series equal in step, time and value are one point
    param-truncated            a text over 6000 characters is cut
    character-replaced         NUL and lone surrogates become U+FFFD: SQL stores refuse them
    step-rounded, step-merged, name-changed (note): see `sidecar.fitting`

String and histogram series and files are artifacts and exact.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shardmig.adapters.mlflow.naming import Naming, without_control_characters
from shardmig.adapters.sidecar.fitting import Mask
from shardmig.adapters.sidecar.rules import FittedField, Rules, Value
from shardmig.adapters.sidecar.scalars import field_of, text_of
from shardmig.records import NO_TIME, Field, FieldType, Finding, Float64s, Int64s, LoadOptions

MAX_PARAM: Final = 6000
LARGEST: Final = 1.7976931348623157e308


class MlflowRules(Rules):
    """The approximations of MLflow: its params are texts, its metrics a set of (key, step, time, value)."""

    merges_equal_points = True
    naming: Naming

    def __init__(self, load: LoadOptions, naming: Naming) -> None:
        super().__init__(load, naming)

    def fit_field(self, field: Field) -> FittedField:
        """As Rules: the text of a param."""
        exact = text_of(field)
        findings = []
        text = without_control_characters(exact)
        if text != exact:
            findings.append(Finding("approximation", "character-replaced", field.path))
        if len(text) > MAX_PARAM:
            findings.append(Finding("approximation", "param-truncated", field.path, detail=f"{len(text)} characters"))
            text = text[:MAX_PARAM]
        return FittedField(text, text == exact, findings)

    def field_of(self, path: str, field_type: FieldType, value: Value) -> Field:
        """As Rules."""
        return field_of(path, field_type, str(value))

    def fit_times(self, times_ms: Int64s) -> tuple[Int64s, dict[str, Mask]]:
        """As Rules."""
        missing = times_ms == NO_TIME
        return np.maximum(times_ms, 0), {"time-missing": missing, "time-negative": (times_ms < 0) & ~missing}

    def fit_values(self, values: Float64s) -> tuple[Float64s, dict[str, Mask]]:
        """As Rules."""
        infinite = np.isinf(values)
        negative_zero = (values == 0) & np.signbit(values)
        if infinite.any() or negative_zero.any():
            values = np.clip(values, -LARGEST, LARGEST) + 0.0  # -0.0 + 0.0 is 0.0
        return values, {"infinity-clamped": infinite, "negative-zero": negative_zero}
