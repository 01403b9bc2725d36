"""A local Neptune 2.x: speaks the REST protocol of the server to the unmodified `neptune` 1.x client, both ways.

    with neptune_server() as server:
        server.store.add_project("ws/vision", "VIS")
        run = neptune.init_run(project="ws/vision", api_token=server.api_token, mode="sync")

This module is the HTTP side: connections, tokens, faults. Beside it: swagger (what the client downloads), entities (what
is kept), operations (what clients write), nql (queries), api (answers), faults (what goes wrong on purpose).
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.servers.neptune2 import swagger
from tests.servers.neptune2.api import Api, Content, Request
from tests.servers.neptune2.entities import Refused, Store
from tests.servers.neptune2.faults import Faults

_ROUTES: Final = {(operation.method, operation.path): operation.name for operation in swagger.operations()}
_DOCUMENTS: Final = {
    f"{service}/swagger.json": json.dumps(swagger.document(service)).encode()
    for service in (swagger.BACKEND, swagger.LEADERBOARD, swagger.ARTIFACTS)
}
_REFRESH: Final = "/auth/realms/neptune/protocol/openid-connect/token"
_OPEN: Final = ("getClientConfig", "exchangeApiToken")


class NeptuneServer(ThreadingHTTPServer):
    """Neptune 2.x on a loopback port. `requests`: how often each operation was asked, faults included.

    token_life_s: of access tokens. Everything that clients wrote is in `store`.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self._scheme = "http"
        if tls is not None:
            self._scheme, self.socket = "https", tls.wrap_socket(self.socket, server_side=True)
        self.store = Store(lambda: time.time_ns() // 1_000_000)
        self.api = Api(self.store)
        self.api.base_url = self.url
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.token_life_s = 300.0
        self.refreshed = 0
        self.api_key = uuid.uuid4().hex
        self._session = uuid.uuid4().hex
        self.writing = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    @property
    def api_token(self) -> str:
        """What stands in NEPTUNE_API_TOKEN."""
        held = {"api_address": self.url, "api_url": self.url, "api_key": self.api_key}
        return base64.b64encode(json.dumps(held).encode()).decode()

    def tokens(self) -> dict[str, Any]:
        """A new access token, whose signature nobody checks."""
        claims = {
            "exp": int(time.time() + self.token_life_s),
            "azp": "neptune-cli",
            "iss": f"{self.url}/auth/realms/neptune",
        }
        parts = ({"alg": "none", "typ": "JWT"}, claims, self._session)
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        return {"access": token, "refresh": self.api_key, "life_s": int(self.token_life_s)}

    def expire_tokens(self) -> None:
        """Take none of the access tokens given out so far, whatever their claims say."""
        self._session = uuid.uuid4().hex

    def is_valid(self, authorization: str) -> bool:
        """Is this header one of our tokens, and still good?"""
        try:
            _, claims, key = [
                json.loads(base64.urlsafe_b64decode(part + "==")) for part in authorization.partition(" ")[2].split(".")
            ]
        except ValueError:
            return False
        return bool(key == self._session and claims["exp"] > time.time())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


@contextmanager
def neptune_server(tls: ssl.SSLContext | None = None) -> Iterator[NeptuneServer]:
    """A running server, gone at the end."""
    server = NeptuneServer(tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Connection(BaseHTTPRequestHandler):
    server: NeptuneServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        name = _ROUTES.get((self.command, target.path), target.path)
        self.server.requests[name] += 1
        if self.server.faults.latency_s:
            time.sleep(self.server.faults.latency_s)
        query = parse_qs(target.query, keep_blank_values=True)
        words = " ".join([name, *query.get("attribute", []), *query.get("experimentId", [])])
        fault = self.server.faults.strike(words)
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault.isdigit():
            retry = {"Retry-After": str(self.server.faults.retry_after_s)} if fault == "429" else {}
            self._send(int(fault), Content(b'{"title": "a fault"}', "application/json", **retry))
            return
        status, content = self._result(name, Request(query, dict(self.headers), body))
        self._send(status, content, is_cut=fault == "cut")

    def _result(self, name: str, request: Request) -> tuple[int, Content]:
        try:
            self._authorize(name)
            if name in _DOCUMENTS:
                return 200, Content(_DOCUMENTS[name], "application/json")
            answer = self._dispatch(name, request)
        except Refused as refusal:
            return refusal.status, _json(refusal.body)
        return 200, answer if isinstance(answer, Content) else _json(answer)

    def _dispatch(self, name: str, request: Request) -> Any:
        if name == _REFRESH:
            self.server.refreshed += 1
        if name in (_REFRESH, "exchangeApiToken"):
            token = self.server.tokens()
            if name == _REFRESH:
                names = {"access_token": token["access"], "refresh_token": token["refresh"]}
                return {**names, "token_type": "Bearer", "expires_in": token["life_s"]}
            return {"accessToken": token["access"], "refreshToken": token["refresh"], "username": "somebody"}
        operation = getattr(self.server.api, _snake_case(name), None)
        if operation is None:
            raise Refused(404, "NOT_FOUND", name)
        if self.command == "GET":
            return operation(request)
        with self.server.writing:
            return operation(request)

    def _authorize(self, name: str) -> None:
        if name in (_REFRESH, f"{swagger.BACKEND}/swagger.json"):
            return
        if name in _OPEN:
            if self.headers.get("X-Neptune-Api-Token") != self.server.api_token:
                raise Refused(401, "INVALID_API_TOKEN")
        elif not self.server.is_valid(self.headers.get("Authorization", "")):
            raise Refused(401, "AUTHORIZATION_TOKEN_EXPIRED")

    def _send(self, status: int, answer: Content, *, is_cut: bool = False) -> None:
        self.send_response(status)
        for name, text in answer.headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if is_cut:
            self.wfile.write(answer.content[: len(answer.content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(answer.content)
        self.wfile.flush()


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0].lower()}", name)


def _json(value: Any) -> Content:
    return Content(json.dumps(value).encode(), "application/json")
