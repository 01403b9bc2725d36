"""Row by row from database to database: everything arrives, is compared, and nothing is guessed."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from shardmig.adapters.mlflow.rows.copying import Copied, copy_database
from shardmig.errors import TargetConflict, UsageError
from tests.contract.mlflow_rows.rows import EXPERIMENT, ROWS, held

VOLATILE = {"jobs", "job_locks", "scheduler_leases", "sql_trace_rollup_rebuild_queue"}
COUNTED = {"sql_assessment_daily_rollups", "sql_span_cost_daily_rollups", "sql_trace_metric_daily_rollups"}


class Broken(Exception):
    """What ends a copy here, as a kill would."""


@pytest.fixture(autouse=True)
def webhook_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow encrypts them with this key, else with a new one in every process."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "g2vDVd0YAyaMFyTSGV9dbUVNPTIx1OInhzyEWnnLvyM=")


def copy(source: str, target: str, roots: list[tuple[str, str]] | None = None) -> Copied:
    return copy_database(source, target, roots or [], lambda *_: None)


def sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


def assert_same(source: str, target: str) -> None:
    theirs, ours = held(source), held(target)
    assert {name: rows for name, rows in theirs.items() if name not in VOLATILE} == {
        name: rows for name, rows in ours.items() if name not in VOLATILE
    }


def test_every_table_arrives_in_a_new_database(source: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(source.read_bytes()).digest()
    copied = copy(sqlite(source), sqlite(tmp_path / "new.db"))
    assert copied.is_equal
    assert_same(sqlite(source), sqlite(tmp_path / "new.db"))
    assert copied.left_out == dict.fromkeys(VOLATILE, ROWS)
    assert hashlib.sha256(source.read_bytes()).digest() == before


def test_from_sqlite_to_postgresql_and_back_nothing_changes(source: Path, postgres_uri: str, tmp_path: Path) -> None:
    assert copy(sqlite(source), postgres_uri).is_equal
    assert copy(postgres_uri, sqlite(tmp_path / "back.db")).is_equal
    assert_same(sqlite(source), sqlite(tmp_path / "back.db"))
    client = MlflowClient(postgres_uri)
    assert int(client.create_experiment("the next one")) == EXPERIMENT + ROWS


@pytest.mark.parametrize("extra", ["", "CREATE TABLE own (n INTEGER)"])
def test_a_database_that_holds_nothing_becomes_the_same_and_keeps_what_is_not_mlflows(
    source: Path, sqlite_template: Path, tmp_path: Path, extra: str
) -> None:
    """Without a table of somebody else's the whole file is copied, each row at its place; with one, row by row."""
    target = Path(shutil.copy(sqlite_template, tmp_path / "empty.db"))
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute(extra)
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE metrics SET rowid = rowid + 100")
        connection.execute("CREATE TABLE users (id INTEGER)")
        connection.execute("CREATE VIEW people AS SELECT * FROM users")
        connection.execute("UPDATE runs SET artifact_uri = 's3://old/' || name")
        connection.execute("CREATE TRIGGER late AFTER INSERT ON tags BEGIN DELETE FROM tags; END")
    copied = copy(sqlite(source), sqlite(target), [("s3://old", "s3://new")])
    assert copied.is_equal
    assert not copied.went_on
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, 's3://old', 's3://new')")
    assert_same(sqlite(source), sqlite(target))
    with closing(sqlite3.connect(target)) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type <> 'index'")}
        [(first,)] = connection.execute("SELECT min(rowid) FROM metrics")
    assert (first <= 100) == bool(extra)
    assert ("own" in known) == bool(extra)
    assert "prevent_secrets_aad_mutation" in known
    assert not known & {"users", "people", "late", "shardmig_copy"}
    assert not list(tmp_path.glob("*.shardmig-new"))


def test_what_mlflow_shows_of_a_run_is_the_same(source: Path, tmp_path: Path) -> None:
    client = MlflowClient(sqlite(source))
    run = client.create_run(str(EXPERIMENT), start_time=17, run_name="ünï").info.run_id
    for step in range(3):
        client.log_metric(run, "loss", float("nan") if step == 1 else step / 3, timestamp=step, step=step)
    client.log_param(run, "p", "x" * 6000)
    client.set_terminated(run, "FAILED", end_time=99)
    copy(sqlite(source), sqlite(tmp_path / "new.db"))
    other = MlflowClient(sqlite(tmp_path / "new.db"))
    assert other.get_run(run).to_dictionary() == client.get_run(run).to_dictionary()
    assert repr(other.get_metric_history(run, "loss")) == repr(client.get_metric_history(run, "loss"))


@pytest.mark.parametrize("broken_at", [1, 30])
def test_a_copy_that_was_cut_goes_on_and_ends_as_if_it_had_not_been(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    target = sqlite(tmp_path / "new.db")
    with pytest.raises(Broken):
        copy_database(sqlite(source), target, [], _breaking(broken_at))
    with pytest.raises(TargetConflict, match="another copy"):
        copy_database(sqlite(source), target, [("experime0", "/b")], lambda *_: None)
    copied = copy(sqlite(source), target)
    assert copied.is_equal
    assert copied.went_on
    assert_same(sqlite(source), target)


def test_pages_are_cut_anywhere(source: Path, tmp_path: Path, postgres_uri: str) -> None:
    client = MlflowClient(sqlite(source))
    run = client.create_run(str(EXPERIMENT)).info.run_id
    with closing(sqlite3.connect(source)) as connection, connection:
        rows = [(f"k{number % 7}", number / 3, number, number, 0, run) for number in range(60_000)]
        names = "key, value, timestamp, step, is_nan, run_uuid"
        connection.executemany(f"INSERT INTO metrics ({names}) VALUES (?, ?, ?, ?, ?, ?)", rows)
    broken = _breaking(1, "metrics")
    with pytest.raises(Broken):
        copy_database(sqlite(source), postgres_uri, [], broken)
    assert copy(sqlite(source), postgres_uri).is_equal
    assert copy(postgres_uri, sqlite(tmp_path / "back.db")).is_equal
    assert_same(sqlite(source), sqlite(tmp_path / "back.db"))


def test_into_a_database_in_use_experiments_get_free_ids_and_every_reference_follows(
    source: Path, sqlite_template: Path, tmp_path: Path
) -> None:
    target = tmp_path / "used.db"
    target.write_bytes(sqlite_template.read_bytes())
    ours = MlflowClient(sqlite(target))
    for number in range(EXPERIMENT + 1):
        ours.create_experiment(f"own {number}")
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE registered_model_tags SET key='_mlflow_experiment_ids', value=',7,9,'")
        connection.execute("UPDATE entity_associations SET destination_type='experiment', destination_id='8'")
        names = "experiment_id, name, workspace, lifecycle_stage"
        connection.execute(f"INSERT INTO experiments ({names}) VALUES (0, 'Default', 'default', 'active')")
        connection.execute("INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('theirs', '1', 0)")
        connection.execute("UPDATE runs SET experiment_id = 0 WHERE experiment_id = 9")
    copied = copy(sqlite(source), sqlite(target))
    assert copied.is_equal
    assert copied.experiments == [(7, 10), (8, 11)]
    assert copied.shares_default
    assert ours.get_experiment("10").name == MlflowClient(sqlite(source)).get_experiment("7").name
    found = held(sqlite(target))
    assert all('"value": ",10,9,"' in row for row in found["registered_model_tags"])
    assert all('"destination_id": "11"' in row for row in found["entity_associations"])
    assert [sum(f'"experiment_id": {number}}}' in row for row in found["runs"]) for number in (0, 10, 11)] == [1, 1, 1]
    assert not any('"theirs"' in row for row in found["experiment_tags"])


def test_what_the_target_has_already_is_refused_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    target = sqlite(tmp_path / "new.db")
    copy(sqlite(source), target)
    before = held(target)
    with pytest.raises(TargetConflict, match="already"):
        copy(sqlite(source), target)
    assert held(target) == before


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM metrics WHERE rowid = 1",
        "UPDATE params SET value = value || ' '",
        "UPDATE metrics SET value = value + 1e-16 WHERE rowid = 2",
        "INSERT INTO tags VALUES ('one', 'more', (SELECT run_uuid FROM runs LIMIT 1))",
    ],
)
@pytest.mark.parametrize("is_whole", [True, False], ids=["pages", "rows"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_row_that_changes_meanwhile_is_found(
    source: Path, sqlite_template: Path, tmp_path: Path, harm: str, is_whole: bool, side: str
) -> None:
    target = Path(shutil.copy(sqlite_template, tmp_path / "new.db"))
    if not is_whole:
        with closing(sqlite3.connect(target)) as connection, connection:
            connection.execute("CREATE TABLE own (n INTEGER)")

    def harmed(table: str, rows: int) -> None:
        if table == "guardrail_configs" and rows:  # the last one
            with closing(sqlite3.connect(source if side == "source" else target)) as connection, connection:
                connection.execute(harm)

    assert not copy_database(sqlite(source), sqlite(target), [], harmed).is_equal


def test_uris_follow_their_roots_and_only_those(source: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = 's3://old/mlruns/7/' || name")
        connection.execute("UPDATE experiments SET artifact_location = 's3://older/x'")
        connection.execute("UPDATE trace_tags SET key = 'mlflow.artifactLocation', value = 's3://old'")
        connection.execute(
            "INSERT INTO trace_tags SELECT 'mlflow.trace.archiveLocation', value, request_id FROM trace_tags"
        )
        connection.execute("UPDATE workspaces SET trace_archival_location = 's3://old/archive'")
    copied = copy(sqlite(source), sqlite(tmp_path / "new.db"), [("s3://old/", "/data/new")])
    assert copied.is_equal
    found = held(sqlite(tmp_path / "new.db"))
    assert all('"artifact_uri": "/data/new/mlruns/7/' in row for row in found["runs"])
    assert all('"artifact_location": "s3://older/x"' in row for row in found["experiments"])
    assert len(found["trace_tags"]) == 2 * ROWS
    assert all('"value": "/data/new"' in row for row in found["trace_tags"])
    assert all('"trace_archival_location": "/data/new/archive"' in row for row in found["workspaces"])


@pytest.mark.parametrize(
    ("held_uri", "root", "expected"),
    [
        ("file:///srv/my%20runs/7", ("/srv/my runs", "/new runs"), "file:///new%20runs/7"),
        ("file:///srv/my%20runs/7", ("/srv/my runs", "s3://new"), "s3://new/7"),
        ("/srv/my runs/7", ("file:///srv/my%20runs/", "file:///new%20runs"), "/new runs/7"),
    ],
)
def test_a_folder_may_be_told_as_a_path_or_as_a_uri(
    source: Path, tmp_path: Path, held_uri: str, root: tuple[str, str], expected: str
) -> None:
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", (held_uri,))
    assert copy(sqlite(source), sqlite(tmp_path / "new.db"), [root]).is_equal
    assert all(f'"artifact_uri": "{expected}"' in row for row in held(sqlite(tmp_path / "new.db"))["runs"])


def test_a_root_that_fits_nothing_is_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no artifacts of the source lie below s3://typo") as refused:
        copy(sqlite(source), sqlite(tmp_path / "new.db"), [("experime0", "/new"), ("s3://typo", "/new")])
    assert "experime" in refused.value.hint
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("datasets", "iris"),
        ("mcp_servers", "mcp_serv"),
    ],
)
def test_whatever_has_the_same_name_is_refused_before_the_first_row(
    source: Path, sqlite_template: Path, tmp_path: Path, table: str, named: str
) -> None:
    """Both default experiments become one: what lies in them meets."""
    target = Path(shutil.copy(sqlite_template, tmp_path / "used.db"))
    MlflowClient(sqlite(target)).create_experiment("in use")
    names = "experiment_id, name, workspace, lifecycle_stage"
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute(f"INSERT INTO experiments ({names}) VALUES (0, 'Default', 'default', 'active')")
        connection.execute("DELETE FROM datasets")
        connection.execute("ATTACH ? AS target", (str(target),))
        if table == "datasets":
            columns = "dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source"
            for side in ("main", "target"):
                connection.execute(
                    f"INSERT INTO {side}.{table} ({columns}) SELECT '{side}', 0, 'iris', 'd', 'local', ''"
                )
        else:
            connection.execute(f"INSERT INTO target.{table} SELECT * FROM {table} LIMIT 1")
    before = held(sqlite(target))
    with pytest.raises(TargetConflict, match=rf"already: .*{named}"):
        copy(sqlite(source), sqlite(target))
    assert held(sqlite(target)) == before


def test_a_journal_that_a_killed_copy_left_behind_is_not_played_back(source: Path, tmp_path: Path) -> None:
    """SQLite would do so with any journal that has the name of the file that it opens."""
    target = tmp_path / "new.db"
    for name in ("new.db", "new.db.shardmig-new"):
        killed = (
            "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size = 2');"
            "c.execute('CREATE TABLE t (x)'); c.execute('INSERT INTO t VALUES (zeroblob(99999))'); c.commit();"
            "c.execute('UPDATE t SET x = randomblob(99999)'); c.execute('INSERT INTO t SELECT * FROM t'); os._exit(9)"
        )
        subprocess.run([sys.executable, "-c", killed, tmp_path / name], check=False)
        assert (tmp_path / f"{name}-journal").stat().st_size > 512
        (tmp_path / name).unlink()
    assert copy(sqlite(source), sqlite(target)).is_equal
    assert_same(sqlite(source), sqlite(target))
    assert {path.name for path in tmp_path.glob("new.db*")} == {"new.db"}


def test_a_target_whose_first_tables_alone_were_made_gets_the_others(source: Path, tmp_path: Path) -> None:
    """MLflow makes them in a transaction of their own: a kill may fall behind it."""
    target = tmp_path / "killed.db"
    engine = sqlalchemy.create_engine(sqlite(target))
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE own (n INTEGER)"))  # row by row
    engine.dispose()
    assert copy(sqlite(source), sqlite(target)).is_equal
    assert_same(sqlite(source), sqlite(target))


def test_another_schema_revision_is_refused_and_told_where_to_go(source: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'abc'")
    with pytest.raises(UsageError, match="source cannot be copied row by row") as refused:
        copy(sqlite(source), sqlite(tmp_path / "new.db"))
    assert "mlflow db upgrade" in refused.value.hint


def test_tables_that_mlflow_does_not_know_are_named(source: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("CREATE TABLE users (id INTEGER)")
        connection.execute("INSERT INTO users VALUES (1), (2)")
    assert copy(sqlite(source), sqlite(tmp_path / "new.db")).left_out["users"] == 2


def _breaking(at: int, table: str = "") -> Callable[[str, int], None]:
    def pages() -> Iterator[None]:
        for _ in range(at):
            yield
        raise Broken

    left = pages()

    def seen(name: str, _: int) -> None:
        if table in ("", name):
            next(left)

    return seen
