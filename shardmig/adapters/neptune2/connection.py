"""One connection to a Neptune server: the vendor's client, asked for bytes instead of objects.

Requests go through the client's session with the client's token, to the paths of the server's Swagger documents. Each
is tried again by the class of its refusal (`adapters.wrappers.retrying`), so that a fault costs one request and not the
pages that were fetched beside it. A pause that the server asks for binds all threads.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urljoin

import msgspec

from shardmig.adapters.budget import budget_of
from shardmig.adapters.neptune2.options import Neptune2Options
from shardmig.adapters.neptune2.refusals import client_errors, response_error
from shardmig.adapters.neptune_server import ServerError, credentials_of
from shardmig.adapters.wrappers import RetryPolicy, retrying
from shardmig.errors import Unsupported

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

_TIMEOUT_S: Final = (30, 180)


class _Operation(NamedTuple):
    method: str
    url: str
    accept: str = "*/*"


class Connection:
    """A client of one server with one API token. Safe to share between threads."""

    def __init__(self, options: Neptune2Options, patience: RetryPolicy) -> None:
        """Raises AuthFailed for a missing or wrong token, UsageError, Unavailable, Fatal (TLS)."""
        self.version = _import_quietly()
        self._patience = patience
        self._backend = retrying(lambda: _open_backend(options), policy=patience)
        self._http: Any = self._backend._http_client  # noqa: SLF001 (the client has no other way to its session)
        _widen(self._http.session, options.threads)
        server = f"neptune2 {self._backend.get_display_address()}"
        self._budget = budget_of(server, requests_per_s=options.requests_per_s, connections=options.connections)
        self._renewal = threading.Lock()
        self._operations: dict[str, _Operation] = {}

    def ask(
        self, operation: str, reply: type[T], *, body: Any = None, patience: RetryPolicy | None = None, **query: Any
    ) -> T:
        """The decoded answer of an operation. Raises AdapterError; Unsupported if the answer is not what it should be."""

        def fetch() -> T:
            with self._response(self._find(operation), operation, query, body) as response:
                content = response.content
            try:
                return msgspec.json.decode(content, type=reply)
            except msgspec.ValidationError as error:
                raise Unsupported(f"{operation}: an answer that this shardmig does not understand: {error}") from error
            except (
                msgspec.DecodeError
            ) as error:  # of something on the way, or of a server that cannot say what it holds
                raise ServerError(f"{operation}: the answer is no JSON: {error}") from error

        return self.patiently(fetch, patience)

    def patiently(self, call: Callable[[], T], patience: RetryPolicy | None = None) -> T:
        """The result of an idempotent call, tried again after Transient errors."""
        return retrying(call, policy=patience or self._patience, limit=self._budget)

    @contextmanager
    def download(self, operation: str, **query: Any) -> Iterator[Body]:
        """What an operation answers as a stream. Not tried again: the caller does, with what it stored."""
        with self._response(self._find(operation), operation, query, None) as response:
            yield Body(response, operation)

    @contextmanager
    def download_url(self, url: str) -> Iterator[Body]:
        """A stream from an address that the server gave."""
        target = _Operation("GET", urljoin(self._find("getExperiment").url, url), "application/zip")
        with self._response(target, "download", {}, None) as response:
            yield Body(response, "download")

    def close(self) -> None:
        """Close the connections. The client keeps its session for the next connection of this process."""
        self._http.session.close()
        self._http.authenticator.auth.session.close()

    def _find(self, name: str) -> _Operation:
        found = self._operations.get(name)
        if found is None:
            found = self._operations[name] = self._look_up(name)
        return found

    def _look_up(self, name: str) -> _Operation:
        from neptune.internal.backends.utils import build_operation_url

        clients = (self._backend.leaderboard_client, self._backend.backend_client, self._backend.artifacts_client)
        for client in clients:
            with client_errors(name):
                try:
                    operation = getattr(client.api, name).operation
                except AttributeError:
                    continue
                url = build_operation_url(client.swagger_spec.api_url, operation.path_name)
                accept = "application/octet-stream" if name == "downloadAttribute" else "*/*"
                return _Operation(operation.http_method.upper(), url, accept)
        raise Unsupported(f"this server has no operation {name}")

    @contextmanager
    def _response(self, operation: _Operation, what: str, query: Mapping[str, Any], body: Any) -> Iterator[Response]:
        with client_errors(what), self._budget.connection():
            response, token = self._send(operation, query, body)
            if response.status_code == 401:
                response.close()
                self._renew(token)
                response, _ = self._send(operation, query, body)
            with response:
                if response.status_code >= 400:
                    raise response_error(what, response)
                yield response

    def _send(self, operation: _Operation, query: Mapping[str, Any], body: Any) -> tuple[Response, str]:
        from requests import Request

        # As the client sends them; the version is asked for by operations on artifacts.
        headers = {"X-Neptune-LegacyClient": "false", "X-Neptune-Artifact-Api-Version": "2", "Accept": operation.accept}
        request = Request(operation.method, operation.url, params=query, json=body, headers=headers)
        with self._renewal:  # one thread renews an old token, the others wait for it
            self._http.authenticator.apply(request)
        session = self._http.session
        prepared = session.prepare_request(request)
        settings = session.merge_environment_settings(prepared.url, {}, True, session.verify, None)
        token = prepared.headers.get("Authorization", "")
        return session.send(prepared, timeout=_TIMEOUT_S, **settings), token

    def _renew(self, refused: str) -> None:
        """Get a new access token in place of one that the server no longer takes, although it should be good: clocks
        differ, or the server was started anew."""
        auth = self._http.authenticator.auth
        with self._renewal:
            if refused.endswith(str(auth.session.token.get("access_token"))):
                auth.token_expires_at = 0
                auth.refresh_token_if_needed()


class Body:
    """A stream of bytes whose failures are errors of ours: what a FileSink reads."""

    def __init__(self, response: Response, what: str) -> None:
        self._response = response
        self._what = what

    @property
    def content_type(self) -> str:
        """Such as image/png."""
        return self._response.headers.get("Content-Type", "").partition(";")[0].strip()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, b"" at the end. Raises Unavailable if the end comes too early."""
        with client_errors(self._what):
            content: bytes = self._response.raw.read(None if size < 0 else size, decode_content=True)
            return content


def _import_quietly() -> str:
    """Import the client, which talks on stdout and warns of its own name; its version."""
    with warnings.catch_warnings(record=True):
        import neptune
        import neptune.internal.backends.hosted_neptune_backend

    logging.getLogger("neptune").setLevel(logging.CRITICAL)
    return f"neptune {neptune.__version__}"


def _open_backend(options: Neptune2Options) -> Any:
    from neptune.internal.backends.hosted_neptune_backend import HostedNeptuneBackend
    from neptune.internal.credentials import Credentials

    known = credentials_of(options)
    if known.url.startswith("http:"):
        os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    if options.ca_file:
        os.environ["REQUESTS_CA_BUNDLE"] = options.ca_file
    if options.verify_tls == "no":
        os.environ["NEPTUNE_ALLOW_SELF_SIGNED_CERTIFICATE"] = "TRUE"
    with client_errors("connecting to Neptune"):
        credentials = Credentials.from_token(known.token)
        _reach(known.url)
        return HostedNeptuneBackend(credentials)


def _reach(address: str) -> None:
    """Ask for what the client asks for first: where that fails, the client says so only after a minute."""
    import requests
    from neptune.internal.backends.hosted_client import BACKEND_SWAGGER_PATH
    from neptune.internal.backends.utils import build_operation_url, ssl_verify

    url = build_operation_url(address, BACKEND_SWAGGER_PATH)
    with requests.get(url, timeout=_TIMEOUT_S, verify=ssl_verify()) as response:
        if response.status_code >= 500:
            raise response_error("connecting to Neptune", response)


def _widen(session: Session, connections: int) -> None:
    """Let a session keep so many connections open. It is the client's own and shared by all that this process opens, so
    it is not touched a second time, while others may be using it."""
    from requests.adapters import HTTPAdapter

    held = session.adapters["https://"]
    if not isinstance(held, HTTPAdapter) or held.poolmanager.connection_pool_kw["maxsize"] < connections:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
