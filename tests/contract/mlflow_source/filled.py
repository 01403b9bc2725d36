"""Databases that are filled once: fixtures of the tests that copy them."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from tests.contract.mlflow_source.objects_world import fill_objects
from tests.contract.mlflow_source.world import fill
from tests.made_once import made_once


@pytest.fixture(scope="session")
def filled_file(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled SQLite file, its artifacts beside it. Not to be written."""

    def make(folder: Path) -> None:
        shutil.copy(sqlite_template, folder / "mlflow.db")
        with chdir(folder):
            fill(f"sqlite:///{folder}/mlflow.db")

    return made_once(tmp_path_factory, "mlflow-filled", make) / "mlflow.db"


@pytest.fixture(scope="session")
def filled_objects(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every object, and its artifacts. Not to be written."""

    def make(folder: Path) -> None:
        shutil.copy(sqlite_template, folder / "mlflow.db")
        with chdir(folder):
            fill_objects(f"sqlite:///{folder}/mlflow.db")

    return made_once(tmp_path_factory, "mlflow-objects", make) / "mlflow.db"
