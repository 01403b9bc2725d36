"""Writing the parquet parts of one run: staged, synced, the receipt in the footer of part_0. Publishing is not here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardmig.archive.layout import disk_errors, drop_staged, part_name, staged, sync_file
from shardmig.archive.places import file_sha256
from shardmig.archive.receipts import footer_metadata
from shardmig.archive.rows import CHUNK_BYTES
from shardmig.archive.table import DICTIONARY_COLUMNS, TABLE_SCHEMA
from shardmig.records import PartInfo, Receipt

GROUP_ROWS: Final = 125_000
_REPEATS: Final = 3
"""Floats are dictionary encoded where each value comes this often."""

_ENCODINGS: Final = {
    "step": "DELTA_BINARY_PACKED",
    "timestamp": "DELTA_BINARY_PACKED",
    "int_value": "DELTA_BINARY_PACKED",
}


class PartsWriter:
    """Writes tables in order, gathers them into row groups and rolls over to a new part at `part_bytes`.

    Bytes a point, measured on 250,000 points with integer steps and times in ms at irregular intervals (zstd): 7.8 for
    float64 values with noise in all 52 bits (6.9 of them the noise, which nothing compresses), 4.3 for float32 noise,
    3.0 for values of four digits; neptune-exporter's parquet options give 9.5 to 11 for the first.
    """

    def __init__(self, folder: Path, prefix: str, *, part_bytes: int, compression: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._part_bytes, self._compression = part_bytes, compression
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self._may_roll = False
        self._parts: list[_Part] = []
        with disk_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            drop_staged(folder, prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts:
            part.abandon()

    def write(self, table: pa.Table, *, may_roll: bool) -> None:
        """Append rows. `may_roll`: a new part may begin with them."""
        size = table.nbytes
        if self._pending and (
            self._pending_rows + len(table) > GROUP_ROWS or self._pending_bytes + size > 2 * CHUNK_BYTES
        ):
            self._flush()
        if not self._pending:
            self._may_roll = may_roll
        self._pending.append(table)
        self._pending_rows += len(table)
        self._pending_bytes += size

    def finish(self, receipt_for: Callable[[list[PartInfo]], Receipt]) -> Receipt:
        """Write what is pending, seal all parts and make them durable; the receipt is asked for when they are known."""
        self._flush()
        if not self._parts:
            self._parts.append(self._new_part(None))
        first, *others = self._parts
        if others:
            others[-1].seal({})
        infos = [PartInfo(part_name(self._prefix, 0), first.rows), *(part.info() for part in others)]
        receipt = receipt_for(infos)
        first.seal(footer_metadata(receipt))
        return receipt

    def count(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending).unify_dictionaries()
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if not self._parts:
            self._parts.append(self._new_part(table))
        elif self._may_roll and self._parts[-1].size() >= self._part_bytes:
            if len(self._parts) > 1:
                self._parts[-1].seal({})  # part_0 stays open: its footer waits for the receipt
            self._parts.append(self._new_part(table))
        self._parts[-1].write(table)

    def _new_part(self, first: pa.Table | None) -> _Part:
        number = len(self._parts)
        return _Part(self._folder / part_name(self._prefix, number), self._compression, _has_few_floats(first))


class _Part:
    """One staged parquet file."""

    def __init__(self, path: Path, compression: str, has_few_floats: bool) -> None:
        self.rows = 0
        self._name = path.name
        self._path = staged(path)
        dictionaries = [*DICTIONARY_COLUMNS, "histogram_value.type"]
        encodings = dict(_ENCODINGS)
        if has_few_floats:
            dictionaries.append("float_value")
        else:
            encodings["float_value"] = "BYTE_STREAM_SPLIT"
        with disk_errors(str(self._path)):
            self._sink: Any = pa.OSFile(str(self._path), "wb")
            self._writer: Any = pq.ParquetWriter(
                self._sink,
                TABLE_SCHEMA,
                compression=compression,
                use_dictionary=dictionaries,
                column_encoding=encodings,
                store_decimal_as_integer=True,
                store_schema=False,
            )
        self._is_open = True

    def write(self, table: pa.Table) -> None:
        """Append one row group."""
        with disk_errors(str(self._path)):
            self._writer.write_table(table, row_group_size=max(1, len(table)))
        self.rows += len(table)

    def size(self) -> int:
        """Bytes written so far."""
        return int(self._sink.tell())

    def seal(self, metadata: dict[bytes, bytes]) -> None:
        """Write the footer and make the file durable."""
        with disk_errors(str(self._path)):
            self._is_open = False
            self._writer.add_key_value_metadata(metadata)
            self._writer.close()
            self._sink.close()
            sync_file(self._path)

    def abandon(self) -> None:
        """Let go of a part that an error left open; its staged file is dropped by the next attempt."""
        if self._is_open:
            self._sink.close()
            self._writer.is_open = False

    def info(self) -> PartInfo:
        """What the receipt says of a sealed part."""
        return PartInfo(self._name, self.rows, self._path.stat().st_size, file_sha256(self._path))


def _has_few_floats(table: pa.Table | None) -> bool:
    if table is None:
        return False
    floats = table.column("float_value")
    count = len(floats) - floats.null_count
    return bool(count and pc.count_distinct(floats).as_py() * _REPEATS <= count)
