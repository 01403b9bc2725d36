"""The parts of a crash test: the preloaded library, what is migrated, an empty database, an undisturbed migration."""

from __future__ import annotations

import itertools
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.faulty import Fault, Role
from tests.crash.migration import Content, Migration, Undisturbed
from tests.made_once import demo_project, made_once
from tests.servers.tracking_databases import sqlite_template

__all__ = ["demo_project", "sqlite_template"]

MakeMigration = Callable[[], Migration]


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl", "-lpthread"],
        check=True,
    )
    return library


@pytest.fixture(scope="session")
def new_migration(
    tmp_path_factory: pytest.TempPathFactory, demo_project: Path, sqlite_template: Path, faults: Path
) -> MakeMigration:
    """Makes one that has not begun."""
    folder, numbers = tmp_path_factory.mktemp("migrations"), itertools.count()
    return lambda: Migration(folder / f"{next(numbers)}", demo_project, sqlite_template, faults)


@pytest.fixture
def migration(new_migration: MakeMigration) -> Migration:
    """One that has not begun."""
    return new_migration()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, new_migration: MakeMigration) -> dict[Role, Undisturbed]:
    """A migration that nothing disturbs, executed once for each role whose steps are noted."""
    roles: tuple[Role, ...] = ("coordinator", "worker")

    def executed(role: Role) -> Undisturbed:
        migration = new_migration()
        ended = migration.execute(Fault(role, step=0))
        assert ended.returncode == 0, ended.stderr
        return Undisturbed(migration.content(), migration.steps())

    def make(folder: Path) -> None:
        with ThreadPoolExecutor() as threads:
            learnt = dict(zip(roles, threads.map(executed, roles), strict=True))
        (folder / "learnt").write_bytes(pickle.dumps(learnt))

    noted = made_once(tmp_path_factory, "undisturbed", make) / "learnt"
    learnt: dict[Role, Undisturbed] = pickle.loads(noted.read_bytes())
    return learnt


@pytest.fixture(scope="session")
def expected(undisturbed: dict[Role, Undisturbed]) -> Content:
    """What every migration must leave in the end."""
    return undisturbed["worker"].content
