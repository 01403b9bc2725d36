"""The run store over MLflow's REST API."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec

from shardmig.adapters.mlflow.ahead import RunsAhead
from shardmig.adapters.mlflow.answers import (
    Created,
    DatasetAnswer,
    DatasetInput,
    ExperimentAnswer,
    ExperimentEntry,
    ExperimentsAnswer,
    HistoryAnswer,
    Pair,
    Point,
    RunAnswer,
    RunsAnswer,
)
from shardmig.adapters.mlflow.batches import Batch, Batches, Param, param_groups
from shardmig.adapters.mlflow.facts import is_deleted_copy
from shardmig.adapters.mlflow.histories import History
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.refusals import deleted_experiment
from shardmig.adapters.mlflow.store import Dataset, Experiment, NewRun, Status, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.provenance import KEY
from shardmig.adapters.wrappers import retrying
from shardmig.errors import NotFound, Permanent, TargetConflict
from shardmig.records import MigrationKey, TargetRunId

T = TypeVar("T")

API: Final = "/api/2.0/mlflow/"
HISTORY_BULK: Final = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
MOST_HISTORY: Final = 25_000
"""Rows that get-history-bulk gives at most; it cuts in silence."""
MOST_RUNS: Final = 100
"""Runs that get-history-bulk takes at most."""
_EXPERIMENTS_IN_SEARCH: Final = 1000
_RUNS_IN_PAGE: Final = 1000
_LISTED_S: Final = 10.0
"""How long a listing of the experiments holds for the search of the next run: a store serves one shard, and nobody else
writes runs of that shard."""


class RestStore:
    """RunStore over HTTP. Calls that may be repeated are retried; runs/create is not."""

    is_flushed_by_end = False

    def __init__(self, http: HttpClient, *, connections: int) -> None:
        self._http = http
        self._connections = connections
        self._experiments: dict[str, str] = {}
        self._listed: tuple[float, list[str]] = (-_LISTED_S, [])
        self._batches: dict[TargetRunId, Batches] = {}
        self._ahead = RunsAhead(self._told)
        self._runs_in_bulk = MOST_RUNS
        """How many runs one request for points may be for; 0: this server has no get-history-bulk."""

    def experiment_id(self, name: str) -> str:
        """As RunStore."""
        if name not in self._experiments:
            try:
                self._experiments[name] = self._active_experiment(name)
            except NotFound:
                try:
                    created = self._call("POST", "experiments/create", Created, {"name": name})
                    self._experiments[name] = created.experiment_id
                    self._listed[1].append(created.experiment_id)
                except TargetConflict:  # another worker was faster
                    self._experiments[name] = self._active_experiment(name)
        return self._experiments[name]

    def experiment(self, experiment_id: str) -> Experiment:
        """As RunStore."""
        answer = self._call("GET", "experiments/get", ExperimentAnswer, {"experiment_id": experiment_id})
        return answer.experiment.stored()

    def experiments(self) -> Iterator[Experiment]:
        """As RunStore."""
        return (experiment.stored() for experiment in self._all_experiments("ALL"))

    def search_runs(self, experiments: Sequence[str], *, only_migrated: bool) -> Iterator[StoredRun]:
        """As RunStore."""
        return self._search(experiments, f"tags.`{KEY}` LIKE '%'" if only_migrated else "", "ALL")

    def find_runs(self, key: MigrationKey) -> list[StoredRun]:
        """As RunStore."""
        found = self._search(self._every_experiment(), f"tags.`{KEY}` = '{key}'", "ALL")
        return sorted((run for run in found if not run.is_deleted or is_deleted_copy(run)), key=lambda run: run.id)

    def create_run(self, run: NewRun) -> StoredRun:
        """As RunStore."""
        body = {
            "experiment_id": run.experiment_id,
            "run_name": run.name,
            "user_id": run.user,
            "start_time": run.start_ms,
            "tags": [Param(key, value) for key, value in run.tags.items()],
        }
        return self._http.call("POST", f"{API}runs/create", RunAnswer, body, once=True).run.stored()

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

    def log_datasets(self, run: StoredRun, datasets: Sequence[Dataset]) -> None:
        """As RunStore."""
        inputs = [
            DatasetInput(
                DatasetAnswer(one.name, one.digest, one.source_type, one.source, one.schema, one.profile),
                [Pair(key, value) for key, value in one.tags.items()],
            )
            for one in datasets
        ]
        self._call("POST", "runs/log-inputs", object, {"run_id": run.id, "datasets": inputs})

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """As RunStore."""
        for key, value in tags.items():
            body = {"experiment_id": experiment_id, "key": key, "value": value}
            self._call("POST", "experiments/set-experiment-tag", object, body)

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

    def restore_run(self, run_id: TargetRunId) -> None:
        """As RunStore."""
        self._call("POST", "runs/restore", object, {"run_id": run_id})

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """As RunStore."""
        return self._ahead.run(run_id)

    def expect(self, runs: Iterable[TargetRunId]) -> None:
        """These are read next, in this order: what one request tells of several may be asked for together."""
        self._ahead.expect(runs)

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As RunStore. Several series are fetched at a time (measured: MLflow's server takes about 3 ms a key)."""
        ahead: deque[Future[History]] = deque()
        with ThreadPoolExecutor(self._connections, thread_name_prefix="history") as pool:
            try:
                for key in keys:
                    ahead.append(pool.submit(self._fetched, run.id, key))
                    if len(ahead) > 2 * self._connections:
                        yield from ahead.popleft().result().in_order(rows)
                while ahead:
                    yield from ahead.popleft().result().in_order(rows)
            finally:
                pool.shutdown(cancel_futures=True)
                for left in ahead:
                    if not left.cancelled() and left.exception() is None:
                        left.result().close()

    def close(self) -> None:
        """As RunStore."""
        self._ahead.close()
        self._http.close()

    def _told(self, run_id: TargetRunId) -> StoredRun:
        return self._call("GET", "runs/get", RunAnswer, {"run_id": run_id}).run.stored()

    def _fetched(self, run_id: TargetRunId, key: str) -> History:
        if (held := self._ahead.take(run_id, key)) is not None:
            return held
        histories = self._together([run_id, *self._ahead.others(key)][:MOST_RUNS], key)
        own = histories.pop(run_id)
        self._ahead.learn(key, len(own))
        for other, history in histories.items():
            self._ahead.keep(other, key, history)
        return own

    def _together(self, runs: list[TargetRunId], key: str) -> dict[TargetRunId, History]:
        """All points of one key of the first run, and of others as far as they came along."""
        first = runs[0]
        if len(runs) > 1 and (points := self._bulk_points(runs, key)) is not None:
            histories: dict[TargetRunId, History] = {}
            for run_id, of_run in groupby(points, key=attrgetter("run_id")):
                _add(histories.setdefault(run_id, History(key)), list(of_run))
            if first in histories and histories.keys() <= set(runs):
                return histories
            self._runs_in_bulk = min(self._runs_in_bulk, 1)  # whatever answers does not tell runs apart
        return {first: self._alone(first, key)}

    def _alone(self, run_id: TargetRunId, key: str) -> History:
        """All points of one key: in one answer of get-history-bulk (measured: half the server's time a point), or in
        pages where they are more than that gives."""
        if (points := self._bulk_points([run_id], key)) is None:
            return self._paged(run_id, key)
        history = History(key)
        _add(history, points)
        return history

    def _paged(self, run_id: TargetRunId, key: str) -> History:
        history = History(key)
        query = {"run_id": run_id, "metric_key": key, "max_results": MOST_HISTORY}
        try:
            while True:
                page = self._call("GET", "metrics/get-history", HistoryAnswer, query)
                _add(history, page.metrics)
                if not page.next_page_token:
                    return history
                query["page_token"] = page.next_page_token
        except BaseException:
            history.close()
            raise

    def _bulk_points(self, runs: Sequence[TargetRunId], key: str) -> list[Point] | None:
        """None: they are too many for one answer, or this server has no such part of the UI's API."""
        if len(runs) > self._runs_in_bulk:
            return None
        query = {"run_id": runs, "metric_key": key, "max_results": MOST_HISTORY}
        try:
            text = retrying(lambda: self._http.read(HISTORY_BULK, query))
            points = _decoded(text).metrics
        except (Permanent, ValueError):
            self._runs_in_bulk = min(self._runs_in_bulk, len(runs) - 1, 1)
            return None
        return points if len(points) < MOST_HISTORY else None

    def _active_experiment(self, name: str) -> str:
        query = {"experiment_name": name}
        found = self._call("GET", "experiments/get-by-name", ExperimentAnswer, query).experiment
        if found.lifecycle_stage != "active":
            raise deleted_experiment(name, found.experiment_id)
        return found.experiment_id

    def _every_experiment(self) -> list[str]:
        """Their ids, as they were a moment ago."""
        listed_s, ids = self._listed
        if time.monotonic() - listed_s >= _LISTED_S:
            ids = [experiment.experiment_id for experiment in self._all_experiments("ALL")]
            self._listed = (time.monotonic(), ids)
        return ids

    def _all_experiments(self, view: str) -> Iterator[ExperimentEntry]:
        body: dict[str, Any] = {"max_results": 1000, "view_type": view}
        while True:
            page = self._call("POST", "experiments/search", ExperimentsAnswer, body)
            yield from page.experiments
            if not page.next_page_token:
                return
            body["page_token"] = page.next_page_token

    def _search(self, experiments: Sequence[str], condition: str, view: str) -> Iterator[StoredRun]:
        for start in range(0, len(experiments), _EXPERIMENTS_IN_SEARCH):
            body: dict[str, Any] = {
                "experiment_ids": experiments[start : start + _EXPERIMENTS_IN_SEARCH],
                "filter": condition,
                "run_view_type": view,
                "max_results": _RUNS_IN_PAGE,
                "order_by": ["attributes.start_time ASC"],
            }
            while True:
                page = self._call("POST", "runs/search", RunsAnswer, body)
                yield from (run.stored() for run in page.runs)
                if not page.next_page_token:
                    break
                body["page_token"] = page.next_page_token

    def _waiting(self, run: StoredRun) -> Batches:
        return self._batches.setdefault(run.id, Batches(run.id, self._send, self._connections))

    def _send(self, batch: Batch) -> None:
        self._call("POST", "runs/log-batch", object, batch)

    def _call(self, method: str, path: str, answer: type[T], body: Any) -> T:
        return retrying(lambda: self._http.call(method, API + path, answer, body))


def _decoded(text: bytes) -> HistoryAnswer:
    """Raises ValueError for an answer of another kind."""
    try:
        return msgspec.json.decode(text, type=HistoryAnswer, strict=False)
    except msgspec.DecodeError:  # NaN, which JSON does not have and this answer may hold
        return msgspec.convert(json.loads(text), HistoryAnswer, strict=False)


def _add(history: History, points: list[Point]) -> None:
    history.add(
        [point.step for point in points],
        [point.timestamp for point in points],
        [float(point.value) for point in points],
    )
