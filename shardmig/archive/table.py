"""The archive's parquet schema, and chunks as its rows.

The first 14 columns are neptune-exporter's, in its order; ours follow. Knows nothing of files on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardmig.archive.decimals import EXACT_STEP, STEP, step_columns
from shardmig.archive.rows import KINDS, Blob, Rows, rows_of
from shardmig.records import NO_TIME, Field, FieldType, FileRef, Int64s, Points, RunRef
from shardmig.steps import exact, whole_and_fraction

_TIME: Final = pa.timestamp("ms", "UTC")
_FLOATS: Final = pa.list_(pa.float64())

SCHEMA: Final = pa.schema(
    [
        ("project_id", pa.string()),
        ("run_id", pa.string()),
        ("attribute_path", pa.string()),
        ("attribute_type", pa.string()),
        ("step", STEP),
        ("timestamp", _TIME),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("string_value", pa.string()),
        ("bool_value", pa.bool_()),
        ("datetime_value", _TIME),
        ("string_set_value", pa.list_(pa.string())),
        ("file_value", pa.struct([("path", pa.string())])),
        ("histogram_value", pa.struct([("type", pa.string()), ("edges", _FLOATS), ("values", _FLOATS)])),
        ("exact_step", EXACT_STEP),
        ("file_name", pa.string()),
        ("file_size", pa.int64()),
        ("file_sha256", pa.string()),
        ("file_is_tree", pa.bool_()),
    ]
)

DICTIONARY_COLUMNS: Final = ("project_id", "run_id", "attribute_path", "attribute_type")
TABLE_SCHEMA: Final = pa.schema(
    [
        pa.field(field.name, pa.dictionary(pa.int32(), pa.string())) if field.name in DICTIONARY_COLUMNS else field
        for field in SCHEMA
    ]
)
"""Of tables in memory; parquet stores the same bytes for it as for SCHEMA."""

PAYLOAD_COLUMNS: Final[dict[FieldType, str]] = {
    "int": "int_value",
    "float": "float_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    "float_series": "float_value",
    "string_series": "string_value",
    "histogram_series": "histogram_value",
    "file": "file_value",
    "file_series": "file_value",
    "file_set": "file_value",
    "artifact": "file_value",
}


def points_table(run: RunRef, points: Points) -> pa.Table:
    """Points as rows; no Python object a point, but for the kinds of histograms."""
    rows = rows_of(points)
    step, exact_step = step_columns(rows.keys.whole, rows.keys.fraction)
    indices = np.repeat(np.arange(len(rows.paths), dtype=np.int32), rows.lengths)
    count = len(indices)
    return _table(
        run,
        count,
        attribute_path=pa.DictionaryArray.from_arrays(indices, pa.array(rows.paths, pa.string())),
        attribute_type=_repeated(rows.type, count),
        step=step,
        timestamp=_times(rows.keys.times_ms),
        exact_step=exact_step,
        **{PAYLOAD_COLUMNS[rows.type]: _payload(rows)},
    )


def fields_table(run: RunRef, fields: Sequence[Field]) -> pa.Table:
    """Scalar fields as rows."""
    payload = {
        PAYLOAD_COLUMNS[field_type]: [field.value if field.type == field_type else None for field in fields]
        for field_type in {field.type for field in fields}
    }
    return _table(
        run,
        len(fields),
        attribute_path=_encoded([field.path for field in fields]),
        attribute_type=_encoded([field.type for field in fields]),
        **{name: pa.array(values, SCHEMA.field(name).type) for name, values in payload.items()},
    )


def files_table(run: RunRef, files: Sequence[FileRef]) -> pa.Table:
    """Stored files as rows."""
    keys = [whole_and_fraction(exact(ref.step)) if ref.step is not None else None for ref in files]
    whole, fraction = (
        np.array([0 if key is None else int(key[index][0]) for key in keys], dtype=np.int64) for index in (0, 1)
    )
    step, exact_step = step_columns(whole, fraction)
    has_step = pa.array([key is not None for key in keys])
    return _table(
        run,
        len(files),
        attribute_path=_encoded([ref.path for ref in files]),
        attribute_type=_encoded([ref.type for ref in files]),
        step=_only(step, has_step),
        timestamp=pa.array([ref.time_ms for ref in files], pa.int64()).cast(_TIME),
        file_value=pa.StructArray.from_arrays([pa.array([ref.stored for ref in files], pa.string())], ["path"]),
        exact_step=_only(exact_step, has_step),
        file_name=pa.array([ref.name for ref in files], pa.string()),
        file_size=pa.array([ref.size_bytes if ref.size_bytes >= 0 else None for ref in files], pa.int64()),
        file_sha256=pa.array([ref.sha256 or None for ref in files], pa.string()),
        file_is_tree=pa.array([ref.is_tree for ref in files], pa.bool_()),
    )


def _table(run: RunRef, count: int, **columns: Any) -> pa.Table:
    columns["project_id"] = _repeated(run.project, count)
    columns["run_id"] = _repeated(run.id, count)
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in TABLE_SCHEMA]
    return pa.table(arrays, schema=TABLE_SCHEMA)


def _payload(rows: Rows) -> pa.Array:
    match rows.type:
        case "float_series":
            return pa.array(rows.fixed[0])
        case "string_series":
            return _texts(rows.blobs[0])
        case "histogram_series":
            kinds = pa.array(KINDS).take(pa.array(rows.fixed[0]))
            return pa.StructArray.from_arrays(
                [kinds, _lists(rows.blobs[0]), _lists(rows.blobs[1])], ["type", "edges", "values"]
            )


def _texts(blob: Blob) -> pa.Array:
    return pa.StringArray.from_buffers(
        len(blob.counts), pa.py_buffer(_offsets(blob)), pa.py_buffer(np.ascontiguousarray(blob.content))
    )


def _lists(blob: Blob) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(_offsets(blob)), pa.array(blob.content))


def _offsets(blob: Blob) -> Any:
    offsets = np.zeros(len(blob.counts) + 1, dtype=np.int32)  # bounded by CHUNK_BYTES, or by one text
    np.cumsum(blob.counts, out=offsets[1:])
    return offsets


def _times(times_ms: Int64s) -> pa.Array:
    return pa.array(times_ms, mask=times_ms == NO_TIME).cast(_TIME)


def _only(column: pa.Array, present: pa.Array) -> pa.Array:
    return pc.if_else(present, column, pa.scalar(None, column.type))


def _encoded(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.string()).dictionary_encode()


def _repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), pa.array([text], pa.string()))
