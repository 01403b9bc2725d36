"""What Lightning will hold of a chunk: its approximations. Pure.

Reason codes (all approximations unless said otherwise):

    value-not-finite           NaN and ±inf: no JSON number, litlogger leaves them out too; they are in the sidecar only
    time-missing               a point without time gets time 0 (1970-01-01)
    time-out-of-range          a time before the year 1000 or after 9999 becomes the nearest within
    param-truncated            a text over 5000 characters is cut
    character-replaced         NUL and lone surrogates become U+FFFD
    step-rounded, step-merged, name-changed (note): see `sidecar.fitting`

All scalars are texts. String and histogram series and files are artifacts and exact.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from shardmig.adapters.sidecar.fitting import Mask
from shardmig.adapters.sidecar.rules import FittedField, Rules, Value
from shardmig.adapters.sidecar.scalars import field_of, text_of
from shardmig.records import NO_TIME, Field, FieldType, Finding, Float64s, Int64s

MAX_PARAM: Final = 5000
EARLIEST_MS: Final = int(np.datetime64("1000-01-01", "ms").astype(np.int64))
LATEST_MS: Final = int(np.datetime64("9999-12-31T23:59:59.999", "ms").astype(np.int64))

_REFUSED: Final = re.compile("[\x00\ud800-\udfff]")


class LightningRules(Rules):
    """The approximations of Lightning: metadata are texts, points are finite and have a time."""

    holds_only_finite = True

    def fit_field(self, field: Field) -> FittedField:
        """As Rules: the text of a scalar."""
        exact = text_of(field)
        findings = []
        text = _REFUSED.sub("\ufffd", exact)
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
        fitted = np.clip(np.where(missing, 0, times_ms), EARLIEST_MS, LATEST_MS)
        return fitted, {"time-missing": missing, "time-out-of-range": (fitted != times_ms) & ~missing}

    def fit_values(self, values: Float64s) -> tuple[Float64s, dict[str, Mask]]:
        """As Rules: `value-not-finite` comes from there."""
        return values, {}
