"""What the HTTP servers of the tests have in common: a loopback port, threads, connections that may break on purpose."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, TypeVar

Server = TypeVar("Server", bound="LocalServer")
_NONE: Mapping[str, str] = MappingProxyType({})


class LocalServer(ThreadingHTTPServer):
    """A server on a loopback port. A subclass gives its kind of exchange, and keeps what its exchanges need."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, exchange: type[Exchange], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), exchange)
        self._scheme = "http"
        if tls is not None:
            self._scheme, self.socket = "https", tls.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


@contextmanager
def answering(server: Server) -> Iterator[Server]:
    """The server, while it answers; gone at the end."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Exchange(BaseHTTPRequestHandler):
    """Requests of one connection. A subclass says what `answer` is."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Answer one request: `send` or `hang_up`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_PATCH(self) -> None:
        self.answer()

    def do_DELETE(self) -> None:
        self.answer()

    def body(self) -> bytes:
        """What was sent with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, content: bytes, headers: Mapping[str, str] = _NONE, *, is_cut: bool = False) -> None:
        """Answer, in JSON if no header says otherwise. `is_cut`: half of it, and then nothing more."""
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, text)
        if self.close_connection:  # as it was asked; a client that is not told sends its next request into the closing
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        self.close_connection = self.close_connection or is_cut
        self.wfile.flush()

    def send_fault(self, status: str, retry_after_s: float) -> None:
        """Answer with a fault that was planned."""
        headers = {"Retry-After": f"{retry_after_s:g}"} if status == "429" else {}
        self.send(int(status), b'{"code": 13, "message": "a planned fault"}', headers)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Quiet."""
