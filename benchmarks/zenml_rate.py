"""How many runs a second go into a local ZenML store, and how fast one of very many fields does, against ZenML's own client:
a model version, its metadata as one nested dictionary, and one saved artifact that is linked to it. The client is given
the last values only; shardmig stores every point."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.workload import PROJECT, Rates, Shape, chunks_of, parse_arguments, show, thousands
from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.zenml import open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, Fields, FloatPoints, Header, LoadOptions

SHAPES = {False: (Shape(20, 20, 100), Shape(1, 9_000, 10)), True: (Shape(100, 20, 1_000), Shape(1, 9_000, 100))}


class Ours:
    """The write side, and reading back as verify does."""

    def __init__(self) -> None:
        self._numbers = count()
        self._files = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), PROJECT)
        self._target = open_target({}, LoadOptions(step_multiplier=1))

    def write(self, shape: Shape) -> float:
        """Seconds of writing new runs."""
        runs = [list(chunks_of(shape, next(self._numbers))) for _ in range(shape.runs)]
        started = time.perf_counter()
        for chunks in runs:
            assert isinstance(chunks[0], Header)
            self._key = migration_key(chunks[0].run)
            self._target.write_run(self._key, "d" * 32, iter(chunks), self._files, None)
        return time.perf_counter() - started

    def read(self) -> float:
        """Seconds of reading the last run back."""
        held = self._target.find_run(self._key)
        assert held is not None
        started = time.perf_counter()
        pieces = self._target.read_run(held, Want(), DigestSink())
        assert sum(int(piece.chunk.lengths.sum()) for piece in pieces if isinstance(piece.chunk, FloatPoints))
        return time.perf_counter() - started


class Client:
    """What one writes by hand."""

    def __init__(self, folder: Path) -> None:
        from zenml.client import Client as ZenmlClient

        self._client = ZenmlClient()
        self._model = self._client.create_model(name="by hand")
        self._numbers = count()
        self._file = folder / "file.txt"
        self._file.write_text("some text")

    def write(self, shape: Shape) -> float:
        """Seconds of writing new runs."""
        from zenml import log_metadata, save_artifact
        from zenml.models import ModelVersionArtifactRequest

        runs = [list(chunks_of(shape, number)) for number in range(shape.runs)]
        started = time.perf_counter()
        for chunks in runs:
            version = self._client.create_model_version(self._model.id, name=f"run {next(self._numbers)}")
            metadata: dict[str, Any] = {
                "parameters": {
                    field.path: field.value for one in chunks if isinstance(one, Fields) for field in one.fields
                },
                "metrics": {
                    path: float(points.values[-1])
                    for one in chunks
                    if isinstance(one, FloatPoints)
                    for path, points in one.series()
                },
            }
            log_metadata(metadata, model_version_id=version.id)  # type: ignore[call-overload]
            artifact = save_artifact(self._file, "by hand file")
            link = ModelVersionArtifactRequest(model_version=version.id, artifact_version=artifact.id)
            self._client.zen_store.create_model_version_artifact_link(link)
        return time.perf_counter() - started


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    many, wide = SHAPES[arguments.full]
    rates = Rates(arguments.repeats)
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"ZENML_CONFIG_PATH": str(folder / "zenml"), "ZENML_ANALYTICS_OPT_IN": "false", "HOME": name}
        ours, client = Ours(), Client(folder)
        rates.measure(
            {
                "client": lambda: client.write(many),
                "ours": lambda: ours.write(many),
                "wide": lambda: ours.write(wide),
                "read wide": ours.read,
            }
        )
    rows = [
        [
            "ZenML's client, last values only",
            f"{rates.seconds('client'):.2f} s",
            f"{many.runs / rates.seconds('client'):.1f} runs/s",
        ],
        ["shardmig, every point", f"{rates.seconds('ours'):.2f} s", f"{many.runs / rates.seconds('ours'):.1f} runs/s"],
        [f"shardmig, {wide} points", f"{rates.seconds('wide'):.2f} s", thousands(wide.total, rates.seconds("wide"))],
        [
            "shardmig reads it back",
            f"{rates.seconds('read wide'):.2f} s",
            thousands(wide.total, rates.seconds("read wide")),
        ],
    ]
    show(f"ZenML's local store, {many} points", ("what", "time", "rate"), rows)


if __name__ == "__main__":
    main()
