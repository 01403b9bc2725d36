"""What shardmig brought into MLflow is read as what it was before."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from shardmig.adapters.conformance.runs import plain_run, rich_run
from shardmig.adapters.mlflow.source import open_source
from shardmig.archive.files import ArchiveFiles
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, ProjectId, Selection
from tests.contract.archives import digests
from tests.unit.archive.runs import paths_in, publish


def test_runs_of_another_system_come_back_under_their_own_names_and_types(sqlite_file: Path, tmp_path: Path) -> None:
    before = _loaded(tmp_path, sqlite_file)
    after = ArchivePaths(str(tmp_path / "back" / "data"), str(tmp_path / "back" / "files"))
    line = ["export", "--source", "mlflow", f"sqlite:///{sqlite_file}", "-d", after.data, "-f", after.files]
    assert execute([*line, "--engine", "inline", "--no-progress"]) == 0
    assert digests(after) == digests(before)


def test_a_run_that_was_loaded_in_part_fails_loudly(sqlite_file: Path, tmp_path: Path) -> None:
    _loaded(tmp_path, sqlite_file)
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    [run, *_] = client.search_runs([one.experiment_id for one in client.search_experiments()])
    client.set_tag(run.info.run_id, "shardmig.state", "loading")
    line = ["export", "--source", "mlflow", f"sqlite:///{sqlite_file}", "-d", str(tmp_path / "back")]
    assert execute([*line, "-f", str(tmp_path / "files"), "--engine", "inline", "--no-progress"]) == 3


def test_of_several_copies_of_a_run_the_whole_and_living_one_is_listed(sqlite_file: Path, tmp_path: Path) -> None:
    _loaded(tmp_path, sqlite_file)
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        client.delete_run(run.info.run_id)
    source = open_source({"tracking-uri": f"sqlite:///{sqlite_file}"})
    assert "ws/plain" not in list(source.list_projects(Selection(include_archived=True)))
    source.close()


def _loaded(folder: Path, database: Path) -> ArchivePaths:
    """An archive of two runs, loaded into the database."""
    archive = paths_in(folder)
    publish(folder, rich_run(ArchiveFiles(archive, ProjectId("ws/rich"))))
    publish(folder, plain_run())
    line = ["load", "--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{database}"]
    line += ["-d", archive.data, "-f", archive.files, "--engine", "inline", "--no-progress"]
    assert execute(line) == 0
    return archive
