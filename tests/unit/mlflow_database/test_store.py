"""What the bulk store does that a caller can see, on each database."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store, prepare_database
from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.database.store import ROWS_A_TRANSACTION, cut
from shardmig.adapters.mlflow.database.uri import driver_uri
from shardmig.adapters.mlflow.store import NewRun, RunStore, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.errors import BadInput, DiskFull, Fatal, NotFound, TargetConflict, Unavailable
from shardmig.records import MigrationKey, TargetRunId
from tests.contract.mlflow.runs import metrics_of


def curve(points: int, key: str = "loss") -> Metrics:
    steps = np.arange(points, dtype=np.int64)
    return Metrics([key], np.array([points], dtype=np.int64), steps, steps + 7, steps / 3)


def read(store: RunStore, run: StoredRun, *keys: str, rows: int = 1000) -> list[tuple[str, int, int, str]]:
    """Every point as (key, step, time, value)."""
    return [
        (key, int(metrics.steps[row]), int(metrics.times_ms[row]), repr(float(metrics.values[row])))
        for metrics in store.history(run, keys, rows)
        for key, part in metrics.spans()
        for row in range(part.start, part.stop)
    ]


def test_a_run_is_found_by_its_key_as_soon_as_it_is_created(store: RunStore, run: StoredRun) -> None:
    assert store.find_runs(MigrationKey("k")) == [run]
    assert store.find_runs(MigrationKey("k'--")) == []


def test_a_deleted_run_is_not_found(store: RunStore, run: StoredRun) -> None:
    store.log_metrics(run, curve(3))
    store.delete_run(run.id)
    assert store.find_runs(MigrationKey("k")) == []


def test_points_logged_again_stay_as_they_are(store: RunStore, run: StoredRun) -> None:
    for _ in range(2):
        store.log_metrics(run, curve(120))
        store.flush(run)
    store.log_metrics(run, curve(123))
    store.log_metrics(run, curve(10))
    store.flush(run)
    assert read(store, run, "loss") == [("loss", step, step + 7, repr(step / 3)) for step in range(123)]


def test_nothing_logged_is_seen_before_flush_and_everything_after_finish(store: RunStore, run: StoredRun) -> None:
    store.log_params(run, {"a": "1"})
    store.log_metrics(run, curve(5))
    assert read(store, run, "loss") == []
    store.finish_run(run, "FAILED", 99, {"shardmig.state": "complete"})
    stored = store.get_run(run.id)
    assert (stored.status, stored.end_ms, stored.params) == ("FAILED", 99, {"a": "1"})
    assert stored.tags["shardmig.state"] == "complete"
    assert len(read(store, run, "loss")) == 5


def test_more_points_than_a_transaction_takes_are_written_before_flush(store: RunStore, run: StoredRun) -> None:
    store.log_metrics(run, curve(ROWS_A_TRANSACTION + 10))
    assert len(next(store.history(run, ["loss"], 10**6))) == ROWS_A_TRANSACTION
    store.flush(run)
    assert len(next(store.history(run, ["loss"], 10**6))) == ROWS_A_TRANSACTION + 10


def test_another_value_for_a_param_is_refused(store: RunStore, run: StoredRun) -> None:
    store.log_params(run, {"a": "1", "b": "2"})
    store.flush(run)
    store.log_params(run, {"a": "1", "b": "3"})
    with pytest.raises(TargetConflict) as refused:
        store.flush(run)
    assert refused.value.field == "b"
    store.log_params(run, {"c": "1"})
    with pytest.raises(TargetConflict):
        store.log_params(run, {"c": "2"})


def test_what_a_refused_transaction_held_is_not_written_later(store: RunStore, run: StoredRun) -> None:
    store.log_params(run, {"a": "1"})
    store.flush(run)
    store.log_params(run, {"a": "2", "new": "1"})
    store.log_metrics(run, curve(5))
    with pytest.raises(TargetConflict):
        store.flush(run)
    store.flush(run)
    assert store.get_run(run.id).params == {"a": "1"}
    assert read(store, run, "loss") == []


@pytest.mark.parametrize("name", ["../up", "a//b", "/abs", "tab\there", ".", "k" * 251])
def test_a_name_that_the_api_refuses_is_refused(store: RunStore, run: StoredRun, name: str) -> None:
    with pytest.raises(BadInput):
        store.log_metrics(run, curve(1, name))
    with pytest.raises(BadInput):
        store.log_params(run, {name: "1"})
    with pytest.raises(BadInput):
        store.set_tags(run, {name: "1"})


def test_a_time_before_1970_is_refused(store: RunStore, run: StoredRun) -> None:
    with pytest.raises(BadInput, match="nonnegative"):
        store.log_metrics(run, metrics_of({"loss": [(1, -1, 0.0)]}))


def test_a_name_set_as_tag_is_the_run_s_name(store: RunStore, run: StoredRun) -> None:
    store.set_tags(run, {"mlflow.runName": "other"})
    stored = store.get_run(run.id)
    assert (stored.name, stored.tags["mlflow.runName"]) == ("other", "other")


def test_nothing_is_written_to_a_run_that_is_gone(store: RunStore, run: StoredRun, uri: str) -> None:
    gone = msgspec.structs.replace(run, id=TargetRunId("0" * 32))
    with pytest.raises(NotFound):
        store.finish_run(gone, "FINISHED", 1, {})
    store.log_metrics(gone, curve(1))
    with pytest.raises(NotFound):
        store.flush(gone)
    with pytest.raises(NotFound):
        store.set_tags(gone, {"left": "over"})
    database = Database(driver_uri(uri, bulk=True))
    with database.reading() as connection:
        for table in ("metrics", "latest_metrics", "tags"):
            statement = f"SELECT * FROM {table} WHERE run_uuid = '{gone.id}'"
            assert connection.exec_driver_sql(statement).all() == []
    database.close()


def test_no_run_is_created_in_an_experiment_that_is_deleted_or_missing(store: RunStore, uri: str) -> None:
    from mlflow.tracking import MlflowClient

    experiment = store.experiment_id("doomed")
    MlflowClient(uri).delete_experiment(experiment)
    new = NewRun(experiment_id=experiment, name="run", start_ms=5, user="eve", tags={})
    with pytest.raises(TargetConflict):
        store.create_run(new)
    with pytest.raises(NotFound):
        store.create_run(NewRun(experiment_id="987654", name="run", start_ms=5, user="eve", tags={}))


def test_history_comes_in_the_order_asked_for_and_by_step_time_value(store: RunStore, run: StoredRun) -> None:
    nan = math.nan
    points = {
        "Zeta": [(2, 1, 1.0), (1, 1, 1.0)],
        "alpha": [(0, 2, 5.0), (0, 1, nan), (0, 1, 6.0)],
        "änd": [(0, 0, 1.0)],
    }
    store.log_metrics(run, metrics_of(points))
    store.flush(run)
    for rows in (1, 2, 4, 100):
        assert read(store, run, "änd", "missing", "alpha", "Zeta", rows=rows) == [
            ("änd", 0, 0, "1.0"),
            ("alpha", 0, 1, "6.0"),
            ("alpha", 0, 1, "nan"),
            ("alpha", 0, 2, "5.0"),
            ("Zeta", 1, 1, "1.0"),
            ("Zeta", 2, 1, "1.0"),
        ]


def test_a_long_series_is_split_at_the_ends_of_steps_only(store: RunStore, run: StoredRun) -> None:
    points = [(step, time_ms, 0.5) for step in (-3, 0, 9) for time_ms in range(7)] + [(10, 0, 1.0), (11, 0, 1.0)]
    store.log_metrics(run, metrics_of({"loss": points}))
    store.flush(run)
    for rows in range(1, 25):
        parts = list(store.history(run, ["loss"], rows))
        steps = [set(part.steps.tolist()) for part in parts]
        assert sum(map(len, steps)) == len(set().union(*steps)) == 5
        assert sum(map(len, parts)) == len(points)


def test_many_short_series_are_read_together(store: RunStore, run: StoredRun) -> None:
    keys = [f"layer/{number}" for number in range(1300)]
    store.log_metrics(run, metrics_of({key: [(0, 0, 1.0), (1, 0, number)] for number, key in enumerate(keys)}))
    store.flush(run)
    parts = list(store.history(run, keys[::-1], 1000))
    assert [key for part in parts for key in part.keys] == keys[::-1]
    assert max(map(len, parts)) == 1000
    assert np.concatenate([part.values[1::2] for part in parts]).tolist() == list(range(1299, -1, -1))


def test_a_file_that_is_no_database_is_fatal(tmp_path: Path, sqlite_uri: str) -> None:
    (tmp_path / "no.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Fatal):
        open_store(f"sqlite:///{tmp_path / 'no.db'}", lambda: ClientStore(sqlite_uri))


def test_a_full_disk_stops_everything(sqlite_uri: str, sqlite_file: Path) -> None:
    database = Database(sqlite_uri)
    pages = sqlite_file.stat().st_size // 4096
    with database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DiskFull), database.translated():
            connection.exec_driver_sql("CREATE TABLE filling AS SELECT randomblob(1000000)")
    database.close()


def test_a_database_that_does_not_answer_is_tried_again_later() -> None:
    with pytest.raises(Unavailable):
        prepare_database("postgresql://nobody@127.0.0.1:9/none")


@pytest.mark.parametrize(("sizes", "rows"), [([3, 0, 4], 2), ([5], 5), ([1, 1, 1], 10), ([0, 7, 0], 3), ([], 2)])
def test_cutting_keeps_every_point_in_order(sizes: list[int], rows: int) -> None:
    total = sum(sizes)
    column = np.arange(total, dtype=np.int64)
    keys = [f"k{number}" for number in range(len(sizes))]
    whole = Metrics(keys, np.array(sizes, dtype=np.int64), column, column, column / 2)
    parts = list(cut(whole, rows))
    assert all(0 < len(part) <= rows for part in parts)
    pairs = [(key, int(step)) for part in parts for key, span in part.spans() for step in part.steps[span]]
    assert pairs == [(key, int(step)) for key, span in whole.spans() for step in whole.steps[span]]


def test_another_program_may_write_between_two_transactions(sqlite_uri: str, sqlite_file: Path) -> None:
    store, _ = open_store(sqlite_uri, lambda: ClientStore(sqlite_uri))
    new = NewRun(experiment_id=store.experiment_id("Default"), name="run", start_ms=5, user="eve", tags={})
    run = store.create_run(new)
    with sqlite3.connect(sqlite_file) as other:
        other.execute("UPDATE runs SET name = 'renamed'")
    other.close()
    store.finish_run(run, "FINISHED", 6, {})
    assert store.get_run(run.id).name == "renamed"
    store.close()
