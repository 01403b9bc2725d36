"""A local Neptune 2.x: speaks the REST protocol of the server to the unmodified `neptune` 1.x client, both ways.

    with neptune_server() as server:
        server.store.add_project("ws/vision", "VIS")
        run = neptune.init_run(project="ws/vision", api_token=server.api_token, mode="sync")

This module is the HTTP side: connections, tokens, faults. Beside it: swagger (what the client downloads), entities (what
is kept), operations (what clients write), nql (queries), api (answers).
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
import uuid
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.servers.faults import Faults
from tests.servers.http import Exchange, LocalServer, answering
from tests.servers.neptune2 import swagger
from tests.servers.neptune2.api import Api, Content, Request
from tests.servers.neptune2.entities import Refused, Store

_ROUTES: Final = {(operation.method, operation.path): operation.name for operation in swagger.operations()}
_DOCUMENTS: Final = {
    f"{service}/swagger.json": json.dumps(swagger.document(service)).encode()
    for service in (swagger.BACKEND, swagger.LEADERBOARD, swagger.ARTIFACTS)
}
_REFRESH: Final = "/auth/realms/neptune/protocol/openid-connect/token"
_OPEN: Final = ("getClientConfig", "exchangeApiToken")


class NeptuneServer(LocalServer):
    """Neptune 2.x on a loopback port. `requests`: how often each operation was asked, faults included.

    token_life_s: of access tokens. Everything that clients wrote is in `store`.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_Connection, tls)
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


def neptune_server(tls: ssl.SSLContext | None = None) -> AbstractContextManager[NeptuneServer]:
    """A running server, gone at the end."""
    return answering(NeptuneServer(tls))


class _Connection(Exchange):
    server: NeptuneServer

    def answer(self) -> None:
        body = self.body()
        target = urlsplit(self.path)
        name = _ROUTES.get((self.command, target.path), target.path)
        self.server.requests[name] += 1
        if self.server.faults.latency_s:
            time.sleep(self.server.faults.latency_s)
        query = parse_qs(target.query, keep_blank_values=True)
        words = " ".join([name, *(one for key in ("attribute", "experimentId", "index") for one in query.get(key, []))])
        fault = self.server.faults.strike(words)
        if fault == "drop":
            self.hang_up()
        elif fault.isdigit():
            self.send_fault(fault, self.server.faults.retry_after_s)
        else:
            status, answer = self._result(name, Request(query, dict(self.headers), body))
            self.send(status, answer.content, answer.headers, is_cut=fault == "cut")

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


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0].lower()}", name)


def _json(value: Any) -> Content:
    return Content(json.dumps(value).encode(), "application/json")
