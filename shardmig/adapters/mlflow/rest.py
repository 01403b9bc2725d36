"""The run store over MLflow's REST API."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from shardmig.adapters.mlflow.batches import Batch, Batches, Param, param_groups
from shardmig.adapters.mlflow.facts import KEY
from shardmig.adapters.mlflow.histories import metrics_of
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.refusals import deleted_experiment
from shardmig.adapters.mlflow.store import Metrics, NewRun, Status, StoredRun
from shardmig.adapters.wrappers import retrying
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import MigrationKey, TargetRunId

T = TypeVar("T")

API: Final = "/api/2.0/mlflow/"
HISTORY_BULK: Final = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
MOST_HISTORY: Final = 25_000
"""Rows that get-history-bulk gives at most; it cuts in silence."""
_EXPERIMENTS_IN_SEARCH: Final = 1000


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _Info(msgspec.Struct):
    run_id: TargetRunId
    experiment_id: str
    status: str = ""
    run_name: str = ""
    user_id: str = ""
    start_time: int | None = None
    end_time: int | None = None
    artifact_uri: str = ""
    lifecycle_stage: str = "active"


class _Name(msgspec.Struct):
    key: str


class _RunContent(msgspec.Struct):
    metrics: list[_Name] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


class _Run(msgspec.Struct):
    info: _Info
    data: _RunContent = msgspec.field(default_factory=_RunContent)

    def stored(self) -> StoredRun:
        info = self.info
        return StoredRun(
            id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name,
            user=info.user_id,
            status=info.status,
            start_ms=info.start_time,
            end_ms=info.end_time,
            artifact_uri=info.artifact_uri,
            tags={tag.key: tag.value for tag in self.data.tags},
            params={param.key: param.value for param in self.data.params},
            metric_keys=[metric.key for metric in self.data.metrics],
        )


class _RunAnswer(msgspec.Struct):
    run: _Run


class _RunsAnswer(msgspec.Struct):
    runs: list[_Run] = []
    next_page_token: str = ""


class _Experiment(msgspec.Struct):
    experiment_id: str
    name: str = ""
    lifecycle_stage: str = "active"


class _ExperimentAnswer(msgspec.Struct):
    experiment: _Experiment


class _ExperimentsAnswer(msgspec.Struct):
    experiments: list[_Experiment] = []
    next_page_token: str = ""


class _Created(msgspec.Struct):
    experiment_id: str


class _Point(msgspec.Struct):
    value: float | str
    timestamp: int
    step: int = 0


class _History(msgspec.Struct):
    metrics: list[_Point] = []
    next_page_token: str = ""


class RestStore:
    """RunStore over HTTP. Calls that may be repeated are retried; runs/create is not."""

    def __init__(self, http: HttpClient, *, connections: int) -> None:
        self._http = http
        self._connections = connections
        self._experiments: dict[str, str] = {}
        self._batches: dict[TargetRunId, Batches] = {}

    def experiment_id(self, name: str) -> str:
        """As RunStore."""
        if name not in self._experiments:
            try:
                self._experiments[name] = self._active_experiment(name)
            except NotFound:
                try:
                    created = self._call("POST", "experiments/create", _Created, {"name": name})
                    self._experiments[name] = created.experiment_id
                except TargetConflict:  # another worker was faster
                    self._experiments[name] = self._active_experiment(name)
        return self._experiments[name]

    def experiment_name(self, experiment_id: str) -> str:
        """As RunStore."""
        answer = self._call("GET", "experiments/get", _ExperimentAnswer, {"experiment_id": experiment_id})
        return answer.experiment.name

    def find_runs(self, key: MigrationKey) -> list[StoredRun]:
        """As RunStore."""
        experiments = list(self._all_experiments())
        found: list[StoredRun] = []
        for start in range(0, len(experiments), _EXPERIMENTS_IN_SEARCH):
            body = {
                "experiment_ids": experiments[start : start + _EXPERIMENTS_IN_SEARCH],
                "filter": f"tags.`{KEY}` = '{key}'",
                "run_view_type": "ACTIVE_ONLY",
                "max_results": 100,
            }
            found += [run.stored() for run in self._call("POST", "runs/search", _RunsAnswer, body).runs]
        return sorted(found, key=lambda run: run.id)

    def create_run(self, run: NewRun) -> StoredRun:
        """As RunStore."""
        body = {
            "experiment_id": run.experiment_id,
            "run_name": run.name,
            "user_id": run.user,
            "start_time": run.start_ms,
            "tags": [Param(key, value) for key, value in run.tags.items()],
        }
        return self._http.call("POST", f"{API}runs/create", _RunAnswer, body, once=True).run.stored()

    def log_params(self, run: StoredRun, params: Mapping[str, str]) -> None:
        """As RunStore."""
        self._waiting(run).add_params(params)

    def log_metrics(self, run: StoredRun, metrics: Metrics) -> None:
        """As RunStore."""
        self._waiting(run).add_metrics(metrics)

    def set_tags(self, run: StoredRun, tags: Mapping[str, str]) -> None:
        """As RunStore."""
        self.flush(run)
        for group, _ in param_groups([Param(key, value) for key, value in tags.items()]):
            self._send(Batch(run.id, tags=group))

    def flush(self, run: StoredRun) -> None:
        """As RunStore."""
        if run.id in self._batches:
            self._batches.pop(run.id).flush()

    def finish_run(self, run: StoredRun, status: Status, end_ms: int | None, tags: Mapping[str, str]) -> None:
        """As RunStore."""
        self.flush(run)
        end = {} if end_ms is None else {"end_time": end_ms}
        self._call("POST", "runs/update", object, {"run_id": run.id, "status": status} | end)
        self.set_tags(run, tags)

    def delete_run(self, run_id: TargetRunId) -> None:
        """As RunStore."""
        self._batches.pop(run_id, None)
        try:
            self._call("POST", "runs/delete", object, {"run_id": run_id})
        except NotFound:
            return

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """As RunStore."""
        return self._call("GET", "runs/get", _RunAnswer, {"run_id": run_id}).run.stored()

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As RunStore. A whole series is held while it is sorted: 24 bytes a point."""
        with ThreadPoolExecutor(self._connections, thread_name_prefix="history") as pool:
            ahead: deque[tuple[str, Future[list[_Point]]]] = deque()
            try:
                for key in keys:
                    ahead.append((key, pool.submit(self._points, run.id, key)))
                    if len(ahead) > 2 * self._connections:
                        yield from self._sorted(*ahead.popleft(), rows)
                while ahead:
                    yield from self._sorted(*ahead.popleft(), rows)
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """As RunStore."""
        self._http.close()

    def _sorted(self, key: str, points: Future[list[_Point]], rows: int) -> Iterator[Metrics]:
        found = points.result()
        return metrics_of(
            key,
            [point.step for point in found],
            [point.timestamp for point in found],
            [float(point.value) for point in found],
            rows,
        )

    def _points(self, run_id: TargetRunId, key: str) -> list[_Point]:
        """All points of one key: in one answer of get-history-bulk (measured: twice as fast) unless they are many."""
        try:
            points = self._retried(lambda: self._bulk_points(run_id, key))
            if len(points) < MOST_HISTORY:
                return points
        except NotFound:  # a server without this part of the UI's API
            pass
        points, token = [], ""
        query = {"run_id": run_id, "metric_key": key, "max_results": MOST_HISTORY}
        while True:
            page = self._call("GET", "metrics/get-history", _History, query | ({"page_token": token} if token else {}))
            points += page.metrics
            if not (token := page.next_page_token):
                return points

    def _bulk_points(self, run_id: TargetRunId, key: str) -> list[_Point]:
        text = self._http.read(HISTORY_BULK, {"run_id": run_id, "metric_key": key, "max_results": MOST_HISTORY})
        try:
            return msgspec.json.decode(text, type=_History, strict=False).metrics
        except msgspec.DecodeError:  # NaN, which JSON does not have and this answer may hold
            return msgspec.convert(json.loads(text), _History, strict=False).metrics

    def _active_experiment(self, name: str) -> str:
        query = {"experiment_name": name}
        found = self._call("GET", "experiments/get-by-name", _ExperimentAnswer, query).experiment
        if found.lifecycle_stage != "active":
            raise deleted_experiment(name, found.experiment_id)
        return found.experiment_id

    def _all_experiments(self) -> Iterator[str]:
        token = ""
        while True:
            body = {"max_results": 1000, "view_type": "ACTIVE_ONLY"} | ({"page_token": token} if token else {})
            page = self._call("POST", "experiments/search", _ExperimentsAnswer, body)
            yield from (experiment.experiment_id for experiment in page.experiments)
            if not (token := page.next_page_token):
                return

    def _waiting(self, run: StoredRun) -> Batches:
        return self._batches.setdefault(run.id, Batches(run.id, self._send, self._connections))

    def _send(self, batch: Batch) -> None:
        self._call("POST", "runs/log-batch", object, batch)

    def _call(self, method: str, path: str, answer: type[T], body: Any) -> T:
        return self._retried(lambda: self._http.call(method, API + path, answer, body))

    def _retried(self, call: Callable[[], T]) -> T:
        return retrying(call)
