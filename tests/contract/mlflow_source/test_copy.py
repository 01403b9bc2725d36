"""A copy from MLflow to MLflow loses nothing but what is reported."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, ViewType

from shardmig.adapters.mlflow.database.uri import driver_uri
from tests.contract.mlflow_source.comparer import differences
from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.world import fill

EXPECTED = {"own-ids", "model-linked-later", "experiment-deleted-later", "parent-not-here"}
"""What is reported of runs, and differs in nothing that MLflow's API lets anybody set."""


def test_databases_are_equal_after_a_copy_but_for_what_load_reports(databases: Copy) -> None:
    reported = databases.migrate("--engine", "inline")
    _assert_only_reported_differences(databases, reported)
    assert databases.verify("--engine", "inline") == ["equal"] * 17


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
@pytest.mark.long
def test_servers_are_equal_after_a_copy_but_for_what_load_reports(servers: Copy) -> None:
    reported = servers.migrate("--engine", "inline")
    _assert_only_reported_differences(servers, reported)
    assert reported["reference-not-here"] == {"versions/3/run/id"}
    assert reported["source-not-kept"] == {"versions/3/source"}
    [dangling] = object_differences(servers.source, servers.target)
    assert dangling.startswith("model dangling: version 3: ")
    assert set(servers.verify("--engine", "inline")) == {"equal"}


def test_a_copy_whose_workers_were_killed_doubles_and_halves_nothing(databases: Copy) -> None:
    assert databases.migrate_while_workers_die(deaths=3) == 0
    _assert_only_reported_differences(databases, EXPECTED)


def test_a_copy_of_a_copy_is_a_copy_of_the_original(databases: Copy, sqlite_file: Path) -> None:
    databases.migrate("--engine", "inline")
    onward = Copy(databases.folder / "onward", databases.target, f"sqlite:///{sqlite_file}")
    onward.folder.mkdir()
    reported = onward.migrate("--engine", "inline")
    _assert_only_reported_differences(Copy(onward.folder, databases.source, onward.target), reported)


def test_a_deleted_run_is_found_again_and_deleted_again(databases: Copy) -> None:
    databases.migrate("--engine", "inline")
    client = MlflowClient(databases.target)
    before = _all_runs(client)
    [deleted] = [run for run in before if client.get_run(run).info.run_name == "great-grandchild"]
    client.restore_run(deleted)  # as if the copy had been killed before its last step
    databases.migrate("--engine", "inline", "--limit", "1000")
    assert _all_runs(client) == before
    _assert_only_reported_differences(databases, EXPECTED)


def test_deleted_runs_are_copied_only_when_asked(databases: Copy) -> None:
    line = [argument for argument in databases.migration("--engine", "inline") if "archived" not in argument]
    assert subprocess.run(line, cwd=databases.folder, capture_output=True).returncode == 0
    client = MlflowClient(databases.target)
    names = {client.get_run(run).info.run_name for run in _all_runs(client)}
    assert "bare" in names
    assert names.isdisjoint({"great-grandchild", "in a deleted experiment"})


def test_a_point_that_was_changed_in_the_copy_is_found_by_verify(databases: Copy) -> None:
    databases.migrate("--engine", "inline")
    client = MlflowClient(databases.target)
    [bare] = client.search_runs(_experiments(client), "attributes.run_name = 'bare'")
    client.log_batch(bare.info.run_id, [Metric("extra", 1.0, 5, 0)])
    assert databases.verify("--engine", "inline", code=5).count("differs") == 1


@pytest.mark.postgres
def test_postgresql_is_read_as_sqlite_is(postgres_uri: str, sqlite_file: Path, tmp_path: Path) -> None:
    fill(driver_uri(postgres_uri), points=60)
    copy = Copy(tmp_path, postgres_uri, f"sqlite:///{sqlite_file}")
    reported = copy.migrate("--engine", "inline")
    assert reported["negative-zero"] == {"metrics/größe/日本 - 1"}  # PostgreSQL keeps it, SQLite does not
    told = differences(driver_uri(postgres_uri), copy.target)
    assert all("größe/日本 - 1" in line and "'-0.0'" in line for line in told), told
    assert copy.verify("--engine", "inline") == ["approximated"] * 10 + ["equal"] * 7


def test_a_run_that_went_on_is_brought_again(databases: Copy) -> None:
    databases.migrate("--engine", "inline")
    source = MlflowClient(databases.source)
    [running] = source.search_runs(_experiments(source), "attributes.run_name = 'still running'")
    source.log_batch(running.info.run_id, [Metric("loss", 0.25, 1_700_000_009_000, 99)])
    source.set_terminated(running.info.run_id, "FINISHED", end_time=1_700_000_010_000)
    before = _all_runs(MlflowClient(databases.target))
    databases.migrate("--engine", "inline", "--update", "--on-existing", "replace")
    _assert_only_reported_differences(databases, EXPECTED)
    assert len(_all_runs(MlflowClient(databases.target)) - before) == 1


def _assert_only_reported_differences(copy: Copy, reported: Collection[str]) -> None:
    assert differences(copy.source, copy.target) == []
    assert set(reported) >= EXPECTED


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments(ViewType.ALL, max_results=1000)]


def _all_runs(client: MlflowClient) -> set[str]:
    found = client.search_runs(_experiments(client), "", ViewType.ALL, max_results=10_000)
    return {run.info.run_id for run in found}
