"""Calls to the server: one client of neptune-query a process, one budget of requests, patience with outages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from shardmig.adapters.budget import Budget, budget_of
from shardmig.adapters.neptune3 import protocol
from shardmig.adapters.neptune3.options import Neptune3Options
from shardmig.adapters.neptune3.refusals import client_errors, network_errors, refusal
from shardmig.adapters.neptune_server import Credentials, credentials_of
from shardmig.adapters.wrappers import RetryPolicy, retrying
from shardmig.errors import AuthFailed, Unavailable

T = TypeVar("T")


class Client:
    """A server as its API token sees it. Threads may share it."""

    def __init__(self, options: Neptune3Options, patience: RetryPolicy) -> None:
        self._options = options
        self._patience = patience
        self._credentials: Credentials | None = None
        self._lock = threading.Lock()
        self._api: Any = None
        self._plain: Any = None
        self._first_call = threading.Lock()
        self._proven: Any = None
        self._retired: list[Any] = []

    def post(self, what: str, endpoint: str, *, patience: RetryPolicy | None = None, **arguments: Any) -> Any:
        """The generated client's response to a call of `endpoint`, tried again while the server is not well. `what` is
        asked for, in the words of messages."""
        call = protocol.endpoint(endpoint).sync_detailed
        return self.patiently(lambda: self._answered(what, lambda client: call(client=client, **arguments)), patience)

    def ask(
        self,
        what: str,
        endpoint: str,
        read: Callable[[bytes], T],
        *,
        patience: RetryPolicy | None = None,
        **arguments: Any,
    ) -> T:
        """What `read` makes of the bytes of an answer. An answer that it raises ServerError for is asked for again."""
        call = protocol.endpoint(endpoint).sync_detailed

        def answer() -> T:
            return read(self._answered(what, lambda client: call(client=client, **arguments)).content)

        return self.patiently(answer, patience)

    def get(self, what: str, path: str, query: Mapping[str, Any]) -> bytes:
        """The body of a GET that the generated client has no function for."""
        return bytes(
            self.patiently(
                lambda: self._answered(what, lambda client: client.get_httpx_client().get(path, params=query))
            ).content
        )

    def patiently(self, call: Callable[[], T], patience: RetryPolicy | None = None) -> T:
        """The result of an idempotent call, tried again after transient errors. Takes its turn in the rate limit."""
        return retrying(call, policy=patience or self._patience, limit=self._budget)

    @contextmanager
    def stream(self, url: str, what: str) -> Iterator[Any]:
        """An answer of the object store, not read yet, to a request without any credentials. Not tried again."""
        with self._budget.connection(), network_errors(what), self._store_client().stream("GET", url) as response:
            yield response

    def close(self) -> None:
        """Close all connections; idempotent."""
        with self._lock:
            retired, plain = [*self._retired, self._api], self._plain
            self._retired, self._api, self._plain = [], None, None
        for api in filter(None, retired):
            api.get_httpx_client().close()
            api.get_token_refreshing_client().get_httpx_client().close()
        if plain is not None:
            plain.close()

    @property
    def _budget(self) -> Budget:
        options = self._options
        server = f"neptune3 {self._known_credentials().url}"
        return budget_of(server, requests_per_s=options.requests_per_s, connections=options.connections)

    def _answered(self, what: str, call: Callable[[Any], Any]) -> Any:
        with self._budget.connection(), client_errors(what):
            client = self._api_client()
            response = self._called(client, call)
        status = int(response.status_code)
        if 200 <= status < 300:
            return response
        error = refusal(what, status, response.content, response.headers)
        if isinstance(error, AuthFailed) and self._forget(client):
            raise Unavailable(f"{error.message} (trying with a new token)") from error
        raise error

    def _called(self, client: Any, call: Callable[[Any], Any]) -> Any:
        """The first call fetches the access token while all others wait: else each of them would fetch one."""
        if self._proven is not client:
            with self._first_call:
                if self._proven is not client:
                    response = call(client)
                    self._proven = client if response.status_code < 300 else None
                    return response
        return call(client)

    def _forget(self, client: Any) -> bool:
        """Start over with a new access token, unless this one never worked: clocks differ, sessions are revoked."""
        with self._lock:
            if self._api is not client:
                return True  # another thread has begun anew
            self._retired.append(client)  # other threads may still wait for its answers
            self._api = None
            return self._proven is client

    def _known_credentials(self) -> Credentials:
        if self._credentials is None:
            self._credentials = credentials_of(self._options)
        return self._credentials

    def _api_client(self) -> Any:
        import httpx

        with self._lock:
            if self._api is None:
                known = self._known_credentials()
                self._api = protocol.layer().AuthenticatedClient(
                    base_url=known.url,
                    credentials=protocol.layer("credentials").Credentials(api_key=known.token, base_url=known.url),
                    api_key_exchange_callback=protocol.layer("auth_helpers").exchange_api_key,
                    verify_ssl=self._options.verify(),
                    httpx_args={"http2": False},
                    timeout=httpx.Timeout(self._options.timeout_s),
                )
                self._api.get_httpx_client()
            return self._api

    def _store_client(self) -> Any:
        import httpx

        with self._lock:
            if self._plain is None:
                self._plain = httpx.Client(
                    verify=self._options.verify(), follow_redirects=True, timeout=self._options.timeout_s
                )
            return self._plain
