"""Which fields a run of an archive has, how many rows and which steps: from its receipt, else from as few columns as
will do. Never reads a value of a series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from shardmig.archive.places import Place
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.store import ObjectPath
from shardmig.archive.table import PAYLOAD_COLUMNS, SCHEMA
from shardmig.errors import BadInput
from shardmig.records import SERIES_TYPES, FieldType, Receipt, RunRef

_KEY: Final = ["attribute_path", "attribute_type"]
_PAYLOADS: Final = sorted(set(PAYLOAD_COLUMNS.values()))


class FieldContents(msgspec.Struct, frozen=True, kw_only=True):
    """One field of one run. rows: points, files, or 1. lowest, highest: steps as decimal texts, "" = not known."""

    path: str
    type: FieldType
    rows: int
    lowest: str = ""
    highest: str = ""


def contents_of(reader: ArchiveReader, run: RunRef) -> tuple[Receipt | None, list[FieldContents]]:
    """The run's receipt, if it has one, and its fields. Raises BadInput as the reader does."""
    receipt = reader.receipt(run)
    return receipt, from_receipt(receipt) if receipt is not None else from_parts(reader.published(run).parts)


def from_receipt(receipt: Receipt) -> list[FieldContents]:
    """What the receipt says, without reading a row."""
    return [FieldContents(path=field.path, type=field.type, rows=field.rows) for field in receipt.fields]


def from_parts(parts: Sequence[Place]) -> list[FieldContents]:
    """What the rows say, by path and type. A scalar or file row without any value is an absent field.

    Raises BadInput for a part that is not parquet or not of an archive.
    """
    try:
        parquet = ds.ParquetFileFormat()
        fragments = [
            parquet.make_fragment(part.open())
            if isinstance(part, ObjectPath)
            else parquet.make_fragment(str(part), LocalFileSystem())
            for part in parts
        ]
        rows = ds.FileSystemDataset(fragments, schema=_schema(), format=parquet)
        found = [*_series(rows), *_others(rows)]
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{parts[0]} cannot be read as part of an archive: {error}") from error
    return sorted(found, key=lambda field: (field.path, field.type))


def _series(rows: Any) -> Iterator[FieldContents]:
    is_series = ds.field("attribute_type").isin(sorted(SERIES_TYPES))
    sums = [
        pa.table(batch).group_by(_KEY).aggregate([([], "count_all"), ("step", "min"), ("step", "max")])
        for batch in rows.to_batches(columns=[*_KEY, "step"], filter=is_series)
        if len(batch)
    ]
    if not sums:
        return
    aggregates = [("count_all", "sum"), ("step_min", "min"), ("step_max", "max")]
    for row in pa.concat_tables(sums).group_by(_KEY).aggregate(aggregates).to_pylist():
        lowest, highest = row["step_min_min"], row["step_max_max"]
        yield FieldContents(
            path=row["attribute_path"],
            type=row["attribute_type"],
            rows=row["count_all_sum"],
            lowest="" if lowest is None else format(lowest.normalize(), "f"),
            highest="" if highest is None else format(highest.normalize(), "f"),
        )


def _others(rows: Any) -> Iterator[FieldContents]:
    is_series = ds.field("attribute_type").isin(sorted(SERIES_TYPES))
    has_value = pc.is_valid(ds.field(_PAYLOADS[0]))
    for payload in _PAYLOADS[1:]:
        has_value |= pc.is_valid(ds.field(payload))
    present = rows.to_table(columns=_KEY, filter=~is_series & has_value)
    for row in present.group_by(_KEY).aggregate([("attribute_path", "count")]).to_pylist():
        yield FieldContents(path=row["attribute_path"], type=row["attribute_type"], rows=row["attribute_path_count"])


def _schema() -> Any:
    return pa.schema([SCHEMA.field(name) for name in (*_KEY, "step", *_PAYLOADS)])
