"""The parts of a crash test: the preloaded library, what is migrated, an empty database, an undisturbed migration."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.harness import ROOT, Content, Fault, Migration, Role, Undisturbed

MakeMigration = Callable[[], Migration]


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of four runs that the real Neptune clients wrote and never synced."""
    folder = tmp_path_factory.mktemp("source")
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo_project.py", folder], check=True, cwd=folder, capture_output=True
    )
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow initialises it, which takes it seconds: every migration begins with a copy."""
    folder = tmp_path_factory.mktemp("database")
    script = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    uri = f"sqlite:///{folder}/mlflow.db"
    subprocess.run([sys.executable, "-c", script, uri], check=True, cwd=folder, capture_output=True)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_migration(
    tmp_path_factory: pytest.TempPathFactory, source: Path, empty_database: Path, faults: Path
) -> MakeMigration:
    """Makes one that has not begun."""
    folder, numbers = tmp_path_factory.mktemp("migrations"), itertools.count()
    return lambda: Migration(folder / f"{next(numbers)}", source, empty_database, faults)


@pytest.fixture
def migration(new_migration: MakeMigration) -> Migration:
    """One that has not begun."""
    return new_migration()


@pytest.fixture(scope="session")
def undisturbed(new_migration: MakeMigration) -> dict[Role, Undisturbed]:
    """A migration that nothing disturbs, executed once for each role whose steps are noted."""
    learnt: dict[Role, Undisturbed] = {}
    roles: tuple[Role, ...] = ("coordinator", "worker")
    for role in roles:
        migration = new_migration()
        ended = migration.execute(Fault(role, step=0))
        assert ended.returncode == 0, ended.stderr
        learnt[role] = Undisturbed(migration.content(), migration.steps())
    return learnt


@pytest.fixture(scope="session")
def expected(undisturbed: dict[Role, Undisturbed]) -> Content:
    """What every migration must leave in the end."""
    return undisturbed["worker"].content
