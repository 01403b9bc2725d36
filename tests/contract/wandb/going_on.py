"""A run as shardmig brings it, and people who go on with it: by W&B's own client, in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.source import open_source
from shardmig.archive.digest import RunDigest
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    Files,
    Finding,
    FloatPoints,
    Header,
    HistogramPoints,
    Histograms,
    Int64s,
    LoadOptions,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    Steps,
    StringPoints,
    TargetRunId,
    Texts,
)
from tests.contract.wandb.foreign_runs import PNG, START_MS

RUN = RunRef(project=ProjectId("ws/kept"), id=RunId("R-1"), created_ms=START_MS)
MULTIPLIER = 10
_GO_ON = """
import sys, time, wandb, numpy as np
mode, root, entity, project, run_id = sys.argv[1:]
settings = wandb.Settings(mode=mode, root_dir=root, silent=True, disable_git=True, x_save_requirements=False,
                          x_stats_sampling_interval=1)
resume = "must" if mode == "online" else None
run = wandb.init(project=project, entity=entity or None, id=run_id, resume=resume, settings=settings)
run.config.update({"later": {"a": 1, "none": None}, "sizes": [1, "2"]})
run.name, run.notes, run.tags = "renamed", "well done", (*(run.tags or ()), "good")
for number in range(3):
    row = {"accuracy": number / 3, "deep": {"x": number}, "flag": number == 1, "word": f"w{number}", "huge": 2**60 + 1}
    row["weights"] = row["spread"] = wandb.Histogram(np_histogram=(np.array([1, 2]), np.array([0.0, 0.1, 0.7])))
    row["shot"] = wandb.Image(np.zeros((2, 2, 3), dtype=np.uint8), caption=f"image {number}")
    run.log(row)
run.summary["best"] = 7
if mode == "offline":  # the local server takes no artifacts
    artifact = wandb.Artifact("model", "model", metadata={"acc": 1})
    with artifact.new_file("w.txt") as file:
        file.write("version 1")
    run.log_artifact(artifact)
time.sleep(2)  # for a measurement
run.finish(exit_code=3)
wandb.teardown()
"""


def sample(folder: Path) -> tuple[list[Chunk], ArchiveFiles]:
    """A run with a field of each kind, and its files."""
    files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), RUN.project)
    facts = {"sys/description": "about", "sys/name": "an experiment", "text": "x" * 120_000}
    scalars = [Field(path, "string", text) for path, text in facts.items()]
    scalars += [Field("params/lr", "float", 0.1), Field("sys/tags", "string_set", ["one", "two"])]
    refs = [
        files.put(RUN, "image", "file_series", io.BytesIO(PNG), name="a.png", step=Decimal(1)),
        files.put(RUN, "notes", "file", io.BytesIO(b"own"), name="notes.txt"),
    ]
    numbers = np.array([1.0, -0.0, float("nan"), 4.0])
    counts, edges = np.arange(6, dtype=np.float64), np.tile([0.0, 0.5, 1.0], 3)
    histograms = Histograms(["COUNTING"] * 3, np.full(3, 3), edges, np.full(3, 2), counts)
    return [
        Header(RUN, "test", "1"),
        Fields(sorted(scalars, key=lambda field: field.path)),
        Files(refs),
        FloatPoints(["metrics/loss"], *_places(4), numbers),
        StringPoints(["log"], *_places(3), Texts.from_list(["a", "b", "c"])),
        HistogramPoints(["weights"], *_places(3), histograms),
        End(),
    ], files


def bring(
    chunks: list[Chunk], files: ArchiveFiles, options: dict[str, str], multiplier: int = MULTIPLIER
) -> TargetRunId:
    """Load it, with its digest."""
    digest = RunDigest()
    for chunk in chunks:
        digest.add(chunk)
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target(options, LoadOptions(step_multiplier=multiplier))
    try:
        return target.write_run(migration_key(header.run), digest.digest(), iter(chunks), files, None).id
    finally:
        target.close()


def go_on(mode: str, root: Path, place: tuple[str, str, str]) -> None:
    """Resume the run at a place (entity, project, id): config, history of every kind, summary, name, notes, tags, its end."""
    root.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", _GO_ON, mode, str(root), *place], env=os.environ, check=True, timeout=200)


class Read:
    """A run as the source gives it."""

    def __init__(self, options: dict[str, str], selection: Selection | None = None) -> None:
        source = open_source(options)
        (self.ref,) = source.list_runs(RUN.project, Selection())
        want = Want(selection=selection or Selection())
        self.chunks = [piece.chunk for piece in source.read_runs([self.ref], want, DigestSink())]

    @property
    def values(self) -> dict[str, Any]:
        """Scalars by path."""
        return {field.path: field.value for chunk in self.chunks if isinstance(chunk, Fields) for field in chunk.fields}

    @property
    def findings(self) -> list[Finding]:
        """What the source tells of it."""
        end = self.chunks[-1]
        assert isinstance(end, End)
        return end.findings

    @property
    def codes(self) -> set[tuple[str, str]]:
        """Codes and fields of these."""
        return {(finding.code, finding.field) for finding in self.findings}

    def steps_of(self, path: str) -> list[str]:
        """Of a series, or of a series of files."""
        refs = [ref for chunk in self.chunks if isinstance(chunk, Files) for ref in chunk.files if ref.path == path]
        points = [chunk for chunk in self.chunks if isinstance(chunk, FloatPoints | StringPoints | HistogramPoints)]
        steps = [part.steps.to_decimals() for chunk in points for name, part in chunk.series() if name == path]
        return [str(step) for some in steps for step in some] or [str(ref.step) for ref in refs]


def _places(count: int) -> tuple[Int64s, Steps, Int64s]:
    numbers = np.arange(count, dtype=np.int64)
    return np.array([count]), Steps(numbers), numbers * 1000 + START_MS
