"""Logging to a run that was deleted in its source, while other workers log to it; traces that many runs have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from shardmig.adapters.mlflow import facts
from shardmig.adapters.mlflow.objects.links import log_to_run
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.tag_lists import ids_told
from shardmig.adapters.mlflow.objects.trace_links import LINKED, TraceLinks
from shardmig.adapters.sidecar import provenance
from tests.contract.mlflow_source.plain_traces import make_trace

DELETED_COPY = {facts.LIFECYCLE: facts.DELETED, provenance.STATE: provenance.COMPLETE}


@pytest.fixture
def client(sqlite_file: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{sqlite_file}")


@pytest.fixture
def stores(sqlite_file: Path) -> Stores:
    return Stores(f"sqlite:///{sqlite_file}", None)


def deleted_run(client: MlflowClient, tags: dict[str, str]) -> str:
    run: str = client.create_run("0", tags=tags).info.run_id
    client.delete_run(run)
    return run


class Log:
    """Logs a metric; the first times another worker, that has ended its own logging, deletes the run before."""

    def __init__(self, client: MlflowClient, others: int) -> None:
        self._client = client
        self._others = others
        self.calls = 0

    def __call__(self, run: Any) -> None:
        self.calls += 1
        if self.calls <= self._others:
            self._client.delete_run(run.info.run_id)
        self._client.log_metric(run.info.run_id, "loss", 0.5)


def test_what_another_worker_deleted_meanwhile_is_logged_to_again_and_deleted_in_the_end(
    client: MlflowClient, stores: Stores
) -> None:
    run, log = deleted_run(client, DELETED_COPY), Log(client, others=4)
    log_to_run(stores, run, log)
    held = client.get_run(run)
    assert (log.calls, held.data.metrics, held.info.lifecycle_stage) == (5, {"loss": 0.5}, "deleted")


def test_a_run_that_is_deleted_under_every_try_is_an_error_and_stays_deleted(
    client: MlflowClient, stores: Stores
) -> None:
    run, log = deleted_run(client, DELETED_COPY), Log(client, others=100)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        log_to_run(stores, run, log)
    held = client.get_run(run)
    assert (log.calls, held.data.metrics, held.info.lifecycle_stage) == (5, {}, "deleted")


def test_an_active_run_that_somebody_deletes_is_not_made_active_again(client: MlflowClient, stores: Stores) -> None:
    run, log = client.create_run("0").info.run_id, Log(client, others=1)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        log_to_run(stores, run, log)
    assert (log.calls, client.get_run(run).info.lifecycle_stage) == (1, "deleted")


def test_an_active_run_stays_active(client: MlflowClient, stores: Stores) -> None:
    run = client.create_run("0").info.run_id
    log_to_run(stores, run, Log(client, others=0))
    assert client.get_run(run).info.lifecycle_stage == "active"


def test_a_trace_of_many_runs_has_no_tag_that_a_server_cuts(client: MlflowClient, stores: Stores) -> None:
    make_trace(client, "0", 1)
    trace = f"tr-{1:032x}"
    runs = [client.create_run("0").info.run_id for _ in range(130)]
    links, tags = TraceLinks(stores, is_target=True), {LINKED: runs[0]}  # as it was written before
    tags |= links.link(trace, runs[1:100], tags)
    tags |= links.link(trace, runs[100:], tags)
    for key, text in tags.items():
        client.set_trace_tag(trace, key, text)
    held = client.get_trace(trace).info.tags
    assert max(map(len, held.values())) <= 3000  # a server tells 4096 characters
    assert ids_told(LINKED, held) == runs


def test_links_of_a_trace_that_is_written_to_are_looked_for_again(client: MlflowClient, stores: Stores) -> None:
    for number in (1, 2):
        make_trace(client, "0", number)
    ids = [f"tr-{number:032x}" for number in (1, 2)]
    first, second = (stores.tracking.get_trace_info(id_) for id_ in ids)
    run = client.create_run("0").info.run_id
    links = TraceLinks(stores, is_target=True)
    links.expect(ids)
    assert links.runs_of(first) == []  # which looks for those of the second, too
    client.link_traces_to_run([second.trace_id], run)
    links.forget(second.trace_id)
    assert links.runs_of(second) == [run]
