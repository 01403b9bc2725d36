"""The HTTP client against a real loopback server: credentials, errors, connections."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest

from shardmig import errors
from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.http import HttpClient
from tests.servers.scripted import Server, scripted_server

__all__ = ["scripted_server"]

ANYBODY = Login(Credentials())


@pytest.fixture
def server(scripted_server: Server) -> Server:
    return scripted_server


@pytest.fixture
def client(server: Server) -> Iterator[HttpClient]:
    client = HttpClient(f"{server.uri}/mlflow", ANYBODY, connections=2, timeout_s=5)
    yield client
    client.close()


def test_calls_share_one_kept_connection(server: Server, client: HttpClient) -> None:
    for _ in range(5):
        client.call("POST", "/api", dict[str, str], {"a": 1})
    assert server.connections == 1
    assert server.asked[0][:2] == ("POST", "/mlflow/api")
    assert server.asked[0][3] == b'{"a":1}'


def test_a_connection_that_the_server_closed_is_replaced_without_a_word(server: Server, client: HttpClient) -> None:
    server.closing_after_answer = True
    for _ in range(3):
        client.call("POST", "/api", object, {})
    assert len(server.asked) == 3


def test_a_call_that_must_not_be_repeated_has_a_connection_of_its_own(server: Server, client: HttpClient) -> None:
    client.call("POST", "/api", object, {})
    client.call("POST", "/api", object, {}, once=True)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (401, {}, b"who?", errors.AuthFailed),
        (403, {}, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', errors.Denied),
        (404, {}, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}', errors.NotFound),
        (400, {}, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', errors.NotFound),
        (400, {}, b'{"error_code": "RESOURCE_ALREADY_EXISTS"}', errors.TargetConflict),
        (400, {}, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad"}', errors.BadInput),
        (429, {}, b"slow down", errors.RateLimited),
        (503, {}, b"", errors.Unavailable),
        (503, {"Retry-After": "2"}, b"", errors.RateLimited),
        (504, {}, b"", errors.TimedOut),
        (500, {}, b"<html>", errors.Unavailable),
    ],
)
def test_refusals_get_their_class(
    server: Server, client: HttpClient, status: int, headers: dict[str, str], body: bytes, kind: type[Exception]
) -> None:
    server.script.append((status, headers, body))
    with pytest.raises(kind) as refusal:
        client.call("POST", "/api", object, {})
    assert type(refusal.value) is kind
    client.call("POST", "/api", object, {})
    assert server.connections == 1, "the connection is still good"


@pytest.mark.parametrize(("text", "pause_s"), [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None)])
def test_retry_after_is_read_in_every_form(server: Server, client: HttpClient, text: str, pause_s: float) -> None:
    server.script.append((429, {"Retry-After": text}, b""))
    with pytest.raises(errors.RateLimited) as limited:
        client.call("GET", "/api", object)
    assert limited.value.retry_after_s == pause_s


def test_an_answer_that_is_no_json_is_transient(server: Server, client: HttpClient) -> None:
    server.script.append((200, {}, b"<html>a proxy's page</html>"))
    with pytest.raises(errors.Unavailable):
        client.call("GET", "/api", object)


def test_no_server_is_transient() -> None:
    with pytest.raises(errors.Unavailable):
        HttpClient("http://127.0.0.1:9", ANYBODY, connections=1, timeout_s=5).call("GET", "/api", object)


def test_a_silent_server_times_out(server: Server) -> None:
    release = threading.Event()
    server.finish_request = lambda *_: release.wait(5)  # type: ignore[method-assign, assignment]
    client = HttpClient(server.uri, ANYBODY, connections=1, timeout_s=0.2)
    with pytest.raises(errors.TimedOut):
        client.call("GET", "/api", object)
    release.set()


def test_files_go_up_and_down_with_quoted_names(server: Server, client: HttpClient) -> None:
    client.upload("/files/ü x+y.bin", io.BytesIO(bytes(range(256)) * 9000), 256 * 9000)
    command, path, _, content = server.asked[0]
    assert (command, path) == ("PUT", "/mlflow/files/%C3%BC%20x%2By.bin")
    assert content == bytes(range(256)) * 9000
    server.script.append((200, {}, content))
    file = io.BytesIO()
    client.download("/files/x", file)
    assert file.getvalue() == content
