"""Questions to a W&B server, through the vendor's own public API service (wandb-core), and what its refusals mean.

wandb-core tries a request again by itself; it is given little patience here, because shardmig's own retries follow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from shardmig.adapters.budget import Budget, budget_of
from shardmig.adapters.wandb.options import ServerOptions
from shardmig.adapters.wrappers import retrying
from shardmig.errors import (
    AdapterError,
    AuthFailed,
    BadInput,
    Denied,
    NotFound,
    RateLimited,
    TargetConflict,
    TimedOut,
    Unavailable,
)

QUIET: Final = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}
"""wandb reports its own errors to its maker unless it is told not to."""
_RETRIES: Final = 2
_RETRY_PAUSE_S: Final = 0.5


class Connection:
    """One server, one key. Opened at the first question. Safe to use from one thread."""

    def __init__(self, options: ServerOptions, *, points_per_min: int = 0) -> None:
        """points_per_min: of what `budget` is asked for with points; questions have none."""
        self._options = options
        self._points_per_min = points_per_min

    @property
    def url(self) -> str:
        """Of the server."""
        return self._options.base_url

    def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL operation; for idempotent ones only."""
        return retrying(lambda: self._ask_once(query, variables), limit=self.budget)

    def send(self, request: Any) -> Any:
        """The answer to another request to wandb-core. Not tried again."""
        with wandb_errors("wandb-core"):
            return self._service.send_api_request(request, timeout=self._options.timeout_s)

    def fetch(self, url: str, size_bytes: int, file: Path) -> None:
        """Copy what lies at an address of the server or its store to a new local file. Raises NotFound."""
        api = requests()
        download = api.DownloadFileRequest(url=url, path=str(file), size=size_bytes)
        request = api.ApiRequest(download_file_request=download)
        retrying(lambda: self.send(request))

    @cached_property
    def account(self) -> dict[str, Any]:
        """Who the key belongs to. Raises AuthFailed."""
        answer = self.ask("query Viewer { viewer { entity username teams { edges { node { name } } } } }", {})
        if not answer.get("viewer"):
            raise AuthFailed("W&B does not know the API key", hint="check $WANDB_API_KEY or the option key-file")
        viewer: dict[str, Any] = answer["viewer"]
        return viewer

    def environment(self) -> dict[str, str]:
        """What a process of the vendor's command line needs to reach this server. Holds the key."""
        return QUIET | {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self._options.api_key()}

    def _ask_once(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        with wandb_errors(query.partition("(")[0].strip()):
            answer: dict[str, Any] = self._service.execute_graphql(query, variables)
            return answer

    @cached_property
    def budget(self) -> Budget:
        """Of the server, as the options say it."""
        rate = self._options.requests_per_s
        return budget_of(f"wandb {self.url}", requests_per_s=rate, points_per_min=self._points_per_min)

    @cached_property
    def _service(self) -> Any:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import wandb
        from wandb.apis.public.service_api import ServiceApi

        settings = wandb.Settings(
            base_url=self.url,
            api_key=self._options.api_key(),
            silent=True,
            x_graphql_retry_max=_RETRIES,
            x_graphql_retry_wait_min_seconds=_RETRY_PAUSE_S,
            x_graphql_retry_wait_max_seconds=2 * _RETRY_PAUSE_S,
            x_graphql_timeout_seconds=self._options.timeout_s,
            x_file_transfer_retry_max=_RETRIES,
            x_file_transfer_retry_wait_min_seconds=_RETRY_PAUSE_S,
            x_file_transfer_retry_wait_max_seconds=2 * _RETRY_PAUSE_S,
        )
        return ServiceApi(settings, timeout=self._options.timeout_s)


def requests() -> Any:
    """The vendor's generated module of requests to wandb-core."""
    return import_module("wandb.proto.wandb_api_pb2")


@contextmanager
def wandb_errors(what: str) -> Iterator[None]:
    """The vendor's exceptions as AdapterError classes."""
    from wandb.errors import UsageError as VendorUsageError
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        yield
    except WandbApiFailedError as error:
        status = error.response.http_status if error.response is not None else 0
        raise error_of(status, f"{what}: {error}") from error
    except VendorUsageError as error:
        raise BadInput(f"{what}: {error}") from error


def error_of(status: int, message: str) -> AdapterError:
    """What a refusal means for the migration. wandb-core tells the status of its last attempt in words only."""
    told = [code for code in (401, 403, 404, 409, 429) if f"HTTP {code}" in message or f"status: {code}" in message]
    status = status or (told[0] if told else 0)
    if status == 401:
        return AuthFailed(message, hint="check $WANDB_API_KEY or the option key-file")
    if status == 403:
        return Denied(message)
    if status == 404:
        return NotFound(message)
    if status == 409:
        return TargetConflict(message)
    if status == 429:
        return RateLimited(message)
    if "did not respond in time" in message:
        return TimedOut(message)
    return BadInput(message) if 400 <= status < 500 else Unavailable(message)
