"""Sources and targets for copies between MLflows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_world import fill_objects
from tests.contract.mlflow_source.world import fill
from tests.servers.mlflow import mlflow_server
from tests.servers.postgres import postgres_server
from tests.servers.tracking_databases import postgres_template, postgres_uri, sqlite_file, sqlite_template

__all__ = ["postgres_server", "postgres_template", "postgres_uri", "sqlite_file", "sqlite_template"]


@pytest.fixture
def databases(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """A filled SQLite file and an empty one."""
    copy = Copy(tmp_path, f"sqlite:///{tmp_path}/source/mlflow.db", f"sqlite:///{tmp_path}/target/mlflow.db")
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        shutil.copy(sqlite_template, tmp_path / name / "mlflow.db")
    monkeypatch.chdir(tmp_path / "source")
    fill(copy.source)
    monkeypatch.chdir(tmp_path / "target")
    return copy


@pytest.fixture
def servers(sqlite_template: Path, tmp_path: Path) -> Iterator[Copy]:
    """A server with runs and objects, and an empty one."""
    folders = [tmp_path / "source", tmp_path / "target"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(sqlite_template, folder / "mlflow.db")
    with (
        mlflow_server(folders[0], folders[0] / "mlflow.db", workers=1) as source,
        mlflow_server(folders[1], folders[1] / "mlflow.db", workers=1) as target,
    ):
        fill(source.uri)
        fill_objects(source.uri)
        yield Copy(tmp_path, source.uri, target.uri)
