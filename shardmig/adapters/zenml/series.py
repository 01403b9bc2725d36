"""All float series of a run in one parquet file, and the few numbers of each that the dashboard shows.

Columns: `attribute_path`, `step` decimal128(38, 18), `timestamp` (ms, UTC; null = no time), `float_value`: the names and
types of the archive. The footer's key `shardmig.groups` maps each series to its row groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardmig.adapters.sidecar.tables import TIME, points_of_table, step_array, time_array
from shardmig.adapters.zenml.fit import as_json
from shardmig.archive.decimals import EXACT_STEP
from shardmig.archive.layout import disk_errors
from shardmig.records import FloatPoints, Points

SERIES: Final = "shardmig/series.parquet"
GROUPS: Final = b"shardmig.groups"
ENOUGH_ROWS: Final = 100_000
SCHEMA: Final = pa.schema(
    [("attribute_path", pa.string()), ("step", EXACT_STEP), ("timestamp", TIME), ("float_value", pa.float64())]
)


class Card(msgspec.Struct):
    """What a dashboard shows of a series. NaN counts as a point, and for `final`; `least`, `most` and `total` pass it over."""

    least: float
    most: float
    final: float
    count: int
    total: float
    numbers: int

    def shown(self) -> dict[str, float | int | str]:
        """As metadata."""
        mean = self.total / self.numbers if self.numbers else np.nan
        floats = {"min": self.least, "max": self.most, "final": self.final, "mean": mean}
        return {"count": self.count} | {name: as_json(float(number)) for name, number in floats.items()}


class Cards:
    """The cards of all series, as their points go by in step order."""

    def __init__(self) -> None:
        self._cards: dict[str, Card] = {}

    def add(self, points: FloatPoints) -> None:
        """Count some points in."""
        some = points.lengths > 0
        if not some.any():
            return
        ends = np.cumsum(points.lengths[some])
        starts = ends - points.lengths[some]
        values = points.values
        is_number = ~np.isnan(values)
        with np.errstate(all="ignore"):
            columns = (
                np.fmin.reduceat(values, starts),
                np.fmax.reduceat(values, starts),
                values[ends - 1],
                points.lengths[some],
                np.add.reduceat(np.where(is_number, values, 0.0), starts),
                np.add.reduceat(is_number.astype(np.int64), starts),
            )
        paths = [path for path, has_points in zip(points.paths, some.tolist(), strict=True) if has_points]
        for path, *numbers in zip(paths, *(column.tolist() for column in columns), strict=True):
            self._merge(path, Card(*numbers))

    def shown(self) -> dict[str, Any]:
        """All of them as metadata, by series."""
        return {path: card.shown() for path, card in self._cards.items()}

    def _merge(self, path: str, card: Card) -> None:
        held = self._cards.get(path)
        if held is not None:
            card.least, card.most = float(np.fmin(held.least, card.least)), float(np.fmax(held.most, card.most))
            card.count, card.numbers = held.count + card.count, held.numbers + card.numbers
            card.total += held.total
        self._cards[path] = card


class PointsWriter:
    """Collects the points of all float series. The file exists once there is a point. Memory: about 100,000 rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cards = Cards()
        self._waiting: list[pa.Table] = []
        self._paths: set[str] = set()
        self._groups: dict[str, list[int]] = {}
        self._written = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, points: FloatPoints) -> None:
        """Append points. Raises DiskFull."""
        self.cards.add(points)
        owner = np.repeat(np.arange(len(points.paths), dtype=np.int32), points.lengths)
        names = pa.array(points.paths, pa.string())
        for start in range(0, len(owner), ENOUGH_ROWS):
            rows = slice(start, start + ENOUGH_ROWS)
            columns = [
                pa.DictionaryArray.from_arrays(pa.array(owner[rows]), names).cast(pa.string()),
                step_array(points.steps[rows]),
                time_array(points.times_ms[rows]),
                pa.array(points.values[rows]),
            ]
            self._waiting.append(pa.Table.from_arrays(columns, schema=SCHEMA))
            self._paths.update(points.paths[number] for number in np.unique(owner[rows]).tolist())
            if sum(map(len, self._waiting)) >= ENOUGH_ROWS:
                self._write()

    def close(self) -> bool:
        """Finish the file; is there one? Idempotent. Raises DiskFull."""
        self._write()
        if self._writer is not None:
            self._writer.add_key_value_metadata({GROUPS.decode(): msgspec.json.encode(self._groups).decode()})
            with disk_errors("staging of the series"):
                self._writer.close()
            self._writer = None
        return self._written > 0

    def _write(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        with disk_errors("staging of the series"):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.path, SCHEMA, compression="zstd")
            self._writer.write_table(table, row_group_size=max(1, len(table)))
        for path in self._paths:
            self._groups.setdefault(path, []).append(self._written)
        self._written += 1
        self._waiting, self._paths = [], set()


def read_points(file: Path, wants: Callable[[str], bool], chunk_points: int) -> Iterator[Points]:
    """The points of the wanted series, in the order of `PointsWriter.add`. Memory: one row group."""
    with pq.ParquetFile(file) as parquet:
        groups = msgspec.json.decode(parquet.metadata.metadata[GROUPS], type=dict[str, list[int]])
        wanted = {path for path in groups if wants(path)}
        chosen = pa.array(sorted(wanted), pa.string())
        for number in sorted({number for path in wanted for number in groups[path]}):
            table = parquet.read_row_group(number)
            table = table.filter(pc.is_in(table["attribute_path"], value_set=chosen))
            for start in range(0, len(table), chunk_points):
                yield from _points_of(table.slice(start, chunk_points))


def _points_of(table: pa.Table) -> Iterator[Points]:
    encoded = table["attribute_path"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(codes)) + 1))
    names = encoded.dictionary.to_pylist()
    paths = [names[code] for code in codes[starts].tolist()]
    lengths = np.diff(np.append(starts, len(codes))).astype(np.int64)
    yield from points_of_table(paths, lengths, table.select(["step", "timestamp", "float_value"]))
