"""How writers and the budget get along with a tracking server that is far away.

An `mlflow server` stands behind a proxy that holds every request back for 100 ms. An archive of small runs is loaded by 1, 4
and 16 writers: workers with one connection each, so that one of them is the sequential client. Seconds are from the first to
the last request, as the proxy sees them: starting processes is not what is measured. Then once more with a
budget, and the most requests that any window of one second held.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.workload import Databases, Shape, parse_arguments, scratch, shardmig, show, write_archive
from tests.servers.mlflow import MlflowServer, mlflow_server

SHAPES = {False: Shape(4, 2, 10), True: Shape(320, 5, 20)}
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


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    shape, budget = SHAPES[arguments.full], BUDGETS_PER_S[arguments.full]
    with scratch() as folder:
        write_archive(folder, shape)
        database = Databases(folder).fresh()
        with mlflow_server(database.parent, database, workers=SERVER_WORKERS) as server:
            seen = {f"{count} writers": load(folder, server, count) for count in WRITERS[arguments.full]}
            most = max(WRITERS[arguments.full])
            seen[f"{most} writers, {budget} requests/s"] = load(folder, server, most, per_s=budget)
    sequential = seen["1 writers"].seconds
    rows = [
        [
            name,
            str(one.requests),
            f"{one.seconds:.1f} s",
            f"{sequential / one.seconds:.1f}",
            f"{one.requests / one.seconds:.1f}",
            str(one.most_in_a_second),
        ]
        for name, one in seen.items()
    ]
    columns = ["into mlflow server", "requests", "took", "times sequential", "requests/s", "most in 1 s"]
    show(f"Loading {shape} points over {LATENCY_S * 1000:g} ms", columns, rows)


def load(folder: Path, server: MlflowServer, writers: int, *, per_s: float = 0) -> Seen:
    """Load the archive with so many writers, and what the proxy saw of it."""
    server.forget_runs()
    with far_away(server.port) as proxy:
        options = {"connections": 1, "artifact-workers": 1, "requests-per-s": per_s}
        shardmig(
            folder,
            *("load", "--target", "mlflow", "--mlflow-tracking-uri", f"http://127.0.0.1:{proxy.port}"),
            *("-d", folder / "archive" / "data", "-f", folder / "archive" / "files", "--workers", str(writers)),
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
