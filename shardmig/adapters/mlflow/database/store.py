"""The bulk store: the life of a run in a few large transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final, TypeVar
from uuid import uuid4

import numpy as np
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag
from sqlalchemy import Connection, update

from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.database.facts import (
    artifact_root,
    insert_params,
    insert_run,
    require_run,
    set_tags,
)
from shardmig.adapters.mlflow.database.history import read_history
from shardmig.adapters.mlflow.database.insert import insertion
from shardmig.adapters.mlflow.database.latest import keep_latest
from shardmig.adapters.mlflow.database.reading import active_experiment, find_by_key, read_experiments, read_run
from shardmig.adapters.mlflow.database.schema import RUNS
from shardmig.adapters.mlflow.store import Dataset, Experiment, NewRun, RunStore, Status, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.errors import BadInput, NotFound, TargetConflict
from shardmig.records import MigrationKey, TargetRunId

T = TypeVar("T")

ROWS_A_TRANSACTION: Final = 50_000
"""About a quarter of a second on SQLite: long enough to fill it, short enough for the writers that wait."""


class _Pending:
    """What was logged to a run and waits for the next transaction."""

    def __init__(self) -> None:
        self.params: dict[str, str] = {}
        self.parts: list[Metrics] = []
        self.rows = 0


class DatabaseStore:
    """Implements `store.RunStore`. What is rare (new experiments, listings, deletion) MLflow's own code does."""

    is_flushed_by_end = True

    def __init__(self, database: Database, open_ordinary: Callable[[], RunStore]) -> None:
        """Takes over both: `close` closes them. The ordinary store is opened when it is needed: opening it takes longer than
        to read a run."""
        self._database = database
        self._open_ordinary = open_ordinary
        self._pending: dict[TargetRunId, _Pending] = {}
        self._experiments: dict[str, str] = {}

    @cached_property
    def _ordinary(self) -> RunStore:
        return self._open_ordinary()

    def experiment_id(self, name: str) -> str:
        """See RunStore. Asked once: `create_run` looks whether the experiment is still there."""
        if name not in self._experiments:
            with self._database.reading() as connection:
                found = active_experiment(connection, name)
            self._experiments[name] = found or self._ordinary.experiment_id(name)
        return self._experiments[name]

    def experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        with self._database.reading() as connection:
            found = read_experiments(connection, experiment_id)
        if not found:
            raise NotFound(f"MLflow has no experiment {experiment_id}")
        return found[0]

    def experiments(self) -> Iterator[Experiment]:
        """See RunStore."""
        with self._database.reading() as connection:
            return iter(read_experiments(connection))

    def search_runs(self, experiments: Sequence[str], *, only_migrated: bool) -> Iterator[StoredRun]:
        """See RunStore."""
        return self._ordinary.search_runs(experiments, only_migrated=only_migrated)

    def find_runs(self, key: MigrationKey) -> list[StoredRun]:
        """See RunStore."""
        with self._database.reading() as connection:
            return find_by_key(connection, key)

    def create_run(self, run: NewRun) -> StoredRun:
        """See RunStore. Columns as MLflow's own create_run fills them."""
        run_id = _new_id()
        tags = _checked_tags({**run.tags, MLFLOW_RUN_NAME: run.name}, run_id)
        with self._database.writing() as connection:
            root = artifact_root(connection, run.experiment_id)
            stored = StoredRun(
                id=run_id,
                experiment_id=run.experiment_id,
                name=run.name,
                user=run.user,
                status=RunStatus.to_string(RunStatus.RUNNING),
                start_ms=run.start_ms,
                end_ms=None,
                artifact_uri=append_to_uri_path(root, run_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME),
                tags=tags,
            )
            insert_run(connection, stored)
            set_tags(connection, run_id, tags)
        return stored

    def log_params(self, run: StoredRun, params: Mapping[str, str]) -> None:
        """See RunStore. Buffered: another value for a param that is there is found by `flush`."""
        pending = self._pending_of(run)
        for param in _checked(lambda: [_validate_param(key, value) for key, value in params.items()], run.id):
            if pending.params.setdefault(param.key, param.value) != param.value:
                raise TargetConflict("this param was already given another value", run=run.id, field=param.key)

    def log_metrics(self, run: StoredRun, metrics: Metrics) -> None:
        """See RunStore. Buffered up to one transaction."""
        earliest_ms = int(metrics.times_ms.min(initial=0))
        _checked(lambda: [_validate_metric(key, 0.0, earliest_ms, 0) for key in metrics.keys], run.id)
        for part in cut(metrics, ROWS_A_TRANSACTION):
            pending = self._pending_of(run)
            if pending.rows + len(part) > ROWS_A_TRANSACTION:
                self.flush(run)
                pending = self._pending_of(run)
            pending.parts.append(part)
            pending.rows += len(part)

    def set_tags(self, run: StoredRun, tags: Mapping[str, str]) -> None:
        """See RunStore."""
        checked = _checked_tags(tags, run.id)
        with self._writing(run) as connection:
            set_tags(connection, run.id, checked)

    def log_datasets(self, run: StoredRun, datasets: Sequence[Dataset]) -> None:
        """See RunStore."""
        self._ordinary.log_datasets(run, datasets)

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See RunStore."""
        self._ordinary.tag_experiment(experiment_id, tags)

    def flush(self, run: StoredRun) -> None:
        """See RunStore."""
        if run.id in self._pending:
            with self._writing(run):
                pass

    def finish_run(self, run: StoredRun, status: Status, end_ms: int | None, tags: Mapping[str, str]) -> None:
        """See RunStore. One transaction with what was still buffered."""
        checked = _checked_tags(tags, run.id)
        facts: dict[str, Any] = {"status": status} | ({} if end_ms is None else {"end_time": end_ms})
        with self._writing(run) as connection:
            connection.execute(update(RUNS).where(RUNS.c.run_uuid == run.id).values(facts))
            set_tags(connection, run.id, checked)

    def delete_run(self, run_id: TargetRunId) -> None:
        """See RunStore."""
        self._pending.pop(run_id, None)
        self._ordinary.delete_run(run_id)

    def restore_run(self, run_id: TargetRunId) -> None:
        """See RunStore."""
        self._ordinary.restore_run(run_id)

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """See RunStore."""
        with self._database.reading() as connection:
            return read_run(connection, run_id)

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """See RunStore."""
        return read_history(self._database, run.id, keys, rows)

    def close(self) -> None:
        """See RunStore."""
        self._pending.clear()
        self._database.close()
        if "_ordinary" in self.__dict__:
            self._ordinary.close()

    def _pending_of(self, run: StoredRun) -> _Pending:
        return self._pending.setdefault(run.id, _Pending())

    @contextmanager
    def _writing(self, run: StoredRun) -> Iterator[Connection]:
        """One transaction about a run, what was logged to it first. Raises NotFound for a run that is gone."""
        # Taken out first: what a failed transaction loses is logged again by whoever redoes the run.
        pending = self._pending.pop(run.id, _Pending())
        insert_points = insertion(self._database, run.id, pending.parts)
        with self._database.writing() as connection:
            require_run(connection, run.id)
            if pending.params:
                insert_params(connection, run.id, pending.params)
            if pending.parts:
                insert_points(connection)
                for part in pending.parts:
                    keep_latest(connection, run.id, part)
            yield connection


def _new_id() -> TargetRunId:
    """A UUID of version 7: it begins with the time. MLflow's own are random, and the indexes of points begin with them: points
    of runs whose ids ascend are inserted at the end (measured on SQLite: a fifth faster)."""
    return TargetRunId(f"{time.time_ns() // 1_000_000:012x}7{uuid4().hex[13:]}")


def _checked_tags(tags: Mapping[str, str], run_id: TargetRunId) -> dict[str, str]:
    return {tag.key: tag.value for tag in _checked(lambda: [_validate_tag(*tag) for tag in tags.items()], run_id)}


def _checked(check: Callable[[], list[T]], run_id: TargetRunId) -> list[T]:
    """What MLflow's own validation makes of names and values: the bulk path takes no more than the API would."""
    try:
        return check()
    except MlflowException as error:
        raise BadInput(str(error), run=run_id) from error


def cut(metrics: Metrics, rows: int) -> Iterator[Metrics]:
    """The same points in parts of at most `rows`."""
    ends = np.cumsum(metrics.lengths)
    for start in range(0, len(metrics), rows):
        stop = min(start + rows, len(metrics))
        first, last = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop, "left"))
        bounds = np.concatenate(([start], ends[first:last], [stop]))
        part = slice(start, stop)
        yield Metrics(
            metrics.keys[first : last + 1],
            np.diff(bounds),
            metrics.steps[part],
            metrics.times_ms[part],
            metrics.values[part],
        )
