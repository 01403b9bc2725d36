"""What the benchmarks share: generated runs, archives and databases of them, and one small table at the end."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from shardmig.adapters.mlflow.database import prepare_database
from shardmig.archive.spool import RunSpool
from shardmig.archive.writer import compact
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    FloatPoints,
    Header,
    Int64s,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    Steps,
)
from tests.bytecode import keep_bytecode

ROOT = Path(__file__).parents[1]
PROJECT = ProjectId("bench/project")
START_MS = 1_700_000_000_000
CHUNK_POINTS = 250_000


class Shape(NamedTuple):
    """So many runs of so many series of so many points."""

    runs: int
    series: int
    points: int

    @property
    def total(self) -> int:
        """Points in all."""
        return self.runs * self.series * self.points

    def __str__(self) -> str:
        return f"{self.runs} x {self.series} x {self.points}"


def chunks_of(shape: Shape, number: int) -> Iterator[Chunk]:
    """One run: smooth curves with noise, one point a second, chunk by chunk."""
    random = np.random.default_rng(number)
    run = RunRef(project=PROJECT, id=RunId(f"RUN-{number}"), created_ms=START_MS)
    yield Header(run, "benchmark", "1")
    yield Fields([Field(f"params/p{one}", "float", one / 3) for one in range(20)])
    for paths, lengths, steps in _pages(shape):
        values = np.exp(-steps / shape.points) + 0.01 * random.normal(size=len(steps))
        yield FloatPoints(paths, lengths, Steps(steps), START_MS + steps * 1000, values)
    yield End()


def archive_in(folder: Path) -> ArchivePaths:
    """Where the archive of a benchmark lies."""
    return ArchivePaths(str(folder / "archive" / "data"), str(folder / "archive" / "files"))


def write_archive(folder: Path, shape: Shape) -> ArchivePaths:
    """A published archive of such runs."""
    for number in range(shape.runs):
        archive = publish(folder, chunks_of(shape, number))
    return archive


def publish(folder: Path, chunks: Iterator[Chunk]) -> ArchivePaths:
    """Publish one run in the archive below `folder`, as an export does."""
    archive = archive_in(folder)
    spool = RunSpool(folder / "run.spool")
    header = next(chunks)
    assert isinstance(header, Header)
    spool.append(Piece(header.run, header))
    for chunk in chunks:
        spool.append(Piece(header.run, chunk))
    spool.close()
    compact(spool.path, archive, asked=Selection(), source="benchmark", source_version="1", started_ms=0)
    spool.path.unlink()
    return archive


class Databases:
    """Fresh tracking databases: MLflow makes one, the others are copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        prepare_database(f"sqlite:///{self._template}")

    def fresh(self) -> Path:
        """A database without runs, in a folder of its own."""
        return Path(shutil.copy(self._template, Path(tempfile.mkdtemp(dir=self._folder)) / "mlflow.db"))


def shardmig(folder: Path, *words: str | Path) -> float:
    """Execute a command in `folder` and return its seconds, start of the interpreter included. It must succeed."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "shardmig", *map(str, words), "--no-progress"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    took_s = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(
            f"shardmig {' '.join(map(str, words))} ended with {done.returncode}:\n{done.stderr}{done.stdout}"
        )
    return took_s


def environment(folder: Path) -> dict[str, str]:
    """For commands and servers: nothing of the user's."""
    foreign = ("MLFLOW_", "NEPTUNE_", "SHARDMIG_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HOME": str(folder)}
    return own | quiet | {"PYTHONPATH": str(ROOT)}


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def served(serve: Callable[..., None], *arguments: object) -> Iterator[list[int]]:
    """A Neptune server in a process of its own: `serve(pipe, *arguments)`, which ends with `answer_until_told`. Its token
    stands in the environment. Gives a list that at the end holds the number of its requests."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, *arguments), daemon=True)
    process.start()
    os.environ["NEPTUNE_API_TOKEN"] = ours.recv()
    requests: list[int] = []
    try:
        yield requests
    finally:
        ours.send("end")
        requests.append(ours.recv())
        process.join()


def answer_until_told(pipe: Connection, token: str, requests: Counter[str]) -> None:
    """Of the process in which a server answers: let `served` know its token, and at the end its requests from now on."""
    requests.clear()
    pipe.send(token)
    pipe.recv()
    pipe.send(requests.total())


class Rates:
    """Rates of several ways, measured in turns: `repeats` rounds, the median counts."""

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._seconds: dict[str, list[float]] = {}

    def measure(self, ways: dict[str, Callable[[], float]]) -> None:
        """Let each way say how many seconds it took, round after round."""
        for _ in range(self._repeats):
            for name, way in ways.items():
                self._seconds.setdefault(name, []).append(way())

    def names(self) -> list[str]:
        """The ways, in the order of the first round."""
        return list(self._seconds)

    def seconds(self, name: str) -> float:
        """The median of a way."""
        return median(self._seconds[name])


def parse_arguments(description: str, extend: Callable[[ArgumentParser], object] = lambda _: None) -> Namespace:
    """--full and --repeats, and what the benchmark adds."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="the real sizes; without it only what CI can bear")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median counts (default: 3)")
    extend(parser)
    # A server without it compiles MLflow's module of basic authentication at every search of runs, in vain: 80 ms
    # (measured, 3.17.2 without Flask-WTF).
    keep_bytecode(Path(tempfile.gettempdir()) / f"shardmig-bench-bytecode-{os.getuid()}")
    return parser.parse_args()


@contextmanager
def figure_in(file: Path, columns: int, width: float) -> Iterator[Any]:
    """Axes beside each other to draw on, written as SVG at the end: the same bytes for the same figures."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "shardmig"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, 3.6), layout="constrained")
    yield axes
    figure.savefig(file, metadata={"Date": None})


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for everything, gone at the end. $TMPDIR says on which disk."""
    with tempfile.TemporaryDirectory(prefix="shardmig-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One table, with the machine and the command that made it."""
    widths = [max(len(row[column]) for row in [columns, *rows]) for column in range(len(columns))]
    command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()
    print(f"\n{title}\n{machine()}\n$ {command}\n")
    for row in [columns, ["-" * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def machine() -> str:
    """What this was measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{len(os.sched_getaffinity(0))} cores of {model}; Python {platform.python_version()}; load before the end {load}"


def thousands(points: float, seconds: float) -> str:
    """A rate in thousands a second."""
    return f"{points / seconds / 1000:.1f} k/s"


def _pages(shape: Shape) -> Iterator[tuple[list[str], Int64s, Int64s]]:
    """(paths, lengths, steps): whole series together, or a long one in parts."""
    together = max(1, CHUNK_POINTS // shape.points)
    for first in range(0, shape.series, together):
        paths = [f"metrics/train/loss_{series:05}" for series in range(first, min(first + together, shape.series))]
        for start in range(0, shape.points, CHUNK_POINTS):
            steps = np.arange(start, min(start + CHUNK_POINTS, shape.points))
            yield paths, np.full(len(paths), len(steps)), np.tile(steps, len(paths))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
