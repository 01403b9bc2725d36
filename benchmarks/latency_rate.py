"""How writers and the budget get along with a tracking server that is far away.

An `mlflow server` stands behind a proxy that holds every request back for 100 ms. An archive of small runs is loaded by 1, 4
and 16 writers: workers with one connection each, so that one of them is the sequential client. Once without files, when
the server's processors soon have no rest, and once with some small files a run, when it is the distance that counts.
Seconds are from the first to the last request, as the proxy sees them: starting processes is not what is measured. Then
with a budget, and the most requests that any window of one second held. --plot FILE.svg draws the figure of the docs.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import signal
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.workload import (
    PROJECT,
    Databases,
    Shape,
    archive_in,
    chunks_of,
    figure_in,
    parse_arguments,
    publish,
    scratch,
    shardmig,
    show,
)
from shardmig.archive.files import ArchiveFiles
from shardmig.records import Chunk, Files, Header
from tests.servers.mlflow import MlflowServer, mlflow_server

SHAPES = {False: {0: Shape(4, 2, 10)}, True: {0: Shape(256, 5, 20), 12: Shape(96, 5, 20)}}
"""By files a run."""
WRITERS = {False: (1, 4), True: (1, 4, 16)}
BUDGETS_PER_S = {False: 10, True: 30}
LATENCY_S: Final = 0.1
SERVER_WORKERS: Final = 4
_REQUEST: Final = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) /")


class Seen(NamedTuple):
    """What the proxy saw of a load."""

    requests: int
    seconds: float
    most_in_a_second: int


class Loads(NamedTuple):
    """One archive, loaded by 1 and more writers; by the most of them with a budget, too."""

    shape: Shape
    files: int
    by_writers: dict[int, Seen]
    budgeted: Seen | None

    def rows(self, budget: int) -> Iterator[list[str]]:
        """Of the table."""
        named = {str(writers): seen for writers, seen in self.by_writers.items()}
        if self.budgeted is not None:
            named[f"{max(self.by_writers)}, {budget} requests/s"] = self.budgeted
        for name, seen in named.items():
            yield [
                *(str(self.shape), str(self.files), name, str(seen.requests), f"{seen.seconds:.1f} s"),
                f"{self.by_writers[1].seconds / seen.seconds:.1f}",
                *(f"{seen.requests / seen.seconds:.1f}", str(seen.most_in_a_second)),
            ]


def main() -> None:
    arguments = parse_arguments(__doc__ or "", _more)
    budget, writers = BUDGETS_PER_S[arguments.full], WRITERS[arguments.full]
    found = [measure(shape, files, writers, budget) for files, shape in SHAPES[arguments.full].items()]
    columns = ["runs x series x points", "files a run", "writers", "requests", "took"]
    columns += ["times sequential", "requests/s", "most in 1 s"]
    rows = [row for loads in found for row in loads.rows(budget)]
    show(f"Loading into mlflow server over {LATENCY_S * 1000:g} ms", columns, rows)
    if arguments.plot is not None:
        draw(arguments.plot, found)


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--plot", type=Path, help="write the figure, an SVG file")


def measure(shape: Shape, files: int, writers: tuple[int, ...], budget: int) -> Loads:
    """Load one archive again and again. With a budget only where the server could take more."""
    with scratch() as folder:
        for number in range(shape.runs):
            publish(folder, with_files(chunks_of(shape, number), files, folder))
        database = Databases(folder).fresh()
        with mlflow_server(database.parent, database, workers=SERVER_WORKERS) as server:
            load(folder, server, max(writers))  # its processes start, and import at their first requests
            seen = {count: load(folder, server, count) for count in writers}
            budgeted = None if files else load(folder, server, max(writers), per_s=budget)
    return Loads(shape, files, seen, budgeted)


def draw(file: Path, found: list[Loads]) -> None:
    """How many times as fast as one writer, by writers."""
    with figure_in(file, 1, 5) as axes:
        for loads in found:
            writers, seen = list(loads.by_writers), list(loads.by_writers.values())
            times = [seen[0].seconds / one.seconds for one in seen]
            axes.loglog(writers, times, marker="o", base=2, label=f"{loads.files} files a run")
        axes.loglog(writers, writers, "k:", base=2, label="as many times as writers")
        axes.set(xlabel="writers", ylabel="times one writer", title=f"{LATENCY_S * 1000:g} ms away")
        axes.legend()


def with_files(chunks: Iterator[Chunk], count: int, folder: Path) -> Iterator[Chunk]:
    """The same run with so many files of 4 kB."""
    store = ArchiveFiles(archive_in(folder), PROJECT)
    for chunk in chunks:
        if isinstance(chunk, Header) and count:
            run = chunk.run
            names = [f"file-{number:02}.bin" for number in range(count)]
            refs = [store.put(run, f"files/{name}", "file", BytesIO(bytes(4096)), name=name) for name in names]
            yield from (chunk, Files(refs))
        else:
            yield chunk


def load(folder: Path, server: MlflowServer, writers: int, *, per_s: float = 0) -> Seen:
    """Load the archive with so many writers, and what the proxy saw of it."""
    server.forget_runs()
    archive = archive_in(folder)
    with far_away(server.port) as proxy:
        options = {"connections": 1, "artifact-workers": 1, "requests-per-s": per_s}
        shardmig(
            folder,
            *("load", "--target", "mlflow", "--mlflow-tracking-uri", f"http://127.0.0.1:{proxy.port}"),
            *("-d", archive.data, "-f", archive.files, "--workers", str(writers)),
            *(word for name, value in options.items() for word in ("--target-option", f"{name}={value}")),
        )
        times_s = np.sort(np.array(proxy.times_s()))
    ends = np.searchsorted(times_s, times_s + 1.0)
    most = int((ends - np.arange(len(times_s))).max())
    return Seen(len(times_s), float(times_s[-1] - times_s[0]) + LATENCY_S, most)


class Proxy(NamedTuple):
    """In a process of its own."""

    port: int
    pipe: Connection

    def times_s(self) -> list[float]:
        """When requests came, on one clock."""
        self.pipe.send("times")
        times_s: list[float] = self.pipe.recv()
        return times_s


@contextmanager
def far_away(port: int) -> Iterator[Proxy]:
    """A proxy to that port of this machine that holds back what goes there."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, port), daemon=True)
    process.start()
    try:
        yield Proxy(ours.recv(), ours)
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, port: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_Relay(port).serve(pipe))


class _Relay:
    def __init__(self, port: int) -> None:
        self._port = port
        self._times_s: list[float] = []

    async def serve(self, pipe: Connection) -> None:
        """Until the process is ended."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(self._times_s)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        there = self._pass(reader, there_writer, LATENCY_S)
        back = self._pass(there_reader, writer, 0.0)
        with suppress(ConnectionError):
            await asyncio.gather(there, back)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency_s: float) -> None:
        clock = asyncio.get_running_loop().time
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            content = b"begin"
            while content:
                due_s, content = await late.get()
                await asyncio.sleep(max(0.0, due_s - clock()))
                writer.write(content)
                await writer.drain()
            writer.close()

        delivery = asyncio.create_task(deliver())
        content = b"begin"
        while content:
            content = await reader.read(1 << 16)
            if latency_s and _REQUEST.match(content):
                self._times_s.append(clock())
            late.put_nowait((clock() + latency_s, content))
        await delivery


if __name__ == "__main__":
    main()
