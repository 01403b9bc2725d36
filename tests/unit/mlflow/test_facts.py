"""What a run's fields say of the run itself."""

from __future__ import annotations

import pytest

from shardmig.adapters.mlflow.facts import RunFacts
from shardmig.adapters.mlflow.naming import Naming
from shardmig.records import Field, ProjectId, RunId, RunRef, TargetRunId

CREATED = 1_700_000_000_000


def facts(*fields: Field, created_ms: int | None = None, run_id: str = "RUN-1") -> RunFacts:
    run = RunFacts(RunRef(project=ProjectId("ws/p"), id=RunId(run_id), created_ms=created_ms))
    run.learn(fields)
    return run


def test_a_run_without_facts_has_an_id_and_a_status() -> None:
    run = facts()
    assert (run.name, run.user, run.start_ms, run.status, run.end_ms(None)) == ("RUN-1", "", 0, "FINISHED", None)
    assert run.tags(Naming(), None) == {}


@pytest.mark.parametrize(
    ("fields", "last_point_ms", "end_ms"),
    [
        ([Field("sys/running_time", "float", 59.5)], CREATED + 1, CREATED + 59_500),
        ([Field("sys/running_time_seconds", "int", 7)], None, CREATED + 7_000),
        ([Field("sys/modification_time", "datetime", CREATED + 9)], CREATED + 99, CREATED + 9),
        ([], CREATED + 99, CREATED + 99),
        ([], CREATED - 99, CREATED),
        ([Field("sys/state", "string", "Active")], CREATED + 99, None),
    ],
)
def test_the_end_is_the_best_that_is_known(fields: list[Field], last_point_ms: int | None, end_ms: int | None) -> None:
    assert facts(*fields, created_ms=CREATED).end_ms(last_point_ms) == end_ms


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([Field("sys/failed", "bool", True), Field("sys/state", "string", "Active")], "FAILED"),
        ([Field("sys/failed", "bool", False), Field("sys/state", "string", "Inactive")], "FINISHED"),
        ([Field("sys/state", "string", "running")], "RUNNING"),
    ],
)
def test_the_status_is_the_runs_own(fields: list[Field], status: str) -> None:
    assert facts(*fields).status == status


def test_tags_go_where_mlflow_has_a_place_for_them() -> None:
    run = facts(
        Field("sys/owner", "string", "eve"),
        Field("sys/description", "string", "x" * 9000),
        Field("sys/tags", "string_set", ["best", "it's #1"]),
        Field("sys/group_tags", "string_set", ["g"]),
        Field("sys/forking/parent", "string", "RUN-0"),
        Field("sys/forking/step", "float", 12.5),
        Field("source_code/entrypoint", "string", "train.py"),
        Field("source_code/commit/commit_id", "string", "c0ffee"),
        Field("source_code/branch", "string", "main"),
        Field("source_code/remote/origin", "string", "git@example.org:x.git"),
    )
    tags = run.tags(Naming(), TargetRunId("abc"))
    made = next(key for key, value in tags.items() if value == "it's #1")
    assert made.startswith("tags/it_s _1--")
    assert tags == {
        "mlflow.user": "eve",
        "mlflow.note.content": "x" * 8000,
        "mlflow.source.name": "train.py",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.source.git.branch": "main",
        "mlflow.source.git.repoURL": "git@example.org:x.git",
        "mlflow.parentRunId": "abc",
        "shardmig.fork.parent": "RUN-0",
        "shardmig.fork.step": "12.5",
        "tags/best": "best",
        made: "it's #1",
        "group_tags/g": "g",
    }
