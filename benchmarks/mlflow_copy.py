"""How fast one MLflow is copied into another, beside mlflow-export-import's way of reading and writing.

Between two servers, between two databases through an archive, database to database, and traces alone. The baseline is
`mlflow_plain`; with --tool FOLDER (its executables) the tool itself is tried, too. Between servers the limit is one bare
client: it reads with get-history-bulk, posts full log-batch requests, and keeps nothing. CPU is that of the
copying processes, without servers. Lost: what one database holds and the other does not, by SQL: runs with their times
and status, params, series with all points, spans, and artifacts by name.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Param

from benchmarks.load_rate import METRICS_A_REQUEST, SERVER_WORKERS, asked
from benchmarks.workload import START_MS, Databases, environment, parse_arguments, scratch, show
from tests.contract.mlflow_source.plain_traces import make_trace
from tests.servers.mlflow import MlflowServer, mlflow_server

RUNS_A_REQUEST = 20
RUN_MS = 3_600_000
"""One run begins when the one before it ends."""
COLUMNS = ("copied", "way", "wall", "CPU", "times faster", "times less CPU", "lost")


class Size(NamedTuple):
    """So many of each."""

    experiments: int
    runs: int
    metrics: int
    points: int
    traces: int

    def __str__(self) -> str:
        return f"{self.experiments} experiments x {self.runs} runs x {self.metrics} metrics x {self.points} points"


SIZES = {False: Size(2, 5, 10, 200, 10), True: Size(5, 40, 20, 500, 60)}
TRACES = {False: Size(1, 0, 0, 0, 60), True: Size(2, 0, 0, 0, 1000)}


class Took(NamedTuple):
    """Of one copy. `lost`: how many of each kind."""

    wall_s: float
    cpu_s: float
    lost: Counter[str]


def fill(uri: str, database: Path, size: Size, location: Path | None) -> None:
    """Make the source. Points go into the database itself: nobody measures how long that takes."""
    client = MlflowClient(uri)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "model/weights.bin"):
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_bytes(os.urandom(20_000))
        for number in range(size.experiments):
            name = f"experiment {number}"
            experiment = client.create_experiment(name, str(location / name) if location else None)
            for run_number in range(size.runs):
                _run(client, experiment, run_number, folder)
            for trace in range(number * size.traces, (number + 1) * size.traces):
                make_trace(client, experiment, trace + 1)
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        _points(connection, size)


def _run(client: MlflowClient, experiment: str, number: int, folder: str) -> None:
    start_ms = START_MS + number * RUN_MS
    run = client.create_run(experiment, start_ms, {"team": "a"}, f"run {number}").info.run_id
    client.log_batch(run, params=[Param(f"p{one}", str(one / 7)) for one in range(20)])
    client.log_artifacts(run, folder)
    client.set_terminated(run, end_time=start_ms + RUN_MS)


def _points(connection: sqlite3.Connection, size: Size) -> None:
    steps = np.arange(size.points)
    columns = "key, value, timestamp, step, is_nan, run_uuid"
    for number, (run,) in enumerate(connection.execute("SELECT run_uuid FROM runs ORDER BY rowid").fetchall()):
        random = np.random.default_rng(number)
        for metric in range(size.metrics):
            values = np.exp(-steps / size.points) + 0.01 * random.normal(size=size.points)
            times_ms = START_MS + number * RUN_MS + steps * 1000
            key = f"train/metric_{metric}"
            rows = zip(
                itertools.repeat(key),
                values.tolist(),
                times_ms.tolist(),
                steps.tolist(),
                itertools.repeat(0),
                itertools.repeat(run),
            )
            connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
            last = (key, float(values[-1]), int(times_ms[-1]), int(steps[-1]), 0, run)
            connection.execute(f"INSERT INTO latest_metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", last)


def held(database: Path) -> Counter[tuple[Any, ...]]:
    """What a database holds, without ids that a target gives anew."""
    run = "SELECT e.name, r.name"
    of_run = "JOIN runs r USING (run_uuid) JOIN experiments e USING (experiment_id)"
    statements = {
        "runs": f"{run}, r.start_time, r.end_time, r.status FROM runs r JOIN experiments e USING (experiment_id)",
        "params": f"{run}, key, value FROM params {of_run}",
        "series": f"{run}, key, count(*), sum(value), sum(step), sum(timestamp) FROM"
        f" (SELECT * FROM metrics ORDER BY run_uuid, key, step) {of_run} GROUP BY run_uuid, key",
    }
    spans = (
        "SELECT s.content, e.name, trace_id, span_id, t.timestamp_ms, t.status FROM spans s JOIN trace_info t ON"
        " t.request_id = s.trace_id JOIN experiments e ON e.experiment_id = t.experiment_id"
    )
    with closing(sqlite3.connect(database)) as connection:
        found = Counter((kind, *row) for kind, statement in statements.items() for row in connection.execute(statement))
        for content, *row in connection.execute(spans):
            found["spans", json.dumps(json.loads(content), sort_keys=True), *row] += 1
    return found + Counter(
        ("artifacts", path.as_posix().partition("/artifacts/")[2].split("/artifacts/")[-1], path.stat().st_size)
        for path in database.parent.rglob("*")
        if path.is_file() and "artifacts" in path.parts and "shardmig" not in path.parts
    )


class Workshop:
    """A source and fresh targets: databases, each in a folder of its own, or servers of so many workers over them."""

    def __init__(self, folder: Path, stack: ExitStack, size: Size, workers: int = 0) -> None:
        self._databases = Databases(folder)
        self._stack = stack
        self._workers = workers
        self.size = size
        self.source = self._place()
        location = None if workers else self.source.database.parent / "artifacts"
        fill(self.source.uri, self.source.database, size, location)
        self._held = held(self.source.database)

    def measure(self, copy: Callable[[Place, Place], object]) -> Took:
        """Copy into a new target."""
        target = self._place()
        cpu_s, started = _children_cpu_s(), time.perf_counter()
        copy(self.source, target)
        wall_s, cpu_s = time.perf_counter() - started, _children_cpu_s() - cpu_s
        lost = self._held - held(target.database)
        return Took(wall_s, cpu_s, Counter(kind for kind, *_ in lost.elements()))

    def _place(self) -> Place:
        database = self._databases.fresh()
        if not self._workers:
            return Place(f"sqlite:///{database}", database)
        server = self._stack.enter_context(mlflow_server(database.parent, database, workers=self._workers))
        MlflowClient(server.uri).search_experiments()  # the first requests of a server are several times slower
        return Place(server.uri, database, server)


class Place(NamedTuple):
    """A source or target."""

    uri: str
    database: Path
    server: MlflowServer | None = None


def plain(source: Place, target: Place) -> None:
    """As mlflow-export-import does it."""
    with scratch() as folder:
        execute(target, "-m", "benchmarks.mlflow_plain", source.uri, target.uri, str(folder))


def real_tool(tool: Path) -> Callable[[Place, Place], None]:
    """mlflow-export-import itself, by its executables."""

    def copied(source: Place, target: Place) -> None:
        with scratch() as folder:
            for name, place, option in (("export-all", source, "--output-dir"), ("import-all", target, "--input-dir")):
                environment_ = environment(folder) | {"MLFLOW_TRACKING_URI": place.uri}
                command = [str(tool / name), option, str(folder / "exported")]
                done = subprocess.run(command, env=environment_, cwd=folder, capture_output=True, text=True)
                if done.returncode:
                    print(f"{name} ended with {done.returncode}: {done.stderr[-500:]}", file=sys.stderr)

    return copied


def shardmig(*words: str) -> Callable[[Place, Place], None]:
    """`shardmig copy` as a user executes it."""

    def copied(source: Place, target: Place) -> None:
        execute(target, "-m", "shardmig", "copy", *words, "--from", source.uri, "--to", target.uri)

    return copied


def whole_database(source: Place, target: Place) -> None:
    """`shardmig copy database` with the artifacts."""
    old, new = (place.database.parent / "artifacts" for place in (source, target))
    shardmig("database", "--artifact-root", f"{old}={new}", "--copy-artifacts")(source, target)


def execute(target: Place, *words: str) -> None:
    """A Python command in the target's folder. It must succeed."""
    folder = target.database.parent
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment(folder), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}{done.stdout[-3000:]}")


def bare_client(source: Place, target: Place) -> None:
    """Reads and writes the points, with one connection to either server, and nothing else."""
    assert source.server is not None
    assert target.server is not None
    reader, writer = (HTTPConnection("127.0.0.1", server.port) for server in (source.server, target.server))
    with closing(sqlite3.connect(source.database)) as connection:
        keys = connection.execute("SELECT key, group_concat(run_uuid) FROM latest_metrics GROUP BY key").fetchall()
        runs = [run for (run,) in connection.execute("SELECT run_uuid FROM runs")]
    new = {run: _created(writer) for run in runs}
    for key, joined in keys:
        among = joined.split(",")
        for start in range(0, len(among), RUNS_A_REQUEST):
            query = [("metric_key", key), *(("run_id", run) for run in among[start : start + RUNS_A_REQUEST])]
            answer = asked(reader, "GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{urlencode(query)}")
            by_run: dict[str, list[Any]] = {}
            for point in json.loads(answer)["metrics"]:
                by_run.setdefault(new[point.pop("run_id")], []).append(point)
            for run, points in by_run.items():
                for first in range(0, len(points), METRICS_A_REQUEST):
                    body = {"run_id": run, "metrics": points[first : first + METRICS_A_REQUEST]}
                    asked(writer, "POST", "/api/2.0/mlflow/runs/log-batch", json.dumps(body).encode())
    reader.close()
    writer.close()


def _created(connection: HTTPConnection) -> str:
    made = asked(connection, "POST", "/api/2.0/mlflow/runs/create", b'{"experiment_id": "0", "start_time": 1}')
    run: str = json.loads(made)["run"]["info"]["run_id"]
    return run


def _children_cpu_s() -> float:
    """Of the processes that were started here and have ended: servers are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def servers(size: Size, workers: int, tool: Path | None) -> list[list[str]]:
    """From one server to another, and the limit."""
    with scratch() as folder, ExitStack() as stack:
        workshop = Workshop(folder, stack, size, workers)
        ways = {"shardmig copy all": shardmig("all", "--no-verify")}
        if tool is not None:
            ways["the tool itself"] = real_tool(tool)
        took = {"as mlflow-export-import": workshop.measure(plain)}
        took |= {name: workshop.measure(way) for name, way in ways.items()}
        took["one bare client, points only"] = workshop.measure(bare_client)
        return rows("servers", took)


def databases(size: Size, tool: Path | None) -> list[list[str]]:
    """Between databases: through an archive, and row by row."""
    with scratch() as folder, ExitStack() as stack:
        workshop = Workshop(folder, stack, size)
        ways: dict[str, Callable[[Place, Place], None]] = {
            "as mlflow-export-import": plain,
            "shardmig copy all": shardmig("all", "--no-verify"),
            "shardmig copy database, compared": whole_database,
        }
        if tool is not None:
            ways["the tool itself"] = real_tool(tool)
        return rows("databases", {name: workshop.measure(way) for name, way in ways.items()})


def traces(size: Size, workers: int) -> list[list[str]]:
    """Traces from one server to another."""
    with scratch() as folder, ExitStack() as stack:
        workshop = Workshop(folder, stack, size, workers)
        way = shardmig("all", "--objects", "experiments,traces", "--no-verify")
        ways = {"one by one": plain, "shardmig copy all": way}
        return rows(
            f"{size.experiments * size.traces} traces", {name: workshop.measure(way) for name, way in ways.items()}
        )


def rows(copied: str, took: dict[str, Took]) -> list[list[str]]:
    """Of the table. The first way is what the others are compared with."""
    first = next(iter(took.values()))
    return [
        [
            copied,
            name,
            f"{one.wall_s:.1f} s",
            f"{one.cpu_s:.1f} s",
            f"{first.wall_s / one.wall_s:.1f}",
            f"{first.cpu_s / one.cpu_s:.1f}" if one.cpu_s else "-",
            ", ".join(f"{count} {kind}" for kind, count in sorted(one.lost.items())) or "nothing",
        ]
        for name, one in took.items()
    ]


def _more(parser: ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=("servers", "databases", "traces"), default=None)
    parser.add_argument(
        "--server-workers", type=int, default=SERVER_WORKERS, help="of each server; MLflow's default is 4"
    )
    parser.add_argument("--tool", type=Path, help="the folder of mlflow-export-import's executables: tried, too")


def main() -> None:
    """Each way once: a copy at full size takes minutes."""
    arguments = parse_arguments(__doc__ or "", _more)
    size = SIZES[arguments.full]
    parts: dict[str, Callable[[], list[list[str]]]] = {
        "servers": lambda: servers(size, arguments.server_workers, arguments.tool),
        "databases": lambda: databases(size, arguments.tool),
        "traces": lambda: traces(TRACES[arguments.full], arguments.server_workers),
    }
    table = [row for name, part in parts.items() if name in (arguments.parts or parts) for row in part()]
    show(f"Copying an MLflow: {size}", COLUMNS, table)


if __name__ == "__main__":
    main()
