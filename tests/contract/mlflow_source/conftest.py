"""Sources and targets for copies between MLflows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.filled import filled_file, filled_objects
from tests.contract.mlflow_source.objects_world import fill_objects
from tests.contract.mlflow_source.world import fill
from tests.servers.mlflow import mlflow_http, mlflow_server, server_over
from tests.servers.postgres import postgres_server
from tests.servers.tracking_databases import postgres_template, postgres_uri, sqlite_file, sqlite_template

__all__ = [
    "filled_file",
    "filled_objects",
    "mlflow_http",
    "postgres_server",
    "postgres_template",
    "postgres_uri",
    "sqlite_file",
    "sqlite_template",
]


@pytest.fixture
def databases(filled_file: Path, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """A filled SQLite file and an empty one."""
    for name, template in (("source", filled_file), ("target", sqlite_template)):
        (tmp_path / name).mkdir()
        shutil.copy(template, tmp_path / name / "mlflow.db")
    monkeypatch.chdir(tmp_path / "target")
    return Copy(tmp_path, f"sqlite:///{tmp_path}/source/mlflow.db", f"sqlite:///{tmp_path}/target/mlflow.db")


@pytest.fixture(params=["sqlite_file", pytest.param("postgres_uri", marks=pytest.mark.postgres)])
def servers(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> Iterator[Copy]:
    """A server with runs and objects over a SQLite file, and an empty one over another file or over PostgreSQL."""
    folders = [tmp_path / "from", tmp_path / "to"]
    for folder in folders:
        folder.mkdir()
    shutil.copy(sqlite_template, folders[0] / "mlflow.db")
    empty = request.getfixturevalue(request.param)
    store = empty if request.param == "postgres_uri" else f"sqlite:///{empty}"
    with (
        mlflow_server(folders[0], folders[0] / "mlflow.db", workers=1) as source,
        server_over(store, folders[1], workers=1) as port,
    ):
        fill(source.uri)
        fill_objects(source.uri)
        yield Copy(tmp_path, source.uri, f"http://127.0.0.1:{port}")
