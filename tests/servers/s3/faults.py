"""A proxy before an HTTP server, which passes requests on, counts them, and fails those that a test chose."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple

Failure = Literal["500", "503", "429", "403", "404", "reset", "committed-then-cut", "cut-body"]
_ERRORS = {
    "500": "InternalError",
    "503": "SlowDown",
    "429": "TooManyRequests",
    "403": "AccessDenied",
    "404": "NoSuchUpload",
}


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str

    def is_a(self, method: str, part: str = "") -> bool:
        """Is it of this method, with this text in its path?"""
        return self.method == method and part in self.path


class _Planned:
    def __init__(self, failure: Failure, chosen: Callable[[Asked], bool], times: int) -> None:
        self.failure, self.chosen, self.left = failure, chosen, times


class FaultyProxy(ThreadingHTTPServer):
    """`asked`: every request so far. `before`: called with each request before it is passed on."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = upstream
        self.asked: list[Asked] = []
        self.before: Callable[[Asked], None] = _nothing
        self.is_down = False
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(self, failure: Failure, chosen: Callable[[Asked], bool], *, times: int = 1) -> None:
        """The next requests that are chosen fail so, `times` of them."""
        self._planned.append(_Planned(failure, chosen, times))

    def forget(self) -> None:
        """Fail no longer, and count anew."""
        self._planned, self.asked, self.before, self.is_down = [], [], _nothing, False

    def count(self, method: str, part: str = "") -> int:
        """How many such requests came in."""
        return sum(asked.is_a(method, part) for asked in self.asked)

    def down_for(self, seconds: float) -> None:
        """Reset every connection from now on, for so long."""
        self.is_down = True
        timer = threading.Timer(seconds, self._up)
        timer.daemon = True
        timer.start()

    def plan_for(self, asked: Asked) -> Failure | None:
        """Note a request; how it is to fail."""
        with self._lock:
            self.asked.append(asked)
            for planned in self._planned:
                if planned.left and planned.chosen(asked):
                    planned.left -= 1
                    return planned.failure
        self.before(asked)
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""

    def _up(self) -> None:
        self.is_down = False


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyProxy

    def pass_on(self) -> None:
        body = b"".join(self._chunks()) if "Transfer-Encoding" in self.headers else self.rfile.read(self._length())
        if self.server.is_down:
            self._reset()
            return
        failure = self.server.plan_for(Asked(self.command, self.path))
        if failure == "reset":
            self._reset()
        elif failure in _ERRORS:
            told = f"<Error><Code>{_ERRORS[failure]}</Code><Message>chosen by a test</Message></Error>"
            self._answer(int(failure), {"Content-Type": "application/xml"}, told.encode())
        else:
            status, headers, content = self._upstream(body)
            if failure == "committed-then-cut":
                self._reset()
            else:
                self._answer(status, headers, content, cut=failure == "cut-body")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]

    def _upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        if self.command == "HEAD":
            content = b""
            kept.setdefault("Content-Length", "0")
        else:
            kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
            kept["Content-Length"] = str(len(content))
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._reset()

    def _reset(self) -> None:
        """Close the connection so that the other side gets ECONNRESET."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


_HOP_BY_HOP = {"connection", "transfer-encoding", "date", "server"}


@contextmanager
def proxied(upstream: int) -> Iterator[FaultyProxy]:
    """A proxy before a port of this machine."""
    with FaultyProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()


def _nothing(_: Asked) -> None:
    """Nothing happens before."""
