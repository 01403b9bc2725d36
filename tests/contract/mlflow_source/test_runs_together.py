"""A server is asked for the points of several runs at once, and each run has its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from shardmig.adapters.mlflow import rest
from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.rest import RestStore
from shardmig.records import TargetRunId
from tests.servers.http import answering
from tests.servers.in_front import InFront
from tests.servers.mlflow import MlflowServer, mlflow_http
from tests.servers.tracking_databases import sqlite_template

__all__ = ["mlflow_http", "sqlite_template"]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("mlflow-server")]

BULK = f"GET {rest.HISTORY_BULK}"
Points = list[tuple[int, int, float]]


class Place(NamedTuple):
    """A server, a client of it, and a store that reads it."""

    server: InFront
    client: MlflowClient
    store: RestStore

    def run(self, **metrics: list[float]) -> TargetRunId:
        """A new run that has ended, with these values step by step."""
        run_id: str = self.client.create_run("0").info.run_id
        for key, values in metrics.items():
            points = [Metric(key, value, 1000 + step, step) for step, value in enumerate(values)]
            self.client.log_batch(run_id, points)
        self.client.set_terminated(run_id)
        return TargetRunId(run_id)

    def read(self, *runs: TargetRunId) -> list[dict[str, Points]]:
        """The points of these, announced and read one after the other."""
        self.store.expect(runs)
        return [self._points(run) for run in runs]

    def _points(self, run_id: TargetRunId) -> dict[str, Points]:
        run = self.store.get_run(run_id)
        found: dict[str, Points] = {}
        for part in self.store.history(run, sorted(run.metric_keys), 1000):
            for key, rows in part.spans():
                columns = (part.steps[rows], part.times_ms[rows], part.values[rows])
                found.setdefault(key, []).extend(zip(*(column.tolist() for column in columns), strict=True))
        return found


@pytest.fixture
def place(mlflow_http: MlflowServer) -> Iterator[Place]:
    with answering(InFront(mlflow_http)) as in_front:
        store = RestStore(HttpClient(in_front.url, Login(Credentials()), connections=4, timeout_s=60), connections=4)
        yield Place(in_front, MlflowClient(mlflow_http.uri), store)
        store.close()


def points(*values: float) -> Points:
    return [(step, 1000 + step, value) for step, value in enumerate(values)]


def test_each_run_has_its_own_points(place: Place) -> None:
    runs = [place.run(loss=[float(number), -1.5], acc=[0.1 * number]) for number in range(7)]
    assert place.read(*runs) == [
        {"loss": points(float(number), -1.5), "acc": points(0.1 * number)} for number in range(7)
    ]
    assert place.server.count(BULK) == 2


def test_runs_need_not_have_the_same_metrics(place: Place) -> None:
    runs = [place.run(loss=[1.0]), place.run(), place.run(acc=[2.0]), place.run(loss=[3.0], acc=[4.0])]
    assert place.read(*runs) == [
        {"loss": points(1.0)},
        {},
        {"acc": points(2.0)},
        {"loss": points(3.0), "acc": points(4.0)},
    ]
    assert place.server.count(BULK) == 2


def test_numbers_that_json_does_not_have_come_along(place: Place) -> None:
    runs = [place.run(loss=[float("nan"), 1.0]), place.run(loss=[float("nan"), 2.0])]
    assert str(place.read(*runs)) == str([{"loss": points(float("nan"), 1.0)}, {"loss": points(float("nan"), 2.0)}])


def test_what_came_since_the_facts_of_a_run_may_be_missing_but_never_before(place: Place) -> None:
    first, second = place.run(loss=[1.0]), place.run(loss=[2.0])
    place.store.expect([first, second])
    place.store.get_run(first)
    place.client.log_metric(second, "loss", 7.0, timestamp=1001, step=1)
    list(place.store.history(place.store.get_run(first), ["loss"], 10))
    read = place.store.get_run(second)
    assert read.latest[0].step in (0, 1)
    [part] = place.store.history(read, ["loss"], 10)
    assert part.steps.tolist() == [0, 1], "points are read behind the facts"


def test_runs_that_are_too_much_for_one_answer_are_told_apart(place: Place) -> None:
    """Many points at one step, so that nobody can guess how many they are before the first run is read."""
    runs = [place.run(loss=[0.0]), place.run(loss=[0.0]), place.run(loss=[0.0])]
    rows = [(run, float(value)) for run in runs for value in range(1, 9_000)]
    with closing(sqlite3.connect(place.server.mlflow.database, timeout=20)) as connection, connection:
        columns = "run_uuid, key, value, timestamp, step, is_nan"
        connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, 'loss', ?, 1000, 0, 0)", rows)
    assert place.read(*runs) == [{"loss": [(0, 1000, float(value)) for value in range(9_000)]}] * 3
    assert place.server.count(BULK) == 3, "one in vain, one of the first run, one of the others"
