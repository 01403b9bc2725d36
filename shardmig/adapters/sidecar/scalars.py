"""The exact text of a scalar, and back.

int as digits; float as the shortest text that gives the same double (`repr`); bool as True or False; datetime as ISO
8601 with milliseconds and Z; a string as itself; a string set as a JSON list.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from shardmig.records import Field, FieldType

_INT64: Final = range(-(2**63), 2**63)


def text_of(field: Field) -> str:
    """The text, before any limit of a target."""
    value = field.value
    if isinstance(value, list):
        return msgspec.json.encode(value).decode()
    if field.type == "datetime":
        return f"{np.int64(value).astype('datetime64[ms]')}Z"
    return repr(float(value)) if field.type == "float" else str(value)


def field_of(path: str, field_type: FieldType, text: str) -> Field:
    """The scalar of that text; a `string` field when it is not how `text_of` writes that type (cut, or changed)."""
    try:
        field = Field(path, field_type, _parse(field_type, text))
    except ValueError:
        return Field(path, "string", text)
    return field if text_of(field) == text else Field(path, "string", text)


def _parse(field_type: FieldType, text: str) -> int | float | str | bool | list[str]:
    if field_type == "int":
        if (number := int(text)) in _INT64:
            return number
        raise ValueError(text)
    if field_type == "float":
        return float(text)
    if field_type == "bool":
        return text == "True"
    if field_type == "datetime":
        return int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64))
    if field_type == "string_set":
        return msgspec.json.decode(text, type=list[str])
    return text
