"""How fast a Neptune 3.x server is read: a long series against neptune-query's own table, and many small runs over a
slow network against one request at a time. The server is ours and executes in a process of its own."""

from __future__ import annotations

import time
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.workload import Rates, answer_until_told, parse_arguments, served, show, thousands
from shardmig.adapters.base import Want
from shardmig.adapters.neptune3 import open_source
from shardmig.archive.files import DigestSink
from shardmig.records import FloatPoints, ProjectId, Selection
from tests.contract.neptune3.filling import CREATED_MS, add_long_series, append, assign, create
from tests.servers.neptune3.server import Neptune3, neptune3_server

PROJECT = ProjectId("bench/project")
LONG_POINTS = {False: 100_000, True: 1_000_000}
SMALL_RUNS = {False: 30, True: 500}
LATENCY_S = 0.05
SERIES, POINTS = 4, 50


class Reading(NamedTuple):
    """What one reading took."""

    wall_s: float
    cpu_s: float


def write_long(server: Neptune3, points: int) -> None:
    """One run of one series."""
    create(server, PROJECT, "long")
    add_long_series(server, PROJECT, "long", "metrics/loss", points)


def write_small(server: Neptune3, runs: int) -> None:
    """Runs of twenty parameters and a few short series, behind a slow network."""
    for run in range(runs):
        create(server, PROJECT, f"run-{run}")
        assign(server, PROJECT, f"run-{run}", {f"params/{number}": number for number in range(20)})
        for number in range(SERIES):
            points = [(step, CREATED_MS + step, step / 7) for step in range(POINTS)]
            append(server, PROJECT, f"run-{run}", f"metrics/{number}", points)
    server.latency_s = LATENCY_S


def serve(pipe: Connection, kind: str, size: int) -> None:
    """A server with such runs."""
    with neptune3_server() as server:
        {"long": write_long, "small": write_small}[kind](server, size)
        answer_until_told(pipe, server.token, server.requests)


def read(connections: int) -> Reading:
    """Everything through the adapter; files are none, and the archive is left out."""
    source = open_source({"connections": str(connections)})
    runs = list(source.list_runs(PROJECT, Selection()))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    chunks = (piece.chunk for piece in source.read_runs(runs, Want(), DigestSink()))
    assert sum(int(chunk.lengths.sum()) for chunk in chunks if isinstance(chunk, FloatPoints))
    source.close()
    return Reading(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def read_with_the_client() -> float:
    """Seconds of neptune-query's `fetch_metrics`."""
    import neptune_query.runs as client

    started = time.perf_counter()
    client.fetch_metrics(project=PROJECT, runs=["long"], attributes=["metrics/loss"], include_time="absolute")
    return time.perf_counter() - started


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    points, runs = LONG_POINTS[arguments.full], SMALL_RUNS[arguments.full]
    long, small, rows = Rates(arguments.repeats), Rates(1), []
    with served(serve, "long", points):
        ways = {"neptune-query": read_with_the_client, "shardmig": lambda: read(16).wall_s}
        long.measure(ways)
        cpu_s = read(16).cpu_s
    with served(serve, "small", runs) as requests:
        small.measure({f"{number} connections": partial(lambda one: read(one).wall_s, number) for number in (1, 16)})
    for way in long.names():
        seconds = long.seconds(way)
        ratio = f"{long.seconds('neptune-query') / seconds:.1f}"
        rows.append([f"{points} points: {way}", f"{seconds:.2f} s", thousands(points, seconds), ratio])
    for way in small.names():
        seconds = small.seconds(way)
        ratio = f"{small.seconds('1 connections') / seconds:.1f}"
        total = runs * SERIES * POINTS
        rows.append([f"{runs} runs: {way}", f"{seconds:.2f} s", thousands(total, seconds), ratio])
    asked = requests[0] / (2 * runs)
    title = f"reading Neptune 3.x; {thousands(points, cpu_s)} a core; {asked:.2f} requests a run, listing included"
    show(title, ("what", "time", "rate", "times as fast"), rows)


if __name__ == "__main__":
    main()
