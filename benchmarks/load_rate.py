"""How fast runs are loaded, beside the best that the target itself can do.

SQLite: the bare limit is sqlite3's executemany of the same rows into the same MLflow schema, 10,000 a transaction,
and one statement for the latest values. HTTP: bare clients post ready-made log-batch requests to the same
`mlflow server`; the best number of them counts.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from benchmarks.workload import (
    Databases,
    Rates,
    Shape,
    archive_in,
    chunks_of,
    parse_arguments,
    scratch,
    shardmig,
    show,
    thousands,
    timed,
    write_archive,
)
from shardmig.adapters.base import migration_key
from shardmig.adapters.mlflow import open_target
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, FloatPoints, Header, LoadOptions
from tests.servers.mlflow import mlflow_server

SHAPES = {False: (Shape(4, 20, 250), Shape(1, 900, 10)), True: (Shape(50, 20, 1000), Shape(1, 9000, 10))}
ROWS_A_TRANSACTION = 10_000
METRICS_A_REQUEST = 1000
CLIENTS = (1, 2, 4, 8)
SERVER_WORKERS = 4
Rows = Iterator[tuple[str, float, int, int, bool, str]]


def rows_of(shape: Shape, number: int, run_id: str) -> Rows:
    for chunk in chunks_of(shape, number):
        if isinstance(chunk, FloatPoints):
            paths = chain.from_iterable(map(repeat, chunk.paths, chunk.lengths.tolist()))
            values, times_ms, steps = chunk.values.tolist(), chunk.times_ms.tolist(), chunk.steps.units.tolist()
            yield from zip(paths, values, times_ms, steps, repeat(False), repeat(run_id), strict=False)


def bare_insert(database: Path, shape: Shape) -> float:
    """Seconds of the inserts alone: the rows are there already, as tuples."""
    runs = [(f"{number:032x}", list(rows_of(shape, number, f"{number:032x}"))) for number in range(shape.runs)]
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        return timed(lambda: _insert(connection, runs))


def _insert(connection: sqlite3.Connection, runs: list[tuple[str, list[Any]]]) -> None:
    columns = "key, value, timestamp, step, is_nan, run_uuid"
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO runs (run_uuid, experiment_id) VALUES (?, 0)", [[run_id] for run_id, _ in runs])
    connection.execute("COMMIT")
    for _, rows in runs:
        left = iter(rows)
        while batch := list(islice(left, ROWS_A_TRANSACTION)):
            connection.execute("BEGIN")
            connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", batch)
            connection.execute("COMMIT")
    connection.execute(
        f"INSERT INTO latest_metrics ({columns}) SELECT {columns} FROM (SELECT *, row_number() OVER"
        " (PARTITION BY run_uuid, key ORDER BY step DESC, timestamp DESC, value DESC) AS place FROM metrics)"
        " WHERE place = 1"
    )


def write_side(tracking_uri: str, shape: Shape) -> float:
    """Seconds of the write side alone: opened before, its chunks in memory."""
    runs = [list(chunks_of(shape, number)) for number in range(shape.runs)]
    target = open_target({"tracking-uri": tracking_uri}, LoadOptions(step_multiplier=1))
    started = time.perf_counter()
    for number, chunks in enumerate(runs):
        header = chunks[0]
        assert isinstance(header, Header)
        files = ArchiveFiles(ArchivePaths("none", "none"), header.run.project)
        target.write_run(migration_key(header.run), f"{number:032x}", iter(chunks), files, None)
    took_s = time.perf_counter() - started
    target.close()
    return took_s


def whole_load(folder: Path, tracking_uri: str, archive: ArchivePaths, workers: int) -> float:
    """Seconds of `shardmig load` as a user executes it."""
    words = ("load", "--target", "mlflow", "--mlflow-tracking-uri", tracking_uri, "-d", archive.data)
    return shardmig(folder, *words, "-f", archive.files, "--workers", str(workers))


@contextmanager
def archive_of(folder: Path, shape: Shape) -> Iterator[Callable[[], ArchivePaths]]:
    """Gives the archive anew each time: a load leaves its journal beside it, and would have nothing left to do."""
    import shutil
    import tempfile

    made = write_archive(folder, shape)

    def fresh() -> ArchivePaths:
        copy = Path(tempfile.mkdtemp(dir=folder))
        shutil.copytree(Path(made.data).parent, copy / "archive")
        return archive_in(copy)

    yield fresh


def sqlite_rows(folder: Path, shape: Shape, repeats: int) -> list[list[str]]:
    databases = Databases(folder)
    with archive_of(folder, shape) as fresh:

        def loaded(workers: int) -> float:
            database = databases.fresh()
            return whole_load(database.parent, f"sqlite:///{database}", fresh(), workers)

        loaded(1)  # compiles bytecode and fills the caches of the file system
        rates = Rates(repeats)
        rates.measure(
            {
                "bare executemany": lambda: bare_insert(databases.fresh(), shape),
                "write side": lambda: write_side(f"sqlite:///{databases.fresh()}", shape),
                "shardmig load --workers 1": lambda: loaded(1),
                "shardmig load --workers 2": lambda: loaded(2),
            }
        )
    return table(rates, shape, "sqlite", "bare executemany")


def http_rows(folder: Path, shape: Shape, repeats: int) -> list[list[str]]:
    database = Databases(folder).fresh()
    with (
        archive_of(folder, shape) as fresh,
        mlflow_server(database.parent, database, workers=SERVER_WORKERS) as server,
    ):
        bodies = list(ready_made_batches(shape))

        def loaded(workers: int) -> float:
            server.forget_runs()
            return whole_load(folder, server.uri, fresh(), workers)

        def written() -> float:
            server.forget_runs()
            return write_side(server.uri, shape)

        loaded(2)  # a server's first requests are several times slower
        rates = Rates(repeats)
        rates.measure(
            {f"bare clients: {count}": partial(post, server.port, bodies, count) for count in CLIENTS}
            | {"write side": written}
            | {f"shardmig load --workers {count}": partial(loaded, count) for count in (1, 2, 4)}
        )
    best = min((f"bare clients: {count}" for count in CLIENTS), key=rates.seconds)
    return table(rates, shape, f"server, {SERVER_WORKERS} workers", best)


def ready_made_batches(shape: Shape) -> Iterator[tuple[int, bytes]]:
    """(run number, body without its run id) of log-batch requests that are as full as MLflow takes them."""
    for number in range(shape.runs):
        rows = rows_of(shape, number, "")
        while batch := list(islice(rows, METRICS_A_REQUEST)):
            names = ("key", "value", "timestamp", "step")
            yield number, json.dumps([dict(zip(names, row, strict=False)) for row in batch]).encode()


def post(port: int, batches: list[tuple[int, bytes]], clients: int) -> float:
    """Seconds in which so many clients post all batches to new runs; making the runs is not counted."""
    numbers = {number for number, _ in batches}
    connection = HTTPConnection("127.0.0.1", port)
    answers = {
        number: _posted(connection, "create", b'{"experiment_id": "0", "start_time": 1}') for number in sorted(numbers)
    }
    connection.close()
    runs = {number: json.loads(answer)["run"]["info"]["run_id"] for number, answer in answers.items()}
    bodies = [b'{"run_id": "%s", "metrics": %s}' % (runs[number].encode(), batch) for number, batch in batches]
    left, lock = iter(bodies), threading.Lock()

    def client() -> None:
        mine = HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                break
            _posted(mine, "log-batch", body)
        mine.close()

    with ThreadPoolExecutor(clients) as pool:
        return timed(lambda: wait([pool.submit(client) for _ in range(clients)]))


def _posted(connection: HTTPConnection, method: str, body: bytes) -> bytes:
    return asked(connection, "POST", f"/api/2.0/mlflow/runs/{method}", body)


def asked(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> bytes:
    """The answer of a server; it must be a good one."""
    connection.request(method, path, body, {"Content-Type": "application/json"})
    if hasattr(socket, "TCP_QUICKACK"):  # else the server's answers wait for a delayed acknowledgement, 43 ms each
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise SystemExit(f"{path}: {response.status} {content[:300]!r}")
    return content


def table(rates: Rates, shape: Shape, target: str, limit: str) -> list[list[str]]:
    return [
        [target, str(shape), name, f"{seconds:.2f} s", thousands(shape.total, seconds), f"{limit_s / seconds:.0%}"]
        for name, seconds, limit_s in ((name, rates.seconds(name), rates.seconds(limit)) for name in rates.names())
    ]


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--targets", nargs="+", choices=("sqlite", "http"), default=["sqlite", "http"])
    parser.add_argument(
        "--shapes", nargs="+", type=int, choices=(0, 1), default=[0, 1], help="0: many runs, 1: many series"
    )


def main() -> None:
    arguments = parse_arguments(__doc__ or "", _more)
    measure = {"sqlite": sqlite_rows, "http": http_rows}
    rows: list[list[str]] = []
    for target in arguments.targets:
        for shape in (SHAPES[arguments.full][number] for number in arguments.shapes):
            with scratch() as folder:
                rows += measure[target](folder, shape, arguments.repeats)
    show(
        "Loading: points/s beside the target's own limit",
        ("target", "runs x series x points", "way", "time", "rate", "of limit"),
        rows,
    )


if __name__ == "__main__":
    main()
