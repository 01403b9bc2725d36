"""What a run's `sys/` fields tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from shardmig.records import Field, FieldType, RunId, RunRef

_CREATED: Final = ("sys/creation_time", "datetime")
_PARENT: Final = ("sys/forking/parent", "string")
_ARCHIVED: Final = (("sys/trashed", "bool"), ("sys/archived", "bool"))

_FACTS: Final = frozenset({_CREATED, _PARENT, *_ARCHIVED})

FACT_PATHS: Final = frozenset(path for path, _ in _FACTS)


def is_fact(path: str, field_type: FieldType) -> bool:
    """Does `with_facts` look at this field?"""
    return (path, field_type) in _FACTS


def with_facts(run: RunRef, fields: Iterable[Field]) -> RunRef:
    """The run with creation time, parent and archived state from its fields, where `run` does not know them yet."""
    values = {(field.path, field.type): field.value for field in fields if is_fact(field.path, field.type)}
    created, parent = values.get(_CREATED), values.get(_PARENT)
    return msgspec.structs.replace(
        run,
        created_ms=created if run.created_ms is None and isinstance(created, int) else run.created_ms,
        parent=RunId(parent) if run.parent is None and isinstance(parent, str) and parent else run.parent,
        archived=run.archived or any(values.get(key) is True for key in _ARCHIVED),
    )
