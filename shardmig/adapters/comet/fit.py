"""What Comet will hold of a chunk: the documented approximations, one rule a function. Pure.

Reason codes (all approximations unless said otherwise):

    time-missing         a point without time gets time 0 (1970-01-01)
    series-sampled       Comet shows a sample of a series with more than 15,000 points; all are sent
    param-truncated      a text over 1000 characters is cut and ends in " [truncated]", as the vendor's client does
    character-replaced   NUL and lone surrogates become U+FFFD
    step-rounded, step-merged, name-changed: see `sidecar.fitting`

NaN and the infinities are the vendor's own words for them and exact, and so are -0.0, times in ms and equal points.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shardmig.adapters.comet.naming import Naming, utf8
from shardmig.adapters.sidecar import scalars
from shardmig.adapters.sidecar.fitting import Mask
from shardmig.adapters.sidecar.rules import FittedField, Rules, Value
from shardmig.records import NO_TIME, Field, FieldType, Finding, Float64s, FloatPoints, Int64s, LoadOptions

MAX_TEXT: Final = 1000
MAX_POINTS: Final = 15_000
"""Values of one metric that Comet keeps as they are."""
LEAST_SHOWN: Final = 10_000
"""Of a longer series Comet is believed to show at least so many."""
_CUT: Final = " [truncated]"


class CometRules(Rules):
    """Comet's rules. The same object for several chunks of one run knows which of its series are long, even where the
    last rows of one come in a chunk of their own."""

    def __init__(self, load: LoadOptions, naming: Naming) -> None:
        super().__init__(load, naming)
        self._long: str | None = None

    def fit_field(self, field: Field) -> FittedField:
        """Numbers and bools as they are, everything else as text."""
        value = field.value
        if isinstance(value, bool | int | float) and field.type != "datetime":
            return FittedField(value, True, [])
        exact = scalars.text_of(field)
        text, findings = utf8(exact), []
        if text != exact:
            findings.append(Finding("approximation", "character-replaced", field.path))
        if len(text) > MAX_TEXT:
            findings.append(Finding("approximation", "param-truncated", field.path, detail=f"{len(text)} characters"))
            text = cut(text)
        return FittedField(text, text == exact, findings)

    def field_of(self, path: str, field_type: FieldType, value: Value) -> Field:
        """From the typed value of an archive, or from the text that the server makes of it."""
        if isinstance(value, str):
            return _from_text(path, field_type, value)
        kinds: dict[FieldType, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (float, int)}
        if type(value) in kinds.get(field_type, ()):
            return Field(path, field_type, float(value) if field_type == "float" else value)  # type: ignore[arg-type]
        return self.other_field(path, value)

    def fit_times(self, times_ms: Int64s) -> tuple[Int64s, dict[str, Mask]]:
        """Every point has a time."""
        missing = times_ms == NO_TIME
        return np.where(missing, 0, times_ms), {"time-missing": missing}

    def fit_values(self, values: Float64s) -> tuple[Float64s, dict[str, Mask]]:
        """All are held."""
        return values, {}

    def expect_long(self, path: str) -> None:
        """This series, whose first points come next, will have more than 15,000 of them."""
        self._long = path

    def is_long(self, path: str) -> bool:
        """Is this the series that is known to be long?"""
        return path == self._long

    def at_risk(self, points: FloatPoints) -> dict[str, Mask]:
        """All points of long series."""
        is_long = points.lengths > MAX_POINTS
        if points.paths and points.paths[0] == self._long:
            is_long[0] = True
        if not is_long.any():
            return {}
        if is_long[-1]:
            self._long = points.paths[-1]
        return {"series-sampled": np.repeat(is_long, points.lengths)}


def cut(text: str) -> str:
    """At most 1000 characters; what was cut says so."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - len(_CUT)] + _CUT


def _from_text(path: str, field_type: FieldType, text: str) -> Field:
    """Numbers in any writing that a server gives them (1.0E16), bools in any case."""
    try:
        if field_type == "float":
            return Field(path, "float", float(text))
        if field_type == "int":
            return Field(path, "int", int(text))
    except ValueError:
        return Field(path, "string", text)
    if field_type == "bool" and text.lower() in ("true", "false"):
        return Field(path, "bool", text.lower() == "true")
    return scalars.field_of(path, field_type, text)
