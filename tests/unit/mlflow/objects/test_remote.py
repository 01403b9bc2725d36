"""MLflow's own REST store sends the credentials of its side, and keeps to the budget that it shares with shardmig's client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.entities import Span
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracing.utils import build_otel_context
from opentelemetry.sdk.trace import ReadableSpan

from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.objects.remote import remote_store
from tests.servers.scripted import Server, scripted_server

__all__ = ["scripted_server"]

REQUESTS_PER_S = 20


@pytest.fixture
def client(scripted_server: Server) -> Iterator[HttpClient]:
    login = Login(Credentials(token="of this side"))
    client = HttpClient(scripted_server.uri, login, connections=1, timeout_s=5, requests_per_s=REQUESTS_PER_S)
    yield client
    client.close()


@pytest.fixture
def store(scripted_server: Server, client: HttpClient) -> Any:
    return remote_store(RestStore, scripted_server.uri, client)


def test_every_request_carries_the_login_of_its_side(scripted_server: Server, store: Any) -> None:
    store.set_trace_tag("tr-1", "key", "text")
    store.set_trace_tag("tr-1", "key", "text")
    assert [headers["Authorization"] for _, _, headers, _ in scripted_server.asked] == ["Bearer of this side"] * 2


def test_requests_of_both_clients_come_from_one_budget(scripted_server: Server, client: HttpClient, store: Any) -> None:
    started_s = time.monotonic()
    for _ in range(3):
        store.set_trace_tag("tr-1", "key", "text")
        client.call("POST", "/api", object, {})
    assert len(scripted_server.asked) == 6
    assert time.monotonic() - started_s >= 5 / REQUESTS_PER_S


def test_a_call_of_several_requests_takes_a_turn_for_each(scripted_server: Server, store: Any) -> None:
    scripted_server.script = [(200, {}, b"3.17.2")]  # asked for before the spans are sent
    attributes = {"mlflow.traceRequestId": '"tr-1"'}
    span = Span(ReadableSpan("one", build_otel_context(1, 1), attributes=attributes, start_time=1, end_time=2))
    started_s = time.monotonic()
    store.log_spans("1", [span])
    assert [path for _, path, _, _ in scripted_server.asked] == ["/version", "/v1/traces"]
    assert time.monotonic() - started_s >= 1 / REQUESTS_PER_S
