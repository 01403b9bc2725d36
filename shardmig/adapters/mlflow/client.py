"""The run store over MLflow's own database store, in this process: for databases without the bulk path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

from mlflow import entities
from mlflow.entities import (
    DatasetInput,
    ExperimentTag,
    InputTag,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from shardmig.adapters.mlflow.batches import MAX_ENTRIES, MAX_PARAMS
from shardmig.adapters.mlflow.facts import is_deleted_copy
from shardmig.adapters.mlflow.histories import History
from shardmig.adapters.mlflow.refusals import deleted_experiment, mlflow_errors
from shardmig.adapters.mlflow.store import Dataset, Experiment, LatestPoint, NewRun, Status, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.provenance import KEY
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import MigrationKey, TargetRunId

HISTORY_PAGE = 25_000
RUNS_IN_PAGE = 1000


class ClientStore:
    """RunStore over SqlAlchemyStore: correct and slow, about 6,000 points/s (measured). Nothing is buffered."""

    is_flushed_by_end = False

    def __init__(self, database_uri: str) -> None:
        with mlflow_errors("opening the MLflow database"):
            self._store = _opened(database_uri)
            if not self._store.search_experiments(ViewType.ALL, max_results=1):  # another file has taken its place
                _opened.cache_clear()
                self._store = _opened(database_uri)

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

    def experiment(self, experiment_id: str) -> Experiment:
        """As RunStore."""
        with mlflow_errors(f"experiment {experiment_id}"):
            return _experiment(self._store.get_experiment(experiment_id))

    def experiments(self) -> Iterator[Experiment]:
        """As RunStore."""
        return map(_experiment, self._experiments(ViewType.ALL))

    def search_runs(self, experiments: Sequence[str], *, only_migrated: bool) -> Iterator[StoredRun]:
        """As RunStore."""
        return self._search(experiments, f"tags.`{KEY}` LIKE '%'" if only_migrated else "")

    def find_runs(self, key: MigrationKey) -> list[StoredRun]:
        """As RunStore."""
        experiments = [experiment.experiment_id for experiment in self._experiments(ViewType.ALL)]
        found = self._search(experiments, f"tags.`{KEY}` = '{key}'")
        return sorted((run for run in found if not run.is_deleted or is_deleted_copy(run)), key=lambda run: run.id)

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

    def log_datasets(self, run: StoredRun, datasets: Sequence[Dataset]) -> None:
        """As RunStore."""
        inputs = [
            DatasetInput(
                entities.Dataset(one.name, one.digest, one.source_type, one.source, one.schema, one.profile),
                [InputTag(key, value) for key, value in one.tags.items()],
            )
            for one in datasets
        ]
        with mlflow_errors("logging datasets"):
            self._store.log_inputs(run.id, inputs)

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """As RunStore."""
        for key, value in tags.items():
            with mlflow_errors(f"tag {key!r} of experiment {experiment_id}"):
                self._store.set_experiment_tag(experiment_id, ExperimentTag(key, value))

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

    def restore_run(self, run_id: TargetRunId) -> None:
        """As RunStore."""
        with mlflow_errors("restoring the run"):
            self._store.restore_run(run_id)

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """As RunStore."""
        with mlflow_errors(f"run {run_id}"):
            return _stored(self._store.get_run(run_id))

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As RunStore."""
        for key in keys:
            with closing(History(key)) as history:
                for page in self._pages(run.id, key):
                    history.add(*zip(*((point.step, point.timestamp, point.value) for point in page), strict=True))
                yield from history.in_order(rows)

    def close(self) -> None:
        """As RunStore."""
        self._store.engine.dispose()

    def _pages(self, run_id: TargetRunId, key: str) -> Iterator[Sequence[Metric]]:
        """Pages that are not empty."""
        token = None
        while True:
            with mlflow_errors(f"history of {key}"):
                page = self._store.get_metric_history(run_id, key, max_results=HISTORY_PAGE, page_token=token)
            if page:
                yield page
            if not (token := page.token):
                return

    def _experiments(self, view: int) -> Iterator[Any]:
        token = None
        while True:
            with mlflow_errors("listing experiments"):
                page = self._store.search_experiments(view, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _search(self, experiments: Sequence[str], condition: str) -> Iterator[StoredRun]:
        order = ["attributes.start_time ASC"]
        token = None
        while True:
            with mlflow_errors("searching runs"):
                page = self._store.search_runs(
                    list(experiments), condition, ViewType.ALL, RUNS_IN_PAGE, order, page_token=token
                )
            yield from map(_stored, page)
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


@lru_cache(maxsize=8)
def _opened(database_uri: str) -> Any:
    """MLflow's store, once a process: making one loads and compiles every migration of its schema (measured: 0.2 s).
    Its engine may be disposed of at any time; it connects again."""
    make: Any = SqlAlchemyStore  # its methods are not annotated
    return make(database_uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)


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
    latest = run.data._metric_objs  # noqa: SLF001
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
        is_deleted=info.lifecycle_stage == "deleted",
        datasets=[_dataset(one) for one in run.inputs.dataset_inputs] if run.inputs else [],
        model_inputs=[model.model_id for model in run.inputs.model_inputs] if run.inputs else [],
        model_outputs=[(model.model_id, model.step) for model in run.outputs.model_outputs] if run.outputs else [],
        latest=[LatestPoint(one.key, one.step, one.timestamp, one.value) for one in latest],
    )


def _dataset(given: DatasetInput) -> Dataset:
    return Dataset.told(given.dataset, {tag.key: tag.value for tag in given.tags})


def _experiment(found: entities.Experiment) -> Experiment:
    return Experiment.told(found, dict(found.tags))
