"""`shardmig/times.parquet`: the times of points that have another one than the row they stand in.

W&B's history has one time a row. Columns: step, key, time_ms (NO_TIME as it is), row_time_ms; ordered by (step, number of
the key), as the rows of the log are. A time counts only while its row still has the time that was written with it, so a
change in W&B is never covered up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.adapters.wandb.columns import Points
from shardmig.archive.layout import disk_errors
from shardmig.records import Int64s

TIMES: Final = f"{OWN_FOLDER}/times.parquet"
_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("key", pa.dictionary(pa.int32(), pa.string())),
        ("time_ms", pa.int64()),
        ("row_time_ms", pa.int64()),
    ]
)
_PACKED: Final = {"step": "DELTA_BINARY_PACKED", "time_ms": "DELTA_BINARY_PACKED", "row_time_ms": "DELTA_BINARY_PACKED"}


class TimesWriter:
    """Collects times. The file exists once there is one."""

    def __init__(self, path: Path, keys: list[str]) -> None:
        self._path = path
        self._keys = pa.array(keys, pa.string())
        self._writer: pq.ParquetWriter | None = None

    def add(self, points: Points, row_times_ms: Int64s) -> None:
        """Keep the times that differ from those of their rows. Raises DiskFull."""
        different = np.flatnonzero(points.times_ms != row_times_ms)
        if not len(different):
            return
        some = points.part(different)
        keys = pa.DictionaryArray.from_arrays(pa.array(some.keys, pa.int32()), self._keys)
        columns = [pa.array(some.steps), keys, pa.array(some.times_ms), pa.array(row_times_ms[different])]
        with disk_errors("the times of a run"):
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(
                    self._path, _SCHEMA, compression="zstd", use_dictionary=["key"], column_encoding=_PACKED
                )
            self._writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))

    def close(self) -> None:
        """Finish the file; idempotent."""
        if self._writer is not None:
            with disk_errors("the times of a run"):
                self._writer.close()
            self._writer = None


class Times:
    """Puts kept times back in their places, while the rows go by in the order in which they were written.
    Memory: one row group. `numbers`: by key, its number in the points; grows while the rows are read."""

    def __init__(self, path: Path | None, numbers: dict[str, int]) -> None:
        self._groups = iter(()) if path is None else self._read(path)
        self._numbers = numbers
        self._waiting: list[Points] = []  # with the time of the row as value

    def restored(self, points: Points) -> Points:
        """The points of some whole rows with their own times. `points.times_ms` are those of the rows."""
        kept = self._up_to(int(points.steps.max(initial=-1)))
        if not kept:
            return points
        times_ms = points.times_ms.copy()
        for some in kept:
            at = _places(points, some)
            found = at >= 0
            found[found] = points.times_ms[at[found]] == some.values[found].view(np.int64)
            times_ms[at[found]] = some.times_ms[found]
        return msgspec.structs.replace(points, times_ms=times_ms)

    def _up_to(self, last: int) -> list[Points]:
        while not self._waiting or int(self._waiting[-1].steps[-1]) <= last:
            part = next(self._groups, None)
            if part is None:
                break
            self._waiting.append(part)
        ends = [int(np.searchsorted(part.steps, last, side="right")) for part in self._waiting]
        taken = [part.part(slice(0, end)) for part, end in zip(self._waiting, ends, strict=True)]
        left = [part.part(slice(end, None)) for part, end in zip(self._waiting, ends, strict=True)]
        self._waiting = [part for part in left if len(part)]
        return [part for part in taken if len(part)]

    def _read(self, path: Path) -> Iterator[Points]:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                if len(table):
                    columns = [table[name].to_numpy() for name in ("step", "time_ms", "row_time_ms")]
                    steps, times_ms, rows = columns
                    yield Points(steps, self._numbers_of(table["key"]), times_ms, rows.view(np.float64))

    def _numbers_of(self, column: Any) -> Int64s:
        keys = column.combine_chunks()
        keys = keys.chunk(0) if isinstance(keys, pa.ChunkedArray) else keys
        if not isinstance(keys, pa.DictionaryArray):
            keys = keys.dictionary_encode()
        # A key that no row had so far gets its number now: its first row may come later in this group.
        names = keys.dictionary.to_pylist()
        numbers = np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names], dtype=np.int64)
        positions: Int64s = keys.indices.to_numpy()
        return numbers[positions]


def _places(points: Points, some: Points) -> Int64s:
    """Where in `points` each of some (step, key) stands; -1 = nowhere. The later one where it stands twice."""
    steps, ordinals = np.unique(points.steps, return_inverse=True)
    width = max(int(points.keys.max()), int(some.keys.max())) + 1
    codes = ordinals * width + points.keys
    order = np.argsort(codes, kind="stable")
    nearest = np.minimum(np.searchsorted(steps, some.steps), len(steps) - 1)
    wanted = nearest * width + some.keys
    at = np.searchsorted(codes[order], wanted, side="right") - 1
    places = order[np.maximum(at, 0)]
    is_there = (at >= 0) & (codes[places] == wanted) & (steps[nearest] == some.steps)
    found: Int64s = np.where(is_there, places, np.int64(-1))
    return found
