"""A local Comet: speaks the HTTP of the server to the unmodified comet_ml client, and its REST API, version 2.

    with comet_server() as server:
        os.environ |= {"COMET_URL_OVERRIDE": server.url, "COMET_API_KEY": server.api_key}

What it keeps is in `server.experiments`; what goes wrong on purpose is in `server.faults`. It answers as the vendor's client
asks; what the hosted service does beyond that is not known here.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.servers.comet.api import Api, Refused
from tests.servers.comet.experiments import Experiment
from tests.servers.comet.faults import Faults

API_KEY: Final = "key-of-the-local-comet"


class CometServer(ThreadingHTTPServer):
    """Comet on a loopback port. `requests`: how often each path was asked, faults included.

    most_values: of one metric that it shows, as the hosted service does; None = all.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.experiments: dict[str, Experiment] = {}
        self.workspaces: set[str] = {"default"}
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.api_key = API_KEY
        self.most_values: int | None = None
        self.writing = threading.RLock()
        self.api = Api(self)

    @property
    def root(self) -> str:
        """Scheme and host."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """What stands in COMET_URL_OVERRIDE."""
        return f"{self.root}/clientlib/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


@contextmanager
def comet_server() -> Iterator[CometServer]:
    """A running server, gone at the end."""
    server = CometServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Connection(BaseHTTPRequestHandler):
    server: CometServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        self.server.requests[target.path] += 1
        if self.server.faults.latency_s:
            time.sleep(self.server.faults.latency_s)
        fault = self.server.faults.strike(target.path)
        if fault == "drop":
            self._hang_up()
        elif fault.isdigit():
            retry = {"Retry-After": str(self.server.faults.retry_after_s)} if fault == "429" else {}
            self._send(int(fault), b'{"msg": "a fault"}', "application/json", retry)
        else:
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, content, kind = self._result(target.path, parse_qs(target.query, keep_blank_values=True), body)
            if fault == "committed":  # done, and the client never learns of it
                self._hang_up()
            else:
                self._send(status, content, kind, {}, is_cut=fault == "cut")

    def _result(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, bytes, str]:
        try:
            key = self.headers.get("Authorization") or self.headers.get("Comet-Sdk-Api") or query.get("apiKey", [""])[0]
            params = {name: values[-1] for name, values in query.items()}
            with self.server.writing:
                answer = self.server.api.answer(path, params, body, dict(self.headers), key)
        except Refused as refusal:
            return refusal.status, json.dumps(refusal.body).encode(), "application/json"
        if isinstance(answer, bytes):
            return 200, answer, "application/octet-stream"
        return 200, json.dumps(answer).encode(), "application/json"

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str], *, is_cut: bool = False) -> None:
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        self.close_connection = self.close_connection or is_cut
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
