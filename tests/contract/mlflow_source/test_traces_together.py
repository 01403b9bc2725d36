"""Traces are written to a server together, and each of them is whole, refused or brought again by itself."""

from __future__ import annotations

import shutil
import sqlite3
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
from tests.servers.mlflow import mlflow_server

TRACES = 20
SPANS_REQUEST = "POST /v1/traces"


class Place(NamedTuple):
    """A source database with traces, and an empty server behind `server`."""

    source: str
    server: InFront
    target: Path

    def copy(self, code: int = 0) -> None:
        """All traces, by one attempt."""
        line = ["copy", "all", "--from", self.source, "--to", self.server.url, "--workers", "1", "--max-attempts", "1"]
        assert execute([*line, "--objects", "experiments,traces", "--engine", "inline", "--no-progress"]) == code

    def held(self) -> tuple[int, int]:
        """Traces and spans in the target."""
        with closing(sqlite3.connect(self.target)) as connection:
            counts = (connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("trace_info", "spans"))
            [traces], [spans] = counts
            return traces, spans


@pytest.fixture
def place(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # MLflow's own client: it would repeat for minutes
    (tmp_path / "target").mkdir()
    source, target = (
        Path(shutil.copy(sqlite_template, folder / "mlflow.db")) for folder in (tmp_path, tmp_path / "target")
    )
    client = MlflowClient(f"sqlite:///{source}")
    experiment = client.create_experiment("churn")
    for number in range(1, TRACES + 1):
        make_trace(client, experiment, number)
    with mlflow_server(target.parent, target, workers=1) as server, answering(InFront(server)) as in_front:
        yield Place(f"sqlite:///{source}", in_front, target)


def test_the_spans_of_sixteen_traces_go_in_one_request(place: Place) -> None:
    place.copy()
    assert place.held() == (TRACES, TRACES * SPANS)
    assert place.server.count(SPANS_REQUEST) == 2


@pytest.mark.parametrize("status", [400, 500])
def test_a_trace_that_is_refused_takes_no_other_with_it(place: Place, status: int) -> None:
    seventh = bytes.fromhex(f"{7:032x}")
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
