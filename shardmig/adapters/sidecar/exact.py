"""`shardmig/exact.parquet`: the original rows of everything that the target changed, one file a run.

Columns: attribute_path, attribute_type, step, timestamp, float_value (points), string_value (a scalar's exact text,
as `scalars.text_of` writes it), and for points what the target was given instead: native_step, native_time_ms,
native_value. The footer's key `shardmig.groups` maps each series to its row groups, and names those that hold scalars.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardmig.adapters.sidecar.fitting import NativePoints
from shardmig.adapters.sidecar.scalars import text_of
from shardmig.adapters.sidecar.tables import TIME, points_of_table, step_array, time_array
from shardmig.archive.decimals import EXACT_STEP
from shardmig.archive.layout import disk_errors
from shardmig.records import Field, FieldType, FloatPoints, Int64s

GROUPS: Final = "shardmig.groups"
ENOUGH_ROWS: Final = 100_000
SCHEMA: Final = pa.schema(
    [
        ("attribute_path", pa.string()),
        ("attribute_type", pa.string()),
        ("step", EXACT_STEP),
        ("timestamp", TIME),
        ("float_value", pa.float64()),
        ("string_value", pa.large_string()),
        ("native_step", pa.int64()),
        ("native_time_ms", pa.int64()),
        ("native_value", pa.float64()),
    ]
)


class ExactPoints(NamedTuple):
    """Original points, row by row beside what the target was given instead."""

    points: FloatPoints
    native: NativePoints

    def part(self, rows: slice) -> ExactPoints:
        """Some rows of one series."""
        points = self.points
        some = FloatPoints(points.paths, points.lengths, points.steps[rows], points.times_ms[rows], points.values[rows])
        return ExactPoints(some, self.native.part(rows))


class _Groups(msgspec.Struct):
    """The numbers of row groups with points of each series, and with scalars."""

    series: dict[str, list[int]] = {}
    scalars: list[int] = []


class SidecarWriter:
    """Collects exact rows. The file exists once there is a row. Memory: about 100,000 rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._paths: set[str] = set()
        self._has_scalars = False
        self._groups = _Groups()
        self._written = 0
        self._writer: pq.ParquetWriter | None = None

    def add_points(self, exact: ExactPoints) -> None:
        """Exact points of float series. Raises DiskFull."""
        points, native = exact
        count = len(points.times_ms)
        owner = np.repeat(np.arange(len(points.paths)), points.lengths)
        paths = pa.DictionaryArray.from_arrays(pa.array(owner, pa.int32()), pa.array(points.paths, pa.string()))
        self._add(
            [
                paths.cast(pa.string()),
                pa.repeat("float_series", count),
                step_array(points.steps),
                time_array(points.times_ms),
                pa.array(points.values),
                pa.nulls(count, pa.large_string()),
                pa.array(native.steps),
                pa.array(native.times_ms),
                pa.array(native.values),
            ],
            points.paths,
        )

    def add_field(self, field: Field) -> None:
        """An exact scalar. Raises DiskFull."""
        self._has_scalars = True
        text = pa.array([text_of(field)], pa.large_string())
        before = [pa.nulls(1, kind) for kind in (EXACT_STEP, TIME, pa.float64())]
        behind = [pa.nulls(1, kind) for kind in (pa.int64(), pa.int64(), pa.float64())]
        self._add([pa.array([field.path]), pa.array([field.type]), *before, text, *behind], [])

    def close(self) -> bool:
        """Finish the file; is there one? Idempotent."""
        with disk_errors("the sidecar"):
            self._write()
            if self._writer is not None:
                self._writer.add_key_value_metadata({GROUPS: msgspec.json.encode(self._groups).decode()})
                self._writer.close()
                self._writer = None
        return self._written > 0

    def _add(self, columns: list[pa.Array], paths: Iterable[str]) -> None:
        self._waiting.append(pa.Table.from_arrays(columns, schema=SCHEMA))
        self._paths.update(paths)
        self._rows += len(columns[0])
        if self._rows >= ENOUGH_ROWS:
            with disk_errors("the sidecar"):
                self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, SCHEMA, compression="zstd")
        table = pa.concat_tables(self._waiting)
        self._writer.write_table(table, row_group_size=len(table))
        for path in sorted(self._paths):
            self._groups.series.setdefault(path, []).append(self._written)
        if self._has_scalars:
            self._groups.scalars.append(self._written)
        self._written += 1
        self._waiting, self._paths, self._has_scalars, self._rows = [], set(), False, 0


class Sidecar:
    """Reads a sidecar; without a file it is empty. Memory: one row group."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else pq.ParquetFile(path)
        footer = {} if self._file is None else self._file.metadata.metadata
        self._groups = msgspec.json.decode(footer.get(GROUPS.encode(), b"{}"), type=_Groups)
        self._held: tuple[int, pa.Table] | None = None

    def holds(self, path: str) -> bool:
        """Are there exact points of this series?"""
        return path in self._groups.series

    def series(self) -> Iterable[str]:
        """The paths of the series that it has exact points of."""
        return self._groups.series.keys()

    def scalars(self) -> dict[tuple[str, FieldType], str]:
        """The exact texts of scalars, by field."""
        texts: dict[tuple[str, FieldType], str] = {}
        for group in self._groups.scalars:
            table = self._group(group)
            chosen = table.filter(pc.not_equal(table["attribute_type"], "float_series"))
            columns = (chosen[name].to_pylist() for name in ("attribute_path", "attribute_type", "string_value"))
            texts |= {(path, kind): text for path, kind, text in zip(*columns, strict=True)}
        return texts

    def points(self, path: str) -> Iterator[ExactPoints]:
        """The exact points of a series, in the order of `add_points`."""
        for group in self._groups.series.get(path, []):
            table = self._group(group)
            mask = pc.and_(pc.equal(table["attribute_path"], path), pc.equal(table["attribute_type"], "float_series"))
            chosen = table.filter(mask)
            native = NativePoints(*(chosen[f"native_{name}"].to_numpy() for name in ("step", "time_ms", "value")))
            lengths: Int64s = np.array([len(chosen)], dtype=np.int64)
            start = 0
            for points in points_of_table([path], lengths, chosen.select(["step", "timestamp", "float_value"])):
                assert isinstance(points, FloatPoints)
                yield ExactPoints(points, native.part(slice(start, start + len(points.values))))
                start += len(points.values)

    def _group(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            assert self._file is not None
            self._held = (number, self._file.read_row_group(number))
        return self._held[1]
