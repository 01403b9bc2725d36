"""The scalar fields of many runs as one table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import msgspec
import pyarrow as pa

from shardmig.archive.reader import ArchiveReader
from shardmig.archive.table import PAYLOAD_COLUMNS, SCHEMA
from shardmig.errors import UsageError
from shardmig.records import Field, Fields, FieldType, RunId, RunRef, Selection


class _Parameters(msgspec.Struct, frozen=True):
    """What the table is read with."""

    selection: Selection
    chunk_points: int = 250_000
    cursors: dict[RunId, bytes] = {}


def runs_table(reader: ArchiveReader, runs: Iterable[RunRef], fields: str) -> pa.Table:
    """One row a run: `run_id`, then a column for each path and type, named by the path, or `path:type` where the type
    differs between runs. Null = the run has no such field. Raises UsageError if `fields` is no regular expression."""
    try:
        re.compile(fields)
    except re.error as error:
        raise UsageError(f"{fields!r} is not a regular expression: {error}") from error
    asked = _Parameters(Selection(attributes=(fields,) if fields else (), classes=("parameters",)))
    ids: list[RunId] = []
    columns: dict[tuple[str, FieldType], dict[int, Field]] = defaultdict(dict)
    for row, run in enumerate(runs):
        ids.append(run.id)
        for piece in reader.read(run, asked, hash_files=False):
            for field in piece.chunk.fields if isinstance(piece.chunk, Fields) else ():
                columns[field.path, field.type][row] = field
    types: dict[str, list[FieldType]] = defaultdict(list)
    for path, field_type in sorted(columns):
        types[path].append(field_type)
    named = {
        path if len(types[path]) == 1 else f"{path}:{field_type}": _column(
            field_type, columns[path, field_type], len(ids)
        )
        for path, field_type in sorted(columns)
    }
    return pa.table({"run_id": pa.array(ids, pa.string()), **named})


def _column(field_type: FieldType, values: dict[int, Field], count: int) -> pa.Array:
    kind = SCHEMA.field(PAYLOAD_COLUMNS[field_type]).type
    return pa.array([values[row].value if row in values else None for row in range(count)], kind)
