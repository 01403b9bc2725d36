"""What takes seconds to make and nobody changes: made by the first test that needs it, for all workers of a session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shardmig.adapters.mlflow.database.turns import turn

_DEMO_PROJECT = Path(__file__).parents[1] / "scripts" / "demo_project.py"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled, in which nothing may be changed. Who comes while it is made waits."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, made = base / name, base / f"{name}.made"
    with turn("made-once", str(folder)):
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def demo_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the real clients leave behind: `.neptune`, `.neptune-scale` and the files that they name."""
    return made_once(tmp_path_factory, "demo-project", _write_demo)


def _write_demo(folder: Path) -> None:
    subprocess.run([sys.executable, _DEMO_PROJECT, folder], check=True, cwd=folder, capture_output=True)
