"""A run of several requests, and how it is written and read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardmig.adapters.base import FileStore, Want, WriteSide, Written, migration_key
from shardmig.adapters.conformance.runs import CREATED_MS, field_digests
from shardmig.adapters.litlogger import open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    Files,
    FloatPoints,
    Header,
    HistogramPoints,
    Histograms,
    LoadOptions,
    ProjectId,
    RunId,
    RunRef,
    Steps,
    StringPoints,
    Texts,
)

PROJECT = ProjectId("ws/project")
LOAD = LoadOptions(step_multiplier=1)
DIGEST = "d" * 32


class Sample(NamedTuple):
    """A run with 2,500 + 700 points, some that are not finite, a series of nothing else, a string series, a histogram
    series, a file and two pictures."""

    chunks: list[Chunk]
    files: FileStore

    @property
    def run(self) -> RunRef:
        header = self.chunks[0]
        assert isinstance(header, Header)
        return header.run

    def written(self, target: WriteSide, chunks: Iterator[Chunk] | None = None, digest: str = DIGEST) -> Written:
        """Write it, or of it what `chunks` holds."""
        stream = iter(self.chunks) if chunks is None else chunks
        return target.write_run(migration_key(self.run), digest, stream, self.files, None)

    def is_equal_in(self, target: WriteSide) -> bool:
        """Does the target give it back?"""
        held = target.find_run(migration_key(self.run))
        assert held is not None
        read = [piece.chunk for piece in target.read_run(held, Want(chunk_points=1000), DigestSink())]
        return held.state == "complete" and field_digests(read) == field_digests(self.chunks)


def sample(folder: Path, run_id: str = "RUN-1", project: ProjectId = PROJECT) -> Sample:
    """The run, its file stored below `folder`."""
    run = RunRef(project=project, id=RunId(run_id), created_ms=CREATED_MS)
    files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), project)
    model = files.put(run, "model", "file", io.BytesIO(bytes(range(256))), name="model.pt")
    pictures = [
        files.put(
            run, "pictures", "file_series", io.BytesIO(b"\x89PNG" + bytes([step])), name="a.png", step=Decimal(step)
        )
        for step in (0, 7)
    ]
    bins = Histograms(
        ["COUNTING"] * 2, np.array([3, 3]), np.arange(6.0), np.array([2, 2]), np.array([1.0, 2.0, 3.0, 0.0])
    )
    histograms = HistogramPoints(["histograms"], np.array([2]), Steps(np.arange(2)), CREATED_MS + np.arange(2), bins)
    texts = StringPoints(
        ["logs"], np.array([2]), Steps(np.arange(2)), CREATED_MS + np.arange(2), Texts.from_list(["a", "b"])
    )
    chunks: list[Chunk] = [
        Header(run, "test", "1"),
        Fields([Field("params/lr", "float", 0.1), Field("sys/failed", "bool", False)]),
        Files([model, *pictures]),
        histograms,
        *(_points("long", start, 500, 2500) for start in range(0, 2500, 500)),
        _points("other", 0, 700, 700),
        FloatPoints(
            ["rare"], np.array([3]), Steps(np.arange(3)), CREATED_MS + np.arange(3), np.array([np.nan, 1.0, np.inf])
        ),
        FloatPoints(
            ["sick"], np.array([2]), Steps(np.arange(2)), CREATED_MS + np.arange(2), np.array([np.nan, np.inf])
        ),
        texts,
        End(),
    ]
    return Sample(chunks, files)


def opened(load: LoadOptions = LOAD, **options: str) -> WriteSide:
    """The target, as fast as the server is unless `requests-per-s` says otherwise."""
    return open_target({"requests-per-s": "0"} | {name.replace("_", "-"): text for name, text in options.items()}, load)


def _points(path: str, start: int, count: int, total: int) -> FloatPoints:
    steps = np.arange(start, start + count)
    return FloatPoints([path], np.array([count]), Steps(steps), CREATED_MS + 1000 * steps, np.sin(steps / total))
