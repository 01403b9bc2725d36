"""How fast points go into Lightning, by requests of 1000 and without a budget, against the bare call of the SDK with
ready-made objects; and how fast they are read back, against the SDK's own models. The server is ours and executes in a
process of its own, so the figures are of the client's side."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.workload import Rates, Shape, chunks_of, parse_arguments, show, thousands
from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.litlogger import open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, FloatPoints, Header, LoadOptions, ProjectId
from tests.servers.lightning.server import lightning_server

SHAPES = {False: Shape(1, 20, 2_000), True: Shape(1, 20, 25_000)}
BARE = {"requests-per-s": "0"}


def _serve(pipe: Connection) -> None:
    with lightning_server() as server:
        server.store.create_teamspace("bare")
        pipe.send(server.environment)
        pipe.recv()


@contextmanager
def served() -> Iterator[None]:
    """A server in its own process, its key in the environment."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    os.environ |= ours.recv()
    try:
        yield
    finally:
        ours.send("end")
        process.join()


class Bare:
    """The SDK's own calls, with objects that are made beforehand."""

    def __init__(self, shape: Shape) -> None:
        from litlogger.api.client import LitRestClient
        from litlogger.api.metrics_api import MetricsApi
        from litlogger.types import Metrics, MetricValue

        self._api: Any = MetricsApi(client=LitRestClient(max_retries=0))
        [self._teamspace] = self._api.client.projects_service_list_memberships().memberships
        self._numbers = count()
        times = [datetime.fromtimestamp(1_700_000_000 + step, UTC) for step in range(shape.points)]
        values = [MetricValue(1 / (step + 1), step, times[step]) for step in range(shape.points)]
        starts = range(0, shape.points, 1000)
        names = [f"metrics/m{number}" for number in range(shape.series)]
        self._requests = [[Metrics(name, values[start : start + 1000])] for name in names for start in starts]

    def write(self) -> float:
        """Seconds of appending everything to a new experiment."""
        project, name = self._teamspace.project_id, f"bare-{next(self._numbers)}"
        self._stream = self._api.create_experiment_metrics(project, name, store_created_at=True)
        started = time.perf_counter()
        for request in self._requests:
            self._api.append_experiment_metrics(project, self._stream.id, request)
        return time.perf_counter() - started

    def read(self) -> float:
        """Seconds of reading it back as the SDK's models."""
        started = time.perf_counter()
        self._api.client.lit_logger_service_get_logger_metrics(
            project_id=self._teamspace.project_id, ids=[self._stream.id]
        )
        return time.perf_counter() - started


class Ours:
    """The write side, with all that it does for a run."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._shape = shape
        self._numbers = count()
        self._files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), ProjectId("bench"))

    def write(self) -> float:
        """Seconds of writing a new run."""
        chunks = list(chunks_of(self._shape, next(self._numbers)))
        header = chunks[0]
        assert isinstance(header, Header)
        self._key = migration_key(header.run)
        target = open_target(BARE, LoadOptions(step_multiplier=1))
        started = time.perf_counter()
        target.write_run(self._key, "d" * 32, iter(chunks), self._files, None)
        target.close()
        return time.perf_counter() - started

    def read(self) -> float:
        """Seconds of reading it back."""
        target = open_target(BARE, LoadOptions(step_multiplier=1))
        held = target.find_run(self._key)
        assert held is not None
        started = time.perf_counter()
        pieces = target.read_run(held, Want(), DigestSink())
        points = sum(int(piece.chunk.lengths.sum()) for piece in pieces if isinstance(piece.chunk, FloatPoints))
        assert points == self._shape.total
        target.close()
        return time.perf_counter() - started


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    shape = SHAPES[arguments.full]
    writing, reading, rows = Rates(arguments.repeats), Rates(arguments.repeats), []
    with served(), TemporaryDirectory() as folder:
        bare, ours = Bare(shape), Ours(shape, Path(folder))
        writing.measure({"the bare call": bare.write, "shardmig": ours.write})
        reading.measure({"the bare call": bare.read, "shardmig": ours.read})
    for what, rates in (("write", writing), ("read", reading)):
        for way in rates.names():
            seconds = rates.seconds(way)
            ratio = f"{rates.seconds('the bare call') / seconds:.2f}"
            rows.append([f"{what}: {way}", f"{seconds:.2f} s", thousands(shape.total, seconds), ratio])
    show(f"Lightning, {shape} points, a local server, no budget", ("what", "time", "rate", "times as fast"), rows)


if __name__ == "__main__":
    main()
