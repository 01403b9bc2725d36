"""How fast a Neptune 2.x server is read: a long series against the vendor's own client, and many small runs over a slow
network against one request at a time. The server is ours and executes in a process of its own."""

from __future__ import annotations

import os
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.workload import Rates, answer_until_told, parse_arguments, served, show, thousands
from shardmig.adapters.base import Want
from shardmig.adapters.neptune2 import open_source
from shardmig.archive.files import DigestSink
from shardmig.records import FloatPoints, ProjectId, Selection
from tests.servers.neptune2.entities import Attribute, Series
from tests.servers.neptune2.server import NeptuneServer, neptune_server

PROJECT = ProjectId("bench/project")
LONG_POINTS = {False: 100_000, True: 1_000_000}
SMALL_RUNS = {False: 30, True: 500}
LATENCY_S = 0.05
SERIES, POINTS = 4, 50


class Reading(NamedTuple):
    """What one reading took."""

    wall_s: float
    cpu_s: float
    points: int


def write_long(server: NeptuneServer, points: int) -> None:
    """One run of one series."""
    run = server.store.add_entity(server.store.add_project(PROJECT, "BEN"), "run")
    steps = [float(number) for number in range(points)]
    run.attributes["metrics/loss"] = Attribute("floatSeries", Series(steps, list(range(points)), steps))


def write_small(server: NeptuneServer, runs: int) -> None:
    """Runs of twenty parameters and a few short series, behind a slow network."""
    project = server.store.add_project(PROJECT, "BEN")
    steps = [float(number) for number in range(POINTS)]
    for _ in range(runs):
        run = server.store.add_entity(project, "run")
        for number in range(20):
            run.put(f"params/{number}", "int", number)
        for number in range(SERIES):
            run.attributes[f"metrics/{number}"] = Attribute("floatSeries", Series(steps, list(range(POINTS)), steps))
    server.faults.latency_s = LATENCY_S


def serve(pipe: Connection, kind: str, size: int) -> None:
    """A server with such runs."""
    with neptune_server() as server:
        {"long": write_long, "small": write_small}[kind](server, size)
        answer_until_told(pipe, server.api_token, server.requests)


def read(connections: int) -> Reading:
    """Everything through the adapter; files are none, and the archive is left out."""
    source = open_source({"connections": str(connections), "scopes": "runs"})
    runs = list(source.list_runs(PROJECT, Selection()))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    chunks = (piece.chunk for piece in source.read_runs(runs, Want(), DigestSink()))
    points = sum(int(chunk.lengths.sum()) for chunk in chunks if isinstance(chunk, FloatPoints))
    source.close()
    return Reading(time.perf_counter() - wall_s, time.process_time() - cpu_s, points)


def read_with_the_client() -> float:
    """Seconds of the vendor's `fetch_values`, without opening the run."""
    import neptune

    run = neptune.init_run(project=PROJECT, with_id="BEN-1", mode="read-only")
    started = time.perf_counter()
    run["metrics/loss"].fetch_values(include_timestamp=True, progress_bar=False)
    took_s = time.perf_counter() - started
    run.stop()
    return took_s


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    points, runs = LONG_POINTS[arguments.full], SMALL_RUNS[arguments.full]
    long, small, rows = Rates(arguments.repeats), Rates(1), []
    with served(serve, "long", points):
        ways = {"the neptune client": read_with_the_client, "shardmig": lambda: read(16).wall_s}
        long.measure(ways)
        cpu_s = read(16).cpu_s
    with served(serve, "small", runs) as requests:
        small.measure({f"{number} connections": partial(lambda one: read(one).wall_s, number) for number in (1, 16)})
    for way in long.names():
        ratio = f"{long.seconds('the neptune client') / long.seconds(way):.1f}"
        rows.append(
            [f"{points} points: {way}", f"{long.seconds(way):.2f} s", thousands(points, long.seconds(way)), ratio]
        )
    for way in small.names():
        ratio = f"{small.seconds('1 connections') / small.seconds(way):.1f}"
        total = runs * SERIES * POINTS
        rows.append([f"{runs} runs: {way}", f"{small.seconds(way):.2f} s", thousands(total, small.seconds(way)), ratio])
    asked = requests[0] / (2 * runs) - SERIES
    title = f"reading Neptune 2.x; {thousands(points, cpu_s)} a core; {asked:.2f} requests a run beside {SERIES} pages"
    show(title, ("what", "time", "rate", "times as fast"), rows)


if __name__ == "__main__":
    main()
