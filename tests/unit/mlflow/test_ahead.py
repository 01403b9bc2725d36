"""Which runs are read together, and what is held of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from shardmig.adapters.mlflow.ahead import ROWS_AHEAD, ROWS_TOGETHER, RunsAhead
from shardmig.adapters.mlflow.histories import History
from shardmig.adapters.mlflow.store import LatestPoint, StoredRun
from shardmig.errors import NotFound
from shardmig.records import TargetRunId


class Server:
    """Runs by name, each with the last step of its metrics; what it was asked."""

    def __init__(self, **runs: dict[str, int]) -> None:
        self.runs = runs
        self.asked: list[str] = []

    def read(self, run_id: TargetRunId) -> StoredRun:
        self.asked.append(run_id)
        if run_id not in self.runs:
            raise NotFound(f"no run {run_id}")
        latest = [LatestPoint(key, step, 0, 0.0) for key, step in self.runs[run_id].items()]
        return msgspec.structs.replace(StoredRun.unread(run_id, "0"), latest=latest)


def ahead(server: Server, runs: Sequence[str]) -> RunsAhead:
    made = RunsAhead(server.read)
    made.expect(map(TargetRunId, runs))
    return made


def history(rows: int) -> History:
    made = History("loss")
    made.add(range(rows), [0] * rows, [0.5] * rows)
    return made


A, B, C = map(TargetRunId, "abc")


def test_runs_that_have_a_metric_are_asked_for_it_together() -> None:
    server = Server(a={"loss": 9, "acc": 9}, b={"loss": 9}, c={"loss": 9, "acc": 9})
    runs = ahead(server, "abc")
    runs.run(A)
    assert (runs.others("loss"), runs.others("acc"), runs.others("f1")) == ([B, C], [C], [])


def test_no_more_are_asked_for_than_one_answer_holds() -> None:
    third = ROWS_TOGETHER // 3
    runs = ahead(Server(a={"loss": third}, b={"loss": third}, c={"loss": third}), "abc")
    runs.run(A)
    assert runs.others("loss") == [B]


def test_how_many_points_a_step_has_is_learned() -> None:
    every_thousandth = {"loss": 1_000_000}
    runs = ahead(Server(a=every_thousandth, b=every_thousandth, c=every_thousandth), "abc")
    runs.run(A)
    assert runs.others("loss") == []
    runs.learn("loss", 1000)
    runs.run(B)
    assert runs.others("loss") == [C]
    runs.learn("loss", 30_000_000)
    assert runs.others("loss") == []


def test_facts_are_read_ahead_only_of_runs_whose_points_may_be_held() -> None:
    half = {f"m{number}": ROWS_TOGETHER // 10 for number in range(60)}
    server = Server(a=half, b=half, c=half)
    runs = ahead(server, "abc")
    runs.run(A)
    assert server.asked == ["a", "b"]
    assert runs.others("m0") == [], "b came to be more than is held"
    runs.run(B)
    runs.run(C)
    assert server.asked == ["a", "b", "c"]


def test_nothing_more_is_asked_for_when_enough_is_held() -> None:
    runs = ahead(Server(a={"loss": 9}, b={"loss": 9}), "ab")
    runs.run(A)
    runs.keep(B, "acc", history(ROWS_AHEAD))
    assert runs.others("loss") == []
    kept = runs.take(B, "acc")
    assert kept is not None
    kept.close()
    assert runs.others("loss") == [B]


def test_a_run_that_cannot_be_read_tells_it_when_its_turn_comes() -> None:
    runs = ahead(Server(a={"loss": 9}, c={"loss": 9}), "abc")
    runs.run(A)
    assert runs.others("loss") == [C]
    with pytest.raises(NotFound, match="no run b"):
        runs.run(B)
    assert runs.run(C).id == C


def test_points_older_than_the_facts_of_a_run_are_not_given() -> None:
    runs = ahead(Server(a={"loss": 9}, b={"loss": 9}), "ab")
    runs.run(A)
    runs.keep(B, "loss", history(10))
    runs.run(B)
    runs.run(B)
    assert runs.take(B, "loss") is None


def test_a_run_that_was_not_announced_is_read_alone() -> None:
    server = Server(a={"loss": 9}, b={"loss": 9})
    runs = RunsAhead(server.read)
    runs.run(A)
    assert server.asked == ["a"]
    assert runs.others("loss") == []
