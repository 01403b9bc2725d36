"""Synthetic archives of very many small runs, written far faster than an export could: one part a run, with its receipt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import PROJECT, START_MS, archive_in, publish, scratch
from shardmig.archive.layout import part_name, project_folder, sanitize
from shardmig.archive.published import PublishedRun
from shardmig.archive.receipts import footer_metadata
from shardmig.archive.table import DICTIONARY_COLUMNS
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    FloatPoints,
    Header,
    PartInfo,
    Receipt,
    RunId,
    RunRef,
    Steps,
)

_LENGTHS: Final = (5, 10, 20, 40, 80, 400)
"""Points of the one series that a run has, in turns."""


def write_many(folder: Path, runs: int) -> ArchivePaths:
    """An archive of so many runs of five fields and one short series. A reader can tell it from an exported one by its
    content alone; nothing is synced."""
    with scratch() as drafts:
        templates = [_template(drafts, points) for points in _LENGTHS]
    archive = archive_in(folder)
    into = project_folder(archive.data, PROJECT)
    into.mkdir(parents=True, exist_ok=True)
    for number in range(runs):
        table, receipt = templates[number % len(templates)]
        _write_run(into, RunId(f"RUN-{number:07}"), table, receipt)
    return archive


def _template(folder: Path, points: int) -> tuple[pa.Table, Receipt]:
    archive = publish(folder, _chunks_of(points))
    published = PublishedRun(project_folder(archive.data, PROJECT), sanitize("TEMPLATE"))
    assert published.receipt is not None
    return pq.read_table(published.first, read_dictionary=list(DICTIONARY_COLUMNS)), published.receipt


def _chunks_of(points: int) -> Iterator[Chunk]:
    yield Header(RunRef(project=PROJECT, id=RunId("TEMPLATE"), created_ms=START_MS), "benchmark", "1")
    yield Fields([Field(f"params/p{one}", "float", one / 3) for one in range(5)])
    steps = np.arange(points)
    yield FloatPoints(["metrics/loss"], np.array([points]), Steps(steps), START_MS + steps * 1000, 1 / (1 + steps))
    yield End()


def _write_run(folder: Path, run: RunId, table: pa.Table, template: Receipt) -> None:
    prefix = sanitize(run)
    receipt = msgspec.structs.replace(
        template,
        run=msgspec.structs.replace(template.run, id=run),
        parts=[PartInfo(part_name(prefix, 0), len(table))],
    )
    position = table.schema.get_field_index("run_id")
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array([run], pa.string()))
    renamed = table.set_column(position, "run_id", ids)
    with pa.OSFile(str(folder / part_name(prefix, 0)), "wb") as sink:
        writer: Any = pq.ParquetWriter(sink, renamed.schema, compression="none", store_schema=False)
        writer.write_table(renamed)
        writer.add_key_value_metadata(footer_metadata(receipt))
        writer.close()
