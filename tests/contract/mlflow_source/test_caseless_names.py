"""A database that does not tell `Churn` from `churn`, as MySQL by default, gets no two experiments in one."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from mlflow import MlflowClient

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.test_experiments_kept import named
from tests.contract.mlflow_source.test_objects_kept import INLINE, copy

__all__ = ["copy"]


@pytest.fixture
def caseless(copy: Copy) -> Copy:
    """A copy into a database whose experiments have names of such a kind."""
    with closing(sqlite3.connect(copy.folder / "target.db")) as target:
        [[table]] = target.execute("SELECT sql FROM sqlite_master WHERE name = 'experiments'").fetchall()
        told = table.replace("name VARCHAR(256) NOT NULL", "name VARCHAR(256) COLLATE NOCASE NOT NULL")
        assert told != table
        target.execute("PRAGMA writable_schema = 1")
        target.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'experiments'", [told])
        target.commit()
    with closing(sqlite3.connect(copy.folder / "target.db")) as target:
        target.execute("REINDEX")
        target.commit()
    return copy


def test_an_experiment_is_refused_by_name_where_another_one_would_take_its_runs(caseless: Copy) -> None:
    source, target = MlflowClient(caseless.source), MlflowClient(caseless.target)
    runs = {
        name: source.create_run(source.create_experiment(name), run_name=name).info.run_id for name in ("Churn", "b")
    }
    theirs = target.create_experiment("churn")
    told = caseless._told(caseless.migration(*INLINE, "--max-attempts", "1"), 3)
    failures = {one["run"]["id"]: one["failure"] for one in told["outcomes"]["load"] if one["state"] == "failed"}
    assert set(failures) == {"Churn", runs["Churn"]}
    assert all("'Churn' for 'churn'" in one["message"] for one in failures.values())
    assert target.search_runs([theirs]) == []
    assert len(target.search_runs([named(target, "b").experiment_id])) == 1
