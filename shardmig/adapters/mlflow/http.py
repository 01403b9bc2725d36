"""A small HTTP/1.1 client for MLflow's REST API: keep-alive, TLS, no delayed ACKs.

MLflow's server with more than one worker (its default is 4) sends headers and body apart on sockets with Nagle's
algorithm, so each keep-alive response waits about 43 ms for the client's delayed ACK (measured). Asking Linux for
immediate ACKs after each send and receive takes that wait away (measured: 44 ms -> 1 ms).
"""

from __future__ import annotations

import http.client
import io
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from shardmig.adapters.budget import budget_of
from shardmig.adapters.mlflow.credentials import Login
from shardmig.adapters.mlflow.options import without_passwords
from shardmig.adapters.mlflow.refusals import network_errors, response_error
from shardmig.errors import AdapterError, BadInput, RateLimited, Unavailable

T = TypeVar("T")

IDLE_S: Final = 4.0
"""A connection idle for longer is not used again: uvicorn closes after 5 s."""
BLOCK_BYTES: Final = 1 << 20
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_AGENT: Final = {"User-Agent": "shardmig"}
_JSON: Final = {"Content-Type": "application/json"}


class HttpClient:
    """Talks to one MLflow server over a few kept connections. Safe to use from several threads."""

    def __init__(
        self, url: str, login: Login, *, connections: int, timeout_s: float, requests_per_s: float = 0
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._prefix = parts.hostname or "", parts.port, parts.path.rstrip("/")
        self._tls = login.tls() if parts.scheme == "https" else None
        self.login = login
        self._timeout_s = timeout_s
        self._idle: queue.LifoQueue[tuple[_Connection, float]] = queue.LifoQueue()
        self._slots = threading.BoundedSemaphore(connections)
        self.budget = budget_of(f"mlflow {without_passwords(url)}", requests_per_s=requests_per_s)

    def call(self, method: str, path: str, answer: type[T], body: Any = None, *, once: bool = False) -> T:
        """One API call with a JSON body (GET: with the body as query); `answer` is the type of the JSON response.

        `once`: the call must not be sent twice, so it goes over a new connection. Raises AdapterError classes.
        """
        if method == "GET":
            text = self.read(path, body or {})
        else:
            with self._response(method, path, msgspec.json.encode(body), _JSON, once=once) as response:
                text = response.read()
        try:
            return msgspec.json.decode(text, type=answer, strict=False)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{method} {path}: the answer is not what MLflow sends: {error}") from error

    def read(self, path: str, query: Mapping[str, Any], body: Any = None) -> bytes:
        """The raw answer to a GET. `query`: a list says the same parameter several times. `body`: sent with it as JSON."""
        sent, headers = (None, {}) if body is None else (msgspec.json.encode(body), _JSON)
        with self._response("GET", f"{path}?{urlencode(query, doseq=True)}", sent, headers) as response:
            return response.read()

    def upload(self, path: str, file: BinaryIO, size_bytes: int) -> None:
        """PUT a file's content; `path` is not yet quoted. The file is read from its start."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        with self._response("PUT", quote(path), file, headers) as response:
            response.read()

    def download(self, path: str, file: BinaryIO) -> None:
        """GET a file's content into `file`; `path` is not yet quoted. Raises NotFound; Unavailable for an answer that is
        cut, of which some is in `file`."""
        with self._response("GET", quote(path), None, {}) as response:
            while block := response.read(BLOCK_BYTES):
                file.write(block)
            if response.length:  # a read of some bytes does not tell, where one of all would
                raise Unavailable(f"GET {quote(path)}: the answer ended {response.length} bytes before its end")

    def close(self) -> None:
        """Close idle connections; idempotent."""
        while not self._idle.empty():
            self._idle.get_nowait()[0].close()

    @contextmanager
    def _response(
        self, method: str, target: str, body: bytes | BinaryIO | None, headers: dict[str, str], *, once: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        with self._slots, network_errors(f"{method} {target.partition('?')[0]}"):
            self.budget.take()
            connection, response = self._send(
                method, self._prefix + target, body, self.login.headers() | _AGENT | headers, once
            )
            try:
                self.budget.heed(response.headers)
                if response.status >= 400:
                    raise self._refused(response_error(method, target, response))
                if response.status >= 300:
                    raise _sent_elsewhere(method, target, response)
                yield response
            finally:
                self._keep(connection, response)

    def _refused(self, error: AdapterError) -> AdapterError:
        if isinstance(error, RateLimited) and error.retry_after_s:
            self.budget.pause(error.retry_after_s)
        return error

    def _send(
        self, method: str, target: str, body: bytes | BinaryIO | None, headers: Mapping[str, str], once: bool
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        while True:
            connection, is_reused = self._connection(once)
            if not isinstance(body, bytes | None):
                body.seek(0)
            try:
                connection.request(method, target, body, headers)
                return connection, connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                connection.close()
                if not is_reused:
                    raise
            except BaseException:
                connection.close()
                raise

    def _connection(self, new: bool) -> tuple[_Connection, bool]:
        while not new and not self._idle.empty():
            connection, since = self._idle.get_nowait()
            if time.monotonic() - since < IDLE_S:
                return connection, True
            connection.close()
        return _Connection(self._host, self._port, self._tls, self._timeout_s), False

    def _keep(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        if response.isclosed() and not response.length and connection.sock is not None:
            self._idle.put((connection, time.monotonic()))
        else:
            connection.close()


def _sent_elsewhere(method: str, target: str, response: http.client.HTTPResponse) -> BadInput:
    """MLflow's server sends nobody anywhere: a proxy does, to where one logs in, and a file's content would be that page."""
    response.read()
    where = response.headers.get("Location", "elsewhere").partition("?")[0]
    return BadInput(
        f"{method} {target.partition('?')[0]}: {response.status}: what answers sends the request to {where}",
        hint="give the URI of MLflow itself, or log in: $MLFLOW_TRACKING_TOKEN, $MLFLOW_TRACKING_USERNAME",
    )


class _Connection(http.client.HTTPConnection):
    """A connection that acknowledges at once."""

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        default = http.client.HTTPS_PORT if tls else http.client.HTTP_PORT
        super().__init__(host, port or default, timeout=timeout_s, blocksize=BLOCK_BYTES)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)
        self.sock = cast("socket.socket", _EagerSocket(self.sock))


class _EagerSocket:
    """The part of a socket that http.client uses; asks for an immediate ACK after each send and receive."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def sendall(self, content: bytes) -> None:
        self._sock.sendall(content)
        _acknowledge_at_once(self._sock)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_EagerReader(self._sock, self._sock.makefile("rb", buffering=0)), 1 << 16)

    def close(self) -> None:
        self._sock.close()


class _EagerReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, raw: socket.SocketIO) -> None:
        self._sock, self._raw = sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._raw.readinto(buffer)
        _acknowledge_at_once(self._sock)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _acknowledge_at_once(sock: socket.socket) -> None:
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
