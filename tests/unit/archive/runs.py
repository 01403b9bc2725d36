"""Runs for the archive's tests: made by hand, spooled and published as an export does it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from shardmig.adapters.base import Want
from shardmig.archive.layout import part_name, project_folder, sanitize
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.spool import RunSpool
from shardmig.archive.table import SCHEMA
from shardmig.archive.writer import compact
from shardmig.records import (
    NO_TIME,
    ArchivePaths,
    Chunk,
    End,
    FloatPoints,
    Header,
    Histograms,
    Piece,
    ProjectId,
    Receipt,
    RunId,
    RunRef,
    Selection,
    Steps,
    StringPoints,
    Texts,
)

RUN = RunRef(project=ProjectId("ws/proj"), id=RunId("RUN-1"))
EXPORTER_COLUMNS = SCHEMA.names[:14]


def paths_in(folder: Path) -> ArchivePaths:
    """An archive below `folder`."""
    return ArchivePaths(str(folder / "data"), str(folder / "files"))


def int64s(values: Iterable[int]) -> Any:
    """A column of integers."""
    return np.array(list(values), dtype=np.int64)


def floats(path: str, steps: Sequence[int], values: ArrayLike, *, scale: int = 0, times: Any = None) -> FloatPoints:
    """One float series."""
    times_ms = np.full(len(steps), NO_TIME) if times is None else int64s(times)
    return FloatPoints(
        [path], int64s([len(steps)]), Steps(int64s(steps), scale), times_ms, np.array(values, dtype=np.float64)
    )


def texts(path: str, steps: Sequence[int], values: Sequence[str]) -> StringPoints:
    """One string series."""
    times = np.full(len(steps), NO_TIME)
    return StringPoints([path], int64s([len(steps)]), Steps(int64s(steps)), times, Texts.from_list(values))


def histograms(rows: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Histograms:
    """A column of (kind, edges, values)."""
    return Histograms(
        [kind for kind, _, _ in rows],
        int64s(len(edges) for _, edges, _ in rows),
        np.array([edge for _, edges, _ in rows for edge in edges], dtype=np.float64),
        int64s(len(values) for _, _, values in rows),
        np.array([value for _, _, values in rows for value in values], dtype=np.float64),
    )


def spool_run(path: Path, chunks: Iterable[Chunk], run: RunRef = RUN, end: End | None = None) -> Path:
    """A spool with a whole run."""
    spool = RunSpool(path)
    spool.restart()
    for chunk in (Header(run), *chunks, end or End()):
        spool.append(Piece(run, chunk))
    spool.close()
    return path


def publish(folder: Path, chunks: Iterable[Chunk], run: RunRef = RUN, **options: Any) -> Receipt:
    """A published run."""
    folder.mkdir(parents=True, exist_ok=True)
    spool = spool_run(folder / "run.spool", chunks, run, options.pop("end", None))
    asked = {"asked": Selection(), "source": "test", "source_version": "1", "started_ms": 0, **options}
    return compact(spool, paths_in(folder), **asked)


def read(folder: Path, run: RunRef = RUN, **want: Any) -> list[Chunk]:
    """All chunks of a run of the archive below `folder`."""
    return [piece.chunk for piece in ArchiveReader(paths_in(folder), scratch=folder).read(run, Want(**want))]


def end_of(chunks: Sequence[Chunk]) -> End:
    """The End of a run."""
    assert isinstance(chunks[-1], End)
    return chunks[-1]


def points_of_kind(chunks: Iterable[Chunk], kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """The series of one kind, each chunk apart."""
    for chunk in chunks:
        if isinstance(chunk, kind):
            yield from chunk.series()


def parts_in(folder: Path, run: RunRef = RUN) -> list[str]:
    """File names of the published run's folder."""
    return sorted(os.listdir(project_folder(folder / "data", run.project, run.scope)))


def exporter_rows(rows: Iterable[Mapping[str, Any]], run: RunRef = RUN) -> pa.Table:
    """A table as neptune-exporter writes it: its 14 columns, nulls where a row says nothing."""
    schema = pa.schema([SCHEMA.field(name) for name in EXPORTER_COLUMNS])
    whole = [{"project_id": run.project, "run_id": run.id, **row} for row in rows]
    return pa.Table.from_pylist([{name: row.get(name) for name in EXPORTER_COLUMNS} for row in whole], schema)


def write_exporter_part(
    folder: Path, number: int, rows: Iterable[Mapping[str, Any]], run: RunRef = RUN, prefix: str = ""
) -> Path:
    """One part as neptune-exporter writes it."""
    place = project_folder(folder / "data", run.project, run.scope)
    place.mkdir(parents=True, exist_ok=True)
    path = place / part_name(prefix or sanitize(run.id), number)
    pq.write_table(exporter_rows(rows, run), path, compression="snappy")
    return path
