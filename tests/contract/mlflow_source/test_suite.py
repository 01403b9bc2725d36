"""The MLflow source passes the suite of every source, over a database."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.mlflow.source import open_source
from tests.contract.mlflow_source.world import fill


@pytest.fixture(scope="session")
def filled(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled SQLite file and its artifacts, for the whole session. Not to be written."""
    folder = tmp_path_factory.mktemp("filled-mlflow")
    shutil.copy(sqlite_template, folder / "mlflow.db")
    before = Path.cwd()
    os.chdir(folder)
    try:
        fill(f"sqlite:///{folder}/mlflow.db", points=60)
    finally:
        os.chdir(before)
    return folder


class TestMlflowDatabase(SourceSuite):
    @pytest.fixture(autouse=True)
    def _database(self, filled: Path) -> None:
        self.filled = filled

    def open_source(self, folder: Path) -> ReadSide:
        return open_source({"tracking-uri": f"sqlite:///{self.filled}/mlflow.db"})

    def snapshot(self, folder: Path) -> object:
        return super().snapshot(self.filled)
