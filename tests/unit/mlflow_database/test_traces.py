"""Traces that are written as rows are those that MLflow's own store writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback, TraceInfo, TraceLocation, TraceState

from shardmig.adapters.mlflow.objects.starting import start_together
from shardmig.adapters.mlflow.objects.stores import Stores

_TABLES = ("trace_info", "trace_tags", "trace_request_metadata", "assessments")
_USAGE = {"input_tokens": 7, "output_tokens": 2**40, "total_tokens": "nine"}
_METADATA: Sequence[dict[str, str]] = [
    {},
    {"mlflow.trace.session": "sitzung", "mlflow.sourceRun": "r", "own": "å" * 250},
    {"mlflow.trace.tokenUsage": json.dumps(_USAGE), "mlflow.trace.cost": '{"total_cost": 0.1}'},
    {"mlflow.trace.tokenUsage": "no JSON", "mlflow.trace.infoFinalized": "no"},
]


def infos(experiment: str) -> list[TraceInfo]:
    """One for each metadata and state, and one with an assessment, which is left to MLflow."""
    made = [
        TraceInfo(
            trace_id=f"tr-{number:032x}",
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=1_700_000_000_000 + number,
            state=state,
            request_preview="frage" if number % 2 else None,
            response_preview=None if number % 2 else "antwort",
            client_request_id=f"c{number}" if number % 3 else None,
            execution_duration=number or None,
            trace_metadata=dict(_METADATA[number % len(_METADATA)]),
            tags={"mlflow.traceName": "name" * number, "empty": "", "long": "x" * 4000} if number else {},
        )
        for number, state in enumerate(list(TraceState) * 2)
    ]
    judged = made[-1]
    source = AssessmentSource("HUMAN", "eve")
    judged.assessments.append(Feedback(name="good", value=True, source=source, trace_id=judged.trace_id))
    return made


def rows(uri: str) -> dict[str, list[str]]:
    """Of each table, without what is new in each: ids and times of assessments."""
    engine = sqlalchemy.create_engine(uri)
    tables = {name: sqlalchemy.Table(name, sqlalchemy.MetaData(), autoload_with=engine) for name in _TABLES}
    with engine.connect() as connection:
        found = {
            name: sorted(
                repr({key: row[key] for key in row if "timestamp" not in key or name != "assessments"})
                for row in connection.execute(sqlalchemy.select(table)).mappings()
            )
            for name, table in tables.items()
        }
    engine.dispose()
    return found


@pytest.fixture
def open_stores(request: pytest.FixtureRequest) -> Callable[..., Stores]:
    """Opens stores, and closes them when the test has ended."""

    def open_one(uri: str, *, may_be_bulk: bool = True) -> Stores:
        stores = Stores(uri, None, may_be_bulk=may_be_bulk)
        request.addfinalizer(stores.close)
        return stores

    return open_one


@pytest.mark.parametrize("databases", ["sqlite_pair", pytest.param("postgres_pair", marks=pytest.mark.postgres)])
def test_rows_of_traces_are_those_that_mlflow_writes(
    databases: str, request: pytest.FixtureRequest, open_stores: Callable[..., Stores]
) -> None:
    uris = request.getfixturevalue(databases)
    for uri, is_bulk in zip(uris, (False, True), strict=True):
        experiment = MlflowClient(uri).create_experiment("traces", artifact_location="mlflow-artifacts:/there?a=b")
        stores = open_stores(uri, may_be_bulk=is_bulk)
        assert (stores.bulk is not None) == is_bulk
        given = infos(experiment)
        given[-1].assessments[0].assessment_id = "a-1"
        assert start_together(stores, given) == {}
    ordinary, bulk = map(rows, uris)
    assert len(bulk["trace_info"]) == len(infos("0"))
    assert len(bulk["assessments"]) == 1
    assert bulk == ordinary


def test_a_trace_that_is_refused_costs_no_other_one(sqlite_uri: str, open_stores: Callable[..., Stores]) -> None:
    client = MlflowClient(sqlite_uri)
    experiment = client.create_experiment("traces")
    stores = open_stores(sqlite_uri)
    given = infos(experiment)
    given[2].tags["mlflow.traceName"] = "n" * 9000
    refused = start_together(stores, given)
    assert list(refused) == [given[2].trace_id]
    assert "Trace name" in str(refused[given[2].trace_id])
    assert len(rows(sqlite_uri)["trace_info"]) == len(given) - 1


def test_traces_of_a_deleted_experiment_are_refused_one_by_one(
    sqlite_uri: str, open_stores: Callable[..., Stores]
) -> None:
    client = MlflowClient(sqlite_uri)
    experiment = client.create_experiment("traces")
    client.delete_experiment(experiment)
    refused = start_together(open_stores(sqlite_uri), infos(experiment)[:3])
    assert len(refused) == 3
    assert rows(sqlite_uri)["trace_info"] == []
