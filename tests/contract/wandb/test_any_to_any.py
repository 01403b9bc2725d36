"""From one tracker into another and back, by the command line: MLflow into W&B's logs, W&B's runs into MLflow, and through
a W&B server into an archive that equals the first one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.conformance import field_digests
from shardmig.adapters.conformance.runs import FieldKey
from shardmig.archive.reader import ArchiveReader
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, FieldDigest, ProjectId
from tests.contract.mlflow_source.world import fill
from tests.contract.wandb.foreign_runs import everything
from tests.servers.tracking_databases import sqlite_file, sqlite_template
from tests.servers.wandb.server import WandbServer

__all__ = ["sqlite_file", "sqlite_template"]


def test_mlflow_into_wandb_logs_and_back_into_an_archive(sqlite_file: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    fill(uri, points=200)
    _shardmig(
        f"migrate --source mlflow {uri} -d one/data -f one/files --target wandb", "--target-option", "offline-dir=w"
    )
    assert _verdicts("verify -d one/data -f one/files --target wandb --target-option offline-dir=w") <= {
        "equal",
        "approximated",
    }
    _shardmig("export --source wandb --source-option path=w -d two/data -f two/files")
    assert _contents(tmp_path / "two") == _contents(tmp_path / "one")


def test_wandb_runs_into_mlflow(sqlite_file: Path, tmp_path: Path) -> None:
    everything(tmp_path / "w")
    into = f"--target mlflow --mlflow-tracking-uri sqlite:///{sqlite_file} -d one/data -f one/files"
    _shardmig(f"migrate --source wandb --source-option path=w {into}")
    assert _verdicts(f"verify {into}") <= {"equal", "approximated"}


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
def test_an_archive_that_went_through_a_server_equals_itself(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    everything(tmp_path / "w")
    _shardmig("export --source wandb --source-option path=w -d one/data -f one/files")
    _shardmig("load -d one/data -f one/files --target wandb")
    assert _verdicts("verify -d one/data -f one/files --target wandb") == {"equal"}
    _shardmig("export --source wandb -d two/data -f two/files")
    assert _contents(tmp_path / "two") == _contents(tmp_path / "one")


def _shardmig(line: str, *arguments: str) -> Any:
    from contextlib import redirect_stdout
    from io import StringIO

    told = StringIO()
    with redirect_stdout(told):
        ended = execute([*line.split(), *arguments, "--engine", "inline", "--json", "--no-progress"])
    assert ended == 0, told.getvalue()
    return json.loads(told.getvalue())


def _verdicts(line: str) -> set[str]:
    return {outcome["verdict"] for outcome in _shardmig(line)["outcomes"]["verify"]}


def _contents(folder: Path) -> dict[tuple[str, str], dict[FieldKey, FieldDigest]]:
    archive = ArchiveReader(ArchivePaths(str(folder / "data"), str(folder / "files")))
    return {
        (project, run.id): field_digests(piece.chunk for piece in archive.read(run, Want()))
        for project in map(ProjectId, archive.projects())
        for run in archive.runs(project)
    }
