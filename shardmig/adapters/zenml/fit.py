"""What ZenML will hold of a chunk, and how scalars stand in its metadata. Pure.

Metadata is JSON, read by people in a browser: NaN and infinities stand there as the texts NaN, Infinity and -Infinity, a
datetime as ISO 8601 text, a string set as a list. All of it is led back exactly. Series and files are stored as files,
with decimal steps, times and the bits of every value. One approximation is left:

    value-truncated        a text or string set that takes more than 48 kB in a row of ZenML's database, which has 64 kB
    name-changed (note)    the artifact store may not take the file's name; or a field name has over 1000 characters
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from shardmig.adapters.base import Fitted
from shardmig.adapters.sidecar.fitting import Mask
from shardmig.adapters.sidecar.rules import FittedField, Rules, Value
from shardmig.adapters.sidecar.scalars import field_of, text_of
from shardmig.records import Chunk, Field, FieldType, Finding, Float64s, FloatPoints, Int64s

MAX_VALUE_BYTES: Final = 48_000
KEPT_CHARACTERS: Final = 4_000
"""Of a value that is too long: in the worst case each is twelve bytes of JSON."""
ROW_BYTES: Final = 60_000

_NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class ZenmlRules(Rules):
    """The one approximation of ZenML."""

    def fit(self, chunk: Chunk) -> Fitted:
        """As Rules: points are exact, whatever the step multiplier."""
        return Fitted(chunk, None, []) if isinstance(chunk, FloatPoints) else super().fit(chunk)

    def fit_field(self, field: Field) -> FittedField:
        """As Rules: a value of JSON."""
        value = field.value
        if field.type == "datetime":
            value = text_of(field)
        elif isinstance(value, float):
            value = as_json(value)
        if size_bytes(value) <= MAX_VALUE_BYTES:
            return FittedField(value, True, [])
        text = text_of(field)
        finding = Finding("approximation", "value-truncated", field.path, detail=f"{len(text)} characters")
        return FittedField(text[:KEPT_CHARACTERS], False, [finding])

    def field_of(self, path: str, field_type: FieldType, value: Value) -> Field:
        """As Rules."""
        if field_type == "float" and isinstance(value, str) and value in _NON_FINITE:
            return Field(path, "float", _NON_FINITE[value])
        if field_type in ("datetime", "string_set") and isinstance(value, str):
            return field_of(path, field_type, value)
        return self.other_field(path, value)

    def fit_times(self, times_ms: Int64s) -> tuple[Int64s, dict[str, Mask]]:
        """As Rules: they are kept."""
        return times_ms, {}

    def fit_values(self, values: Float64s) -> tuple[Float64s, dict[str, Mask]]:
        """As Rules: they are kept."""
        return values, {}


def as_json(number: float) -> float | str:
    """A float that a browser can read too."""
    return number if math.isfinite(number) else "NaN" if math.isnan(number) else f"{'-' * (number < 0)}Infinity"


def size_bytes(value: object) -> int:
    """What a value takes in a row of ZenML's database, which holds ASCII JSON."""
    return len(json.dumps(value))


def rows(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A metadata dictionary cut to what a row holds. ZenML merges the rows of one key into one dictionary again."""
    row: dict[str, Any] = {}
    row_bytes = 2
    for key, value in values.items():
        entry_bytes = size_bytes(key) + size_bytes(value) + 4
        if row and row_bytes + entry_bytes > ROW_BYTES:
            yield row
            row, row_bytes = {}, 2
        row[key] = value
        row_bytes += entry_bytes
    if row:
        yield row


class Flat(NamedTuple):
    """One scalar out of metadata of others. `is_exact`: not the JSON text of something that is no scalar here."""

    key: str
    value: Value
    is_exact: bool


def flattened(metadata: Mapping[str, Any]) -> Iterator[Flat]:
    """Metadata of others as scalars: dictionaries joined with slashes, what JSON has beyond scalars as its text."""
    for key, value in metadata.items():
        if value and isinstance(value, dict):
            yield from (flat._replace(key=f"{key}/{flat.key}") for flat in flattened(value))
        else:
            is_exact = _is_scalar(value)
            yield Flat(key, value if is_exact else json.dumps(value), is_exact)


def _is_scalar(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value) and value == sorted(set(value))
    return isinstance(value, bool | float | str) or (isinstance(value, int) and -(2**63) <= value < 2**63)
