"""Traces are written to a server together, and each of them is whole, refused or brought again by itself."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from shardmig.cli.app import execute
from tests.contract.mlflow_source.plain_traces import SPANS, make_trace
from tests.servers.http import answering
from tests.servers.in_front import InFront
from tests.servers.mlflow import MlflowServer, mlflow_http
from tests.servers.tracking_databases import sqlite_file, sqlite_template

__all__ = ["mlflow_http", "sqlite_file", "sqlite_template"]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("mlflow-server")]

TRACES = 20
SPANS_REQUEST = "POST /v1/traces"


class Place(NamedTuple):
    """A source database with traces of an experiment, numbered from `first` on, and a server that has none of them."""

    source: str
    experiment: str
    first: int
    server: InFront

    def copy(self, code: int = 0) -> None:
        """All traces, by one attempt."""
        line = ["copy", "all", "--from", self.source, "--to", self.server.url, "--workers", "1", "--max-attempts", "1"]
        chosen = ["--objects", "experiments,traces", "--experiments", self.experiment]
        assert execute([*line, *chosen, "--engine", "inline", "--no-progress"]) == code

    def held(self) -> tuple[int, int]:
        """Traces and spans of the experiment in the target."""
        ids = [f"tr-{number:032x}" for number in range(self.first, self.first + TRACES)]
        among = f"IN ({', '.join('?' * TRACES)})"
        with closing(sqlite3.connect(self.server.mlflow.database, timeout=20)) as connection:
            [traces] = connection.execute(f"SELECT count(*) FROM trace_info WHERE request_id {among}", ids).fetchone()
            [spans] = connection.execute(f"SELECT count(*) FROM spans WHERE trace_id {among}", ids).fetchone()
            return traces, spans


@pytest.fixture
def place(
    sqlite_file: Path, mlflow_http: MlflowServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # MLflow's own client: it would repeat for minutes
    name = request.node.name
    first = 1000 * (1 + zlib.crc32(name.encode()))
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    experiment = client.create_experiment(name)
    for number in range(first, first + TRACES):
        make_trace(client, experiment, number)
    with answering(InFront(mlflow_http)) as in_front:
        yield Place(f"sqlite:///{sqlite_file}", name, first, in_front)


def test_the_spans_of_sixteen_traces_go_in_one_request(place: Place) -> None:
    place.copy()
    assert place.held() == (TRACES, TRACES * SPANS)
    assert place.server.count(SPANS_REQUEST) == 2


@pytest.mark.parametrize("status", [400, 500])
def test_a_trace_that_is_refused_takes_no_other_with_it(place: Place, status: int) -> None:
    seventh = bytes.fromhex(f"{place.first + 6:032x}")
    place.server.refuses = lambda path, body: status if path == "/v1/traces" and seventh in body else None
    place.copy(code=3)
    assert place.held()[1] == (TRACES - 1) * SPANS
    place.server.refuses = lambda path, body: None
    place.copy()
    assert place.held() == (TRACES, TRACES * SPANS)


def test_traces_whose_spans_did_not_come_are_made_anew(place: Place) -> None:
    place.server.refuses = lambda path, body: 503 if path == "/v1/traces" else None
    place.copy(code=3)
    assert place.held()[1] == 0
    assert place.server.count(SPANS_REQUEST) == 2 * 3  # of two shards: together, and two of them alone
    place.server.refuses = lambda path, body: None
    place.copy()
    assert place.held() == (TRACES, TRACES * SPANS)


def test_what_came_already_is_not_sent_again(place: Place) -> None:
    place.copy()
    before = len(place.server.asked)
    place.copy()
    assert SPANS_REQUEST not in place.server.asked[before:]
