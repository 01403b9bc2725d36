"""The scalar fields of many runs as one table."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

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
    differs between runs or the name is taken already. Null = the run has no such field. Raises UsageError if `fields`
    is no regular expression."""
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
    named = {"run_id": pa.array(ids, pa.string())}
    for (path, field_type), name in _names(sorted(columns), taken=named).items():
        named[name] = _column(field_type, columns[path, field_type], len(ids))
    return pa.table(named)


def _names(columns: Sequence[tuple[str, FieldType]], taken: Iterable[str]) -> dict[tuple[str, FieldType], str]:
    """A name for each column, none of them twice. Of several that would have one name, the first has it, and each other
    the next that is free when its type is put behind."""
    types = Counter(path for path, _ in columns)
    used = set(taken)
    names: dict[tuple[str, FieldType], str] = {}
    for path, field_type in columns:
        name = path if types[path] == 1 else f"{path}:{field_type}"
        while name in used:
            name = f"{name}:{field_type}"
        used.add(name)
        names[path, field_type] = name
    return names


def _column(field_type: FieldType, values: dict[int, Field], count: int) -> pa.Array:
    kind = SCHEMA.field(PAYLOAD_COLUMNS[field_type]).type
    return pa.array([values[row].value if row in values else None for row in range(count)], kind)
