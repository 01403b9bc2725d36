"""The quickstart is the first thing that anybody executes: it must work, and work again."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("quickstart")

_QUICKSTART = Path(__file__).parents[2] / "scripts" / "quickstart"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart was killed early, and then executed to its end."""
    folder = tmp_path_factory.mktemp("quickstart") / "demo"
    (folder / ".neptune.draft" / "offline").mkdir(parents=True)
    output = _quickstart(folder)
    (folder / "output.txt").write_text(output)
    return folder


def test_it_migrates_every_run_and_says_how_to_look_at_them(demo: Path) -> None:
    output = (demo / "output.txt").read_text()
    assert f"cd {demo}" in output
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in output
    assert _runs(demo) == 4


def test_it_says_only_what_matters(demo: Path) -> None:
    output = (demo / "output.txt").read_text()
    assert "Warning" not in output
    assert "[neptune]" not in output
    assert len(output.splitlines()) < 60


def test_everything_stays_in_its_folder(demo: Path) -> None:
    assert [path.name for path in demo.parent.iterdir()] == ["demo"]
    assert {path.name for path in demo.iterdir()} >= {".neptune", ".neptune-scale", "exports", "mlflow.db"}


def test_executed_again_it_doubles_nothing(demo: Path) -> None:
    before = _points(demo)
    _quickstart(demo)
    assert (_runs(demo), _points(demo)) == (4, before)


def _quickstart(folder: Path) -> str:
    result = subprocess.run(
        [_QUICKSTART, folder], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


def _runs(folder: Path) -> int:
    return _count(folder, "SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'")


def _points(folder: Path) -> int:
    return _count(folder, "SELECT count(*) FROM metrics")


def _count(folder: Path, query: str) -> int:
    connection = sqlite3.connect(folder / "mlflow.db")
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()
