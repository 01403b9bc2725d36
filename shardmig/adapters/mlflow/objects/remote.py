"""MLflow's own REST stores, called with the credentials and the rate budget of one side of a copy.

MLflow's client takes credentials from the environment, which is one for all. Here its requests get the headers of the
store that is being called, through the hook that MLflow has for additional headers; each request that asks for them takes
its turn from the budget.

Over http each call has a connection of its own: MLflow's default server keeps the answer to a second call back for 43 ms,
see `http`, and a new connection takes 2 ms (measured). Over TLS, where there is a proxy in front, they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from shardmig.adapters.budget import Budget
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.errors import AdapterError


class _Call:
    """One call of a store, which is one request or more."""

    def __init__(self, headers: Mapping[str, str], budget: Budget) -> None:
        """Takes the turn of its first request. Raises what the budget raises."""
        self._headers = headers
        self._budget = budget
        self._has_turn = True
        budget.take()

    def headers(self) -> dict[str, str]:
        """For the next request."""
        if not self._has_turn:
            with suppress(AdapterError):  # MLflow would send the request all the same, without its headers
                self._budget.take()
        self._has_turn = False
        return dict(self._headers)


_CALL: ContextVar[_Call | None] = ContextVar("call", default=None)


def remote_store(make: Callable[..., Any], uri: str, http: HttpClient) -> Any:
    """One of MLflow's RestStores; each of its calls carries the headers of the client's login and keeps to its budget."""
    from mlflow.utils.rest_utils import MlflowHostCreds

    _register()
    given = http.login.credentials
    creds = MlflowHostCreds(
        host=uri,
        ignore_tls_verification=given.insecure_tls,
        client_cert_path=given.client_certificate or None,
        server_cert_path=None if given.insecure_tls else given.certificate_authority or None,
    )
    return _Store(make(lambda: creds), http, {} if uri.startswith("https:") else {"Connection": "close"})


class _Store:
    def __init__(self, store: Any, http: HttpClient, headers: Mapping[str, str]) -> None:
        self._store = store
        self._http = http
        self._own_headers = headers

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            token = _CALL.set(_Call({**self._own_headers, **self._http.login.headers()}, self._http.budget))
            try:
                return found(*arguments, **named)
            finally:
                _CALL.reset(token)

        return call


@lru_cache(maxsize=1)
def _register() -> None:
    from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
    from mlflow.tracking.request_header.databricks_request_header_provider import DatabricksRequestHeaderProvider
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry

    class Headers(RequestHeaderProvider):
        def in_context(self) -> bool:
            return _CALL.get() is not None

        def request_headers(self) -> dict[str, str]:
            call = _CALL.get()
            return call.headers() if call is not None else {}

    # Whether this is Databricks it would look for at every request, by eleven imports that fail: 2 ms (measured, 3.17.2).
    registry._registry = [  # noqa: SLF001
        one for one in registry if not isinstance(one, DatabricksRequestHeaderProvider) or one.in_context()
    ]
    register: Any = registry.register
    register(Headers)
