"""An HTTP server that speaks W&B: wandb-core and the public API use it, unmodified.

Nothing of W&B's server is in it: it was made from what the client sends and expects (GraphQL, file stream, storage).
"""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.servers.neptune3.faults import Faults
from tests.servers.wandb.graph import Graph
from tests.servers.wandb.store import Refused, Store

KEY = "0123456789abcdef" * 2 + "01234567"


class WandbServer:
    """A running server and the handles by which a test moves it."""

    def __init__(self) -> None:
        self.store = Store("team")
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[str, str, bytes]] = []
        self.keeps_log = False
        self._http = _Server(("127.0.0.1", 0), _Exchange)
        self._http.wandb = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.graph = Graph(self.store, self.url)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def forget(self) -> None:
        """Begin anew, without faults."""
        self.store.forget()
        self.faults = Faults()
        self.graph.rows_seen_late = 0
        self.requests.clear()
        self.log.clear()

    def stop(self) -> None:
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    wandb: WandbServer


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def answer(self) -> None:
        wandb = self.server.wandb
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        name = _name_of(path, body)
        wandb.requests[name] += 1
        if wandb.keeps_log:
            wandb.log.append((self.command, self.path, body))
        fault = wandb.faults.next(name)
        if fault == "drop":
            self.close_connection = True
            return
        if fault is not None and fault.isdigit():
            self._send(int(fault), b'{"errors":[{"message":"planned"}]}', retry_after_s=wandb.faults.retry_after_s)
            return
        try:
            status, content = 200, self._done(path, body)
        except Refused as error:
            status, content = error.status, json.dumps({"errors": [{"message": str(error)}]}).encode()
        if fault == "cut":  # done, but the client does not learn it
            self.close_connection = True
            return
        self._send(status, content)

    do_GET = do_POST = do_PUT = answer  # noqa: N815

    def _done(self, path: str, body: bytes) -> bytes:
        store = self.server.wandb.store
        if path.startswith("/storage/"):
            return self._stored(path, body)
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            raise Refused(401, "user is not logged in")
        if path == "/graphql":
            asked = json.loads(body)
            return json.dumps(
                {"data": self.server.wandb.graph.answer(asked["query"], asked.get("variables") or {})}
            ).encode()
        _, _, entity, project, run, _ = path.split("/", 5)
        with store.lock:
            store.stream((entity, project, run), json.loads(body))
        return b'{"exitcode":null,"limits":{}}'

    def _stored(self, path: str, body: bytes) -> bytes:
        store = self.server.wandb.store
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
            return run.files[file]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding", "")
        return zlib.decompress(body, 47) if encoding in ("gzip", "deflate") else body

    def _send(self, status: int, content: bytes, *, retry_after_s: float = 0.0) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", str(int(retry_after_s)))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


def _name_of(path: str, body: bytes) -> str:
    """What faults and counts call a request: the GraphQL operation, `file_stream` or `storage`."""
    if path == "/graphql":
        found = Graph.operation(json.loads(body)["query"])
        return f"graphql {found}"
    return "storage" if path.startswith("/storage/") else path.rpartition("/")[2]


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server while the block lasts."""
    server = WandbServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
