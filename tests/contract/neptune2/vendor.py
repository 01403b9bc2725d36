"""What the tests write with the vendor's own client, in sync mode, and how they read what was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.neptune2 import Neptune2Source
from shardmig.adapters.neptune2.options import parse_options
from shardmig.adapters.wrappers import RetryingSource, RetryPolicy
from shardmig.archive.files import DigestSink
from shardmig.records import (
    End,
    Field,
    Fields,
    FieldType,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Piece,
    ProjectId,
    RunRef,
    Selection,
    StringPoints,
)
from tests.servers.neptune2.server import NeptuneServer

PROJECT = ProjectId("ws/vision")
OTHER = ProjectId("other/nlp")
EVERYTHING = Selection(include_archived=True)
MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
POINTS = 2_345
QUICK = RetryPolicy(attempts=14, first_pause_s=0.01, longest_pause_s=0.2)
"""As many attempts as in earnest, and shorter pauses."""


@contextmanager
def client_run(server: NeptuneServer, project: str = PROJECT, **options: Any) -> Iterator[Any]:
    """A run of the real client that watches nothing by itself."""
    import neptune

    quiet: dict[str, Any] = {
        "capture_stdout": False,
        "capture_stderr": False,
        "capture_hardware_metrics": False,
        "git_ref": False,
    }
    access: dict[str, Any] = {"project": project, "api_token": server.api_token, "mode": "sync"}
    run = neptune.init_run(**access | quiet | {"source_files": []} | options)
    try:
        yield run
    finally:
        run.stop()


def write_projects(server: NeptuneServer, folder: Path) -> None:
    """Two projects with every type of attribute, a trashed run, a model with two versions."""
    import neptune
    from neptune import management

    server.store.add_project(PROJECT, "VIS")
    server.store.add_project(OTHER, "NLP")
    with client_run(server, custom_run_id="mine", name="first", tags=["b", "a"], description="d") as run:
        write_scalars(run)
        write_series(run)
        write_files(run, folder)
    with client_run(server) as run:
        run["note"] = "trashed"
    management.trash_objects(PROJECT, ["VIS-2"], api_token=server.api_token)
    with client_run(server, OTHER) as run:
        run["params/lr"] = 0.1
        run["metrics/loss"].extend([1.0, 0.5], steps=[0.29, 1.57], timestamps=[1.5, 2.5])
    access: dict[str, Any] = {"project": PROJECT, "api_token": server.api_token, "mode": "sync"}
    model = neptune.init_model(key="MOD", name="resnet", **access)
    model["signature"] = "image"
    model.stop()
    for accuracy in (0.5, 0.75):
        version = neptune.init_model_version(model="VIS-MOD", **access)
        version["accuracy"] = accuracy
        version["weights"].append(accuracy)
        version.change_stage("production" if accuracy > 0.6 else "staging")
        version.stop()


def write_scalars(run: Any) -> None:
    """Every scalar type that the client can write."""
    run["params/int"] = -(2**31)
    run["params/float"] = 0.1
    run["params/text"] = "żółw\n" * 100
    run["params/flag"] = True
    run["params/when"] = MOMENT
    run["sys/group_tags"].add(["g"])


def write_series(run: Any) -> None:
    """Series of more than two pages and of one point, with steps that are no integers."""
    steps = [number / 4 for number in range(POINTS)]
    times = [1_700_000_000 + number / 8 for number in range(POINTS)]
    run["metrics/loss"].extend([1 / (number + 1) for number in range(POINTS)], steps=steps, timestamps=times)
    run["metrics/one"].append(1.0, step=7, timestamp=1.0)
    lines = [f"line {number}" for number in range(130)]
    run["log/out"].extend(lines, timestamps=[1_700_000_000 + number for number in range(130)])


def write_files(run: Any, folder: Path) -> None:
    """A small and a large file, a file set, an artifact, images."""
    from neptune.types import File
    from PIL import Image

    run["files/note.v1"].upload(File.from_content("hello", extension="txt"))
    (folder / "large.bin").write_bytes(bytes(range(256)) * 1000)
    run["files/large"].upload(str(folder / "large.bin"))
    for name in ("tree/a.txt", "tree/deep/b.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    run["files/tree"].upload_files(str(folder / "tree"))
    run["files/tracked"].track_files(str(folder / "tree"))
    for number in range(3):
        run["images/rare"].append(File.as_image(Image.new("RGB", (4, 4), (number, 0, 0))), step=number * 10)
        run["images/each"].append(File.as_image(Image.new("RGB", (4, 4), (0, number, 0))))


def open_neptune2(**options: str) -> ReadSide:
    """The read side as a worker has it, but for shorter pauses; the token stands in the environment."""
    given = parse_options({name.replace("_", "-"): text for name, text in options.items()})
    return RetryingSource(Neptune2Source(given, patience=QUICK))


def listed(source: ReadSide, project: ProjectId = PROJECT, selection: Selection = EVERYTHING) -> list[RunRef]:
    """All runs of a project."""
    return list(source.list_runs(project, selection))


class Read:
    """A run as it was read: by path and type."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.fields: dict[str, Field] = {}
        self.files: dict[tuple[str, FieldType], list[FileRef]] = {}
        self.floats: dict[str, list[tuple[float, int, float]]] = {}
        self.texts: dict[str, list[tuple[float, int, str]]] = {}
        self.findings: list[Finding] = []
        for piece in pieces:
            self._take(piece)

    def _take(self, piece: Piece) -> None:
        match piece.chunk:
            case Fields(fields):
                self.fields |= {field.path: field for field in fields}
            case Files(files):
                for ref in files:
                    self.files.setdefault((ref.path, ref.type), []).append(ref)
            case FloatPoints() | StringPoints():
                for path, series in piece.chunk.series():
                    steps = (series.steps.units / 10**series.steps.scale).tolist()
                    times = series.times_ms.tolist()
                    if isinstance(series, FloatPoints):
                        values = np.asarray(series.values).tolist()
                        self.floats.setdefault(path, []).extend(zip(steps, times, values, strict=True))
                    else:
                        self.texts.setdefault(path, []).extend(zip(steps, times, series.values.to_list(), strict=True))
            case End():
                self.findings = piece.chunk.findings


def read(source: ReadSide, run: RunRef, **want: Any) -> Read:
    """One run, whole."""
    return Read(list(source.read_runs([run], Want(selection=EVERYTHING, **want), DigestSink())))
