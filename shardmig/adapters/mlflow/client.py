"""The run store over MLflow's own database store, in this process: for databases without the bulk path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from shardmig.adapters.mlflow.batches import MAX_ENTRIES, MAX_PARAMS
from shardmig.adapters.mlflow.facts import KEY
from shardmig.adapters.mlflow.histories import metrics_of
from shardmig.adapters.mlflow.refusals import deleted_experiment, mlflow_errors
from shardmig.adapters.mlflow.store import Metrics, NewRun, Status, StoredRun
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import MigrationKey, TargetRunId

HISTORY_PAGE = 25_000


class ClientStore:
    """RunStore over SqlAlchemyStore: correct and slow, about 6,000 points/s (measured). Nothing is buffered."""

    def __init__(self, database_uri: str) -> None:
        with mlflow_errors("opening the MLflow database"):
            make: Any = SqlAlchemyStore  # its methods are not annotated
            self._store = make(database_uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)

    def experiment_id(self, name: str) -> str:
        """As RunStore."""
        if (found := self._active_experiment(name)) is not None:
            return found
        try:
            with mlflow_errors(f"creating experiment {name!r}"):
                return str(self._store.create_experiment(name))
        except TargetConflict:
            if (found := self._active_experiment(name)) is None:
                raise
            return found

    def experiment_name(self, experiment_id: str) -> str:
        """As RunStore."""
        with mlflow_errors(f"experiment {experiment_id}"):
            return str(self._store.get_experiment(experiment_id).name)

    def find_runs(self, key: MigrationKey) -> list[StoredRun]:
        """As RunStore."""
        with mlflow_errors("searching runs"):
            experiments = [experiment.experiment_id for experiment in self._experiments()]
            found = self._store.search_runs(experiments, f"tags.`{KEY}` = '{key}'", ViewType.ACTIVE_ONLY, 100)
        return sorted(map(_stored, found), key=lambda run: run.id)

    def create_run(self, run: NewRun) -> StoredRun:
        """As RunStore."""
        with mlflow_errors(f"creating run {run.name!r}"):
            created = self._store.create_run(run.experiment_id, run.user, run.start_ms, _tags(run.tags), run.name)
        return _stored(created)

    def log_params(self, run: StoredRun, params: Mapping[str, str]) -> None:
        """As RunStore."""
        entries = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(entries), MAX_PARAMS):
            with mlflow_errors("logging params"):
                self._store.log_batch(run.id, [], entries[start : start + MAX_PARAMS], [])

    def log_metrics(self, run: StoredRun, metrics: Metrics) -> None:
        """As RunStore."""
        for start in range(0, len(metrics), MAX_ENTRIES):
            with mlflow_errors("logging metrics"):
                self._store.log_batch(run.id, _entries(metrics, start, start + MAX_ENTRIES), [], [])

    def set_tags(self, run: StoredRun, tags: Mapping[str, str]) -> None:
        """As RunStore."""
        entries = _tags(tags)
        for start in range(0, len(entries), MAX_PARAMS):
            with mlflow_errors("setting tags"):
                self._store.log_batch(run.id, [], [], entries[start : start + MAX_PARAMS])

    def flush(self, run: StoredRun) -> None:
        """As RunStore: nothing waits."""

    def finish_run(self, run: StoredRun, status: Status, end_ms: int | None, tags: Mapping[str, str]) -> None:
        """As RunStore."""
        with mlflow_errors("ending the run"):
            self._store.update_run_info(run.id, RunStatus.from_string(status), end_ms, None)
        self.set_tags(run, tags)

    def delete_run(self, run_id: TargetRunId) -> None:
        """As RunStore."""
        with contextlib.suppress(NotFound), mlflow_errors("deleting the run"):
            self._store.delete_run(run_id)

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """As RunStore."""
        with mlflow_errors(f"run {run_id}"):
            return _stored(self._store.get_run(run_id))

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As RunStore. A whole series is held while it is sorted."""
        for key in keys:
            with mlflow_errors(f"history of {key}"):
                points = list(self._points(run.id, key))
            steps, times_ms = [point.step for point in points], [point.timestamp for point in points]
            yield from metrics_of(key, steps, times_ms, [point.value for point in points], rows)

    def close(self) -> None:
        """As RunStore."""
        self._store.engine.dispose()

    def _points(self, run_id: TargetRunId, key: str) -> Iterator[Metric]:
        token = None
        while True:
            page = self._store.get_metric_history(run_id, key, max_results=HISTORY_PAGE, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _experiments(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._store.search_experiments(ViewType.ACTIVE_ONLY, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _active_experiment(self, name: str) -> str | None:
        with mlflow_errors(f"experiment {name!r}"):
            found = self._store.get_experiment_by_name(name)
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise deleted_experiment(name, found.experiment_id)
        return str(found.experiment_id)


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]


def _entries(metrics: Metrics, start: int, stop: int) -> list[Metric]:
    entries = []
    for key, rows in metrics.spans():
        part = slice(max(rows.start, start), min(rows.stop, stop))
        if part.start < part.stop:
            columns = (metrics.values[part], metrics.times_ms[part], metrics.steps[part])
            entries += [Metric(key, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return entries


def _stored(run: Run) -> StoredRun:
    info = run.info
    return StoredRun(
        id=TargetRunId(info.run_id),
        experiment_id=str(info.experiment_id),
        name=info.run_name or "",
        user=info.user_id or "",
        status=str(info.status),
        start_ms=info.start_time,
        end_ms=info.end_time,
        artifact_uri=info.artifact_uri or "",
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metric_keys=list(run.data.metrics),
    )
