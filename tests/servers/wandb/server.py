"""An HTTP server that speaks W&B: wandb-core and the public API use it, unmodified.

Nothing of W&B's server is in it: it was made from what the client sends and expects (GraphQL, file stream, storage).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from contextlib import AbstractContextManager
from urllib.parse import unquote, urlsplit

from tests.servers.http import Exchange, LocalServer, answering
from tests.servers.neptune3.faults import Faults
from tests.servers.wandb.graph import Graph
from tests.servers.wandb.store import Refused, Store

KEY = "0123456789abcdef" * 2 + "01234567"


class WandbServer(LocalServer):
    """The server and the handles by which a test moves it."""

    def __init__(self) -> None:
        super().__init__(_Exchange)
        self.store = Store("team")
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[str, str, bytes]] = []
        self.keeps_log = False
        self.graph = Graph(self.store, self.url)
        self.short_files = 0
        """How many more times a file is given without its last byte, as if that were all."""

    def forget(self) -> None:
        """Begin anew, without faults."""
        self.store.forget()
        self.faults = Faults()
        self.graph.forget()
        self.short_files = 0
        self.requests.clear()
        self.log.clear()


def wandb_server() -> AbstractContextManager[WandbServer]:
    """A running server, gone at the end."""
    return answering(WandbServer())


class _Exchange(Exchange):
    server: WandbServer

    def answer(self) -> None:
        wandb = self.server
        body = self.body()
        path = unquote(urlsplit(self.path).path)
        name = _name_of(path, body)
        wandb.requests[name] += 1
        if wandb.keeps_log:
            wandb.log.append((self.command, self.path, body))
        fault = wandb.faults.next(name)
        if fault is not None and fault.isdigit():
            self.send_fault(fault, wandb.faults.retry_after_s)
            return
        if fault == "drop":
            self.hang_up()
            return
        try:
            status, content = 200, self._done(path, body)
        except Refused as error:
            status, content = error.status, json.dumps({"errors": [{"message": str(error)}]}).encode()
        if fault == "cut":  # done, but the client does not learn it
            self.hang_up()
        else:
            self.send(status, content)

    def _done(self, path: str, body: bytes) -> bytes:
        store = self.server.store
        if path.startswith("/storage/"):
            return self._stored(path, body)
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            raise Refused(401, "user is not logged in")
        if path == "/graphql":
            asked = json.loads(body)
            return json.dumps({"data": self.server.graph.answer(asked["query"], asked.get("variables") or {})}).encode()
        _, _, entity, project, run, _ = path.split("/", 5)
        with store.lock:
            store.stream((entity, project, run), json.loads(body))
        return b'{"exitcode":null,"limits":{}}'

    def _stored(self, path: str, body: bytes) -> bytes:
        store = self.server.store
        _, _, entity, project, name, file = path.split("/", 5)
        with store.lock:
            run = store.find(entity, project, name)
            if run is None:
                raise Refused(404, "no such run")
            if self.command == "PUT":
                run.files[file] = body
                return b""
            if file not in run.files:
                raise Refused(404, "no such file")
            content = run.files[file]
            if content and self.server.short_files:
                self.server.short_files -= 1
                return content[:-1]
            return content

    def body(self) -> bytes:
        """As Exchange: unpacked."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = super().body()
        encoding = self.headers.get("Content-Encoding", "")
        return zlib.decompress(body, 47) if encoding in ("gzip", "deflate") else body


def _name_of(path: str, body: bytes) -> str:
    """What faults and counts call a request: the GraphQL operation, `file_stream` or `storage`."""
    if path == "/graphql":
        found = Graph.operation(json.loads(body)["query"])
        return f"graphql {found}"
    return "storage" if path.startswith("/storage/") else path.rpartition("/")[2]
