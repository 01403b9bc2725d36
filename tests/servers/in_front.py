"""A server in front of a real MLflow server: it passes requests on, remembers them, and refuses what a test wants refused."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.servers.http import Exchange, LocalServer
from tests.servers.mlflow import MlflowServer

_OWN_HEADERS = {"host", "connection", "content-length", "transfer-encoding"}


class InFront(LocalServer):
    """`refuses`: path and body of a request → the status it is refused with, None: it is passed on."""

    def __init__(self, mlflow: MlflowServer, exchange: type[Forwarding] | None = None) -> None:
        super().__init__(exchange or Forwarding)
        self.mlflow = mlflow
        self.refuses: Callable[[str, bytes], int | None] = lambda path, body: None
        self.asked: list[str] = []
        """Methods and paths, in their order."""

    def count(self, request: str) -> int:
        """How often this was asked."""
        return self.asked.count(request)


class Forwarding(Exchange):
    """One connection. A subclass answers more, and forwards the rest."""

    server: InFront

    def answer(self) -> None:
        self.forward(self.body())

    def forward(self, body: bytes) -> None:
        """Pass a request on, or refuse it."""
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        if (status := self.server.refuses(path, body)) is not None:
            self.send(status, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "refused by the test"}')
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.mlflow.port)
        passed_on = {name: text for name, text in self.headers.items() if name.lower() not in _OWN_HEADERS}
        connection.request(self.command, self.path, body, passed_on)
        answered = connection.getresponse()
        content = answered.read()
        self.send(answered.status, content, {"Content-Type": answered.headers.get("Content-Type", "")})
        connection.close()
