"""An archive that goes into a tracker and is exported from there equals itself, for every tracker that needs no server.

Of those with servers the same is proven beside their servers: tests/contract/litlogger/test_moving.py,
tests/contract/wandb/test_any_to_any.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.conformance.runs import plain_run, rich_run
from shardmig.archive.files import ArchiveFiles
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, ProjectId
from tests.contract.archives import digests
from tests.servers.tracking_databases import sqlite_file, sqlite_template
from tests.servers.zenml import zenml, zenml_template
from tests.unit.archive.runs import paths_in, publish

__all__ = ["sqlite_file", "sqlite_template", "zenml", "zenml_template"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArchivePaths:
    """A run with everything, a plain one and its fork."""
    monkeypatch.chdir(tmp_path)
    paths = paths_in(tmp_path)
    publish(tmp_path, rich_run(ArchiveFiles(paths, ProjectId("ws/rich"))))
    publish(tmp_path, plain_run())
    publish(tmp_path, plain_run(run_id="RUN-2", parent="RUN-1"))
    return paths


@pytest.mark.usefixtures("sqlite_file")
def test_through_mlflow(archive: ArchivePaths) -> None:
    _there_and_back(archive, "mlflow --mlflow-tracking-uri sqlite:///mlflow.db", "mlflow sqlite:///mlflow.db")


def test_through_wandb_logs(archive: ArchivePaths) -> None:
    _there_and_back(archive, "wandb --offline-dir runs", "wandb runs")


def test_through_comet_archives(archive: ArchivePaths) -> None:
    _there_and_back(archive, "comet --target-option offline-dir=archives", "comet archives")


@pytest.mark.xdist_group("zenml")
@pytest.mark.usefixtures("zenml")
def test_through_zenml(archive: ArchivePaths) -> None:
    _there_and_back(archive, "zenml", "zenml")


def _there_and_back(before: ArchivePaths, target: str, source: str) -> None:
    after = ArchivePaths("back/data", "back/files")
    _shardmig(f"load --target {target}", before)
    _shardmig(f"verify --target {target}", before)
    _shardmig(f"export --source {source}", after)
    assert len(digests(before)) == 3
    assert digests(after) == digests(before)


def _shardmig(line: str, archive: ArchivePaths) -> None:
    where = ["-d", archive.data, "-f", archive.files, "--engine", "inline", "--no-progress"]
    assert execute([*line.split(), *where]) == 0
