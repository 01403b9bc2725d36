"""What the bulk path leaves behind cannot be told from the ordinary path through any call of MLflow's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput

from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store
from shardmig.adapters.mlflow.store import Dataset, RunStore, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import MigrationKey, TargetRunId
from tests.contract.mlflow.runs import generated_runs, write

FILTERS = [
    "",
    "metrics.`metrics/train/loss_0` > 0",
    "metrics.`nan last beats negative` = 0",
    "metrics.`nan between` < 4 and params.lr != '0.0'",
    "metrics.`late first` = 10",
    "metrics.`infinite as fitted` > 0",
    "tags.later = '1'",
    "tags.`mlflow.runName` LIKE 'run%'",
    "attributes.status = 'FAILED'",
    "attributes.user_id = 'eve' and attributes.start_time > 1",
    "attributes.run_name ILIKE '%RUN 2%'",
    "params.text LIKE '%x'",
]
ORDERS = [
    ["metrics.`metrics/train/loss_1` DESC"],
    ["metrics.`nan alone` ASC", "attributes.start_time DESC"],
    ["params.lr DESC"],
    ["tags.later", "attributes.end_time"],
    ["attributes.status ASC", "attributes.start_time ASC"],
]


def answers(uri: str) -> dict[str, Any]:
    """Everything MLflow's client tells of a tracking store; ids as names, without times of creation."""
    from mlflow.entities import ViewType
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiments = {experiment.experiment_id: experiment for experiment in client.search_experiments(ViewType.ALL)}
    ids = list(experiments)
    runs = client.search_runs(ids, run_view_type=ViewType.ALL, order_by=["attributes.start_time"])
    names = {run.info.run_id: run.info.run_name for run in runs} | {
        key: experiment.name for key, experiment in experiments.items()
    }
    found: dict[str, Any] = {
        f"experiment {experiment.name}": _plain(experiment, names, without=("creation_time", "last_update_time"))
        for experiment in experiments.values()
    }
    for run in runs:
        name = run.info.run_name
        found[f"run {name}"] = _run(client.get_run(run.info.run_id), names)
        found[f"searched run {name}"] = _run(run, names)
        for key in run.data.metrics:
            found[f"history {name} {key}"] = _history(client.get_metric_history(run.info.run_id, key))
    for text in FILTERS:
        found[f"filter {text}"] = sorted(run.info.run_name for run in client.search_runs(ids, text))
    for order in ORDERS:
        found[f"order {order}"] = [run.info.run_name for run in client.search_runs(ids, order_by=order)]
    return found


@pytest.mark.parametrize("databases", ["sqlite_pair", pytest.param("postgres_pair", marks=pytest.mark.postgres)])
def test_every_answer_of_the_api_is_the_same(databases: str, request: pytest.FixtureRequest) -> None:
    ordinary_uri, bulk_uri = request.getfixturevalue(databases)
    bulk_store, reason = open_store(bulk_uri, lambda: ClientStore(bulk_uri))
    assert reason == ""
    for store in (ClientStore(ordinary_uri), bulk_store):
        experiment = store.experiment_id("ws/project – ü")
        for number, content in enumerate(generated_runs()):
            run = write(store, experiment, content, start_ms=1_700_000_000_000 + number)
            if number == 2:
                store.delete_run(run.id)
        store.close()
    bulk, ordinary = answers(bulk_uri), answers(ordinary_uri)
    assert bulk.keys() == ordinary.keys()
    for question, answer in ordinary.items():
        assert bulk[question] == answer, question
    assert len([question for question in bulk if question.startswith("history")]) > 50


def test_what_one_store_wrote_the_other_one_reads(sqlite_file: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    ordinary = ClientStore(uri)
    bulk, _ = open_store(uri, lambda: ordinary)
    experiment = bulk.experiment_id("ws/project")
    stores: tuple[RunStore, RunStore] = (ordinary, bulk)
    for store, content in zip(stores, generated_runs(2), strict=True):
        run = write(store, experiment, content, start_ms=1)
        key = MigrationKey(content.tags["shardmig.key"])
        (found,) = ordinary.find_runs(key)
        assert bulk.find_runs(key) == [msgspec.structs.replace(found, params={}, metric_keys=[], latest=[])]
        keys = sorted(bulk.get_run(run.id).metric_keys)
        ours, theirs = (list(which.history(run, keys, 500)) for which in stores)
        assert _points(ours) == _points(theirs)
    bulk.close()


@pytest.mark.parametrize("databases", ["sqlite_pair", pytest.param("postgres_pair", marks=pytest.mark.postgres)])
def test_the_facts_of_a_run_and_of_its_experiment_are_read_as_mlflow_tells_them(
    databases: str, request: pytest.FixtureRequest
) -> None:
    uri, _ = request.getfixturevalue(databases)
    ordinary = ClientStore(uri)
    bulk, _ = open_store(uri, lambda: ordinary)
    client = MlflowClient(uri)
    experiment = client.create_experiment("facts", tags={"owner": "åsa"})
    given, made = (client.create_logged_model(experiment, name=name).model_id for name in ("given", "made"))
    for content in generated_runs():
        run = write(ordinary, experiment, content, start_ms=7)
        client.log_inputs(run.id, models=[LoggedModelInput(given)])
        client.log_outputs(run.id, [LoggedModelOutput(made, step=3)])
        ordinary.log_datasets(run, [_dataset("train", {"context": "fit", "empty": ""}), _dataset("test", {})])
        ordinary.log_datasets(run, [_dataset("train", {"context": "again"})])
        assert _facts(bulk.get_run(run.id)) == _facts(ordinary.get_run(run.id))
    bare = client.create_run(experiment).info.run_id
    client.delete_run(bare)
    assert _facts(bulk.get_run(TargetRunId(bare))) == _facts(ordinary.get_run(TargetRunId(bare)))
    assert bulk.experiment(experiment) == ordinary.experiment(experiment)
    client.delete_experiment(experiment)
    assert bulk.experiment(experiment) == ordinary.experiment(experiment)
    everything = (sorted(store.experiments(), key=lambda one: one.id) for store in (bulk, ordinary))
    assert next(everything) == next(everything)
    for store in (bulk, ordinary):
        with pytest.raises(NotFound):
            store.get_run(TargetRunId("0" * 32))
        with pytest.raises(NotFound):
            store.experiment("4711")
        with pytest.raises(TargetConflict, match="deleted"):
            store.experiment_id("facts")
    bulk.close()


def _dataset(name: str, tags: dict[str, str]) -> Dataset:
    return Dataset(name=name, digest="d1", source_type="local", source="{}", schema="{}", tags=tags)


def _facts(run: StoredRun) -> dict[str, Any]:
    """Comparable: NaN equals itself, and the order of rows is the database's affair."""
    told = msgspec.structs.asdict(run)
    assert run.metric_keys or run.is_deleted
    lists = ("metric_keys", "latest", "datasets", "model_inputs", "model_outputs")
    return told | {name: sorted(map(repr, told[name])) for name in lists}


def _run(run: Any, names: dict[str, str]) -> dict[str, Any]:
    content = run.to_dictionary()
    content["data"]["metric entities"] = sorted(
        (_plain(metric, names) for metric in run.data._metric_objs), key=lambda metric: metric["key"]
    )
    renamed: dict[str, Any] = _renamed(content, names)
    return renamed


def _history(points: list[Any]) -> list[dict[str, Any]]:
    """In MLflow's order, where it has one: a NaN counts as 0 and the order of equal rows is the database's affair."""
    rows = [_plain(point, {}) for point in points]
    ranks = [(row["timestamp"], row["step"], 0.0 if row["value"] == "NaN" else row["value"]) for row in rows]
    assert ranks == sorted(ranks)
    return sorted(rows, key=lambda row: (row["timestamp"], row["step"], str(row["value"])))


def _plain(entity: Any, names: dict[str, str], without: tuple[str, ...] = ()) -> dict[str, Any]:
    renamed: dict[str, Any] = _renamed({key: part for key, part in dict(entity).items() if key not in without}, names)
    return renamed


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Ids as names; NaN as a text, so that it equals itself."""
    if isinstance(value, dict):
        return {key: _renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, str):
        for identity, name in names.items():
            if len(identity) == 32 or value == identity:
                value = value.replace(identity, name)
    return value


def _points(parts: list[Metrics]) -> list[tuple[str, list[int], list[int], str]]:
    """Points of each key; how they were cut into parts does not matter."""
    joined: dict[str, tuple[list[int], list[int], list[float]]] = {}
    for metrics in parts:
        for key, part in metrics.spans():
            columns = joined.setdefault(key, ([], [], []))
            columns[0].extend(metrics.steps[part].tolist())
            columns[1].extend(metrics.times_ms[part].tolist())
            columns[2].extend(metrics.values[part].tolist())
    return [(key, steps, times, repr(values)) for key, (steps, times, values) in joined.items()]
