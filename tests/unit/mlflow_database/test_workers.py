"""Several workers on one database, and workers that die."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store, prepare_database
from shardmig.adapters.mlflow.store import NewRun
from shardmig.records import MigrationKey
from tests.unit.mlflow_database.writer import ROWS, write_run

ROOT = Path(__file__).parents[3]


@contextmanager
def writer(uri: str, name: str, runs: int, transactions: int) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.unit.mlflow_database.writer", uri, name, str(runs), str(transactions)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def content(uri: str) -> dict[str, list[tuple[object, ...]]]:
    """The rows of each table, without ids."""
    columns = {
        "metrics": "key, step, timestamp, value, is_nan",
        "latest_metrics": "key, step, value",
        "params": "key, value",
    }
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        tables = {
            table: [tuple(row) for row in connection.exec_driver_sql(f"SELECT {names} FROM {table} ORDER BY {names}")]
            for table, names in columns.items()
        }
    engine.dispose()
    return tables


def test_workers_that_start_at_once_share_one_new_file(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    with writer(uri, "a", 3, 4) as one, writer(uri, "b", 3, 4) as other:
        for process in (one, other):
            process.communicate(timeout=300)
        assert (one.returncode, other.returncode) == (0, 0)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]
    store = ClientStore(uri)
    assert all(store.find_runs(MigrationKey(f"{name}-{number}")) for name in "ab" for number in range(3))
    assert len(content(uri)["metrics"]) == 6 * 4 * 2 * ROWS
    store.close()


def test_a_killed_initialisation_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.shardmig-new").write_bytes(b"half a database")
    uri = prepare_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    store, reason = open_store(uri, lambda: ClientStore(uri))
    assert reason == ""
    store.close()


def test_a_run_replayed_after_a_kill_is_as_if_nothing_had_happened(uri: str) -> None:
    with writer(uri, "k", 1, 50) as process:
        assert process.stdout is not None
        assert [next(process.stdout) for _ in range(3)] == ["0\n", "1\n", "2\n"]
        process.kill()
    store, _ = open_store(uri, lambda: ClientStore(uri))
    (partial,) = store.find_runs(MigrationKey("k-0"))
    assert partial.status == "RUNNING"
    assert len(content(uri)["metrics"]) >= 3 * 2 * ROWS
    write_run(store, partial, 50)
    replayed = content(uri)
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        for table in replayed:
            connection.exec_driver_sql(f"DELETE FROM {table}")
    engine.dispose()
    new = NewRun(experiment_id="0", name="undisturbed", start_ms=1, user="eve", tags={"shardmig.key": "u"})
    write_run(store, store.create_run(new), 50)
    assert content(uri) == replayed
    store.close()
