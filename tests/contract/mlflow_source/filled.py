"""Databases that are filled once: fixtures of the tests that copy them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from tests.contract.mlflow_source.objects_world import fill_objects
from tests.contract.mlflow_source.world import fill
from tests.made_once import made_once


@pytest.fixture(scope="session")
def filled_file(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled SQLite file, its artifacts beside it. Not to be written."""
    return filled_once(tmp_path_factory, "mlflow-filled", sqlite_template, fill)


@pytest.fixture(scope="session")
def filled_objects(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every object, and its artifacts. Not to be written."""
    return filled_once(tmp_path_factory, "mlflow-objects", sqlite_template, fill_objects)


def filled_once(
    factory: pytest.TempPathFactory, name: str, template: Path, fill_database: Callable[[str], None]
) -> Path:
    """A copy of the template, filled by its URI, its artifacts beside it. Made once, see `made_once`."""

    def make(folder: Path) -> None:
        shutil.copy(template, folder / "mlflow.db")
        with chdir(folder):
            fill_database(f"sqlite:///{folder}/mlflow.db")

    return made_once(factory, name, make) / "mlflow.db"
