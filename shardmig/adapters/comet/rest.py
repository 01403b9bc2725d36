"""Comet's REST API, version 2: calls that are tried again, and their refusals as errors of ours. Needs `requests`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import requests

from shardmig.adapters.budget import budget_of
from shardmig.adapters.comet.options import ServerOptions
from shardmig.adapters.wrappers import retry_after_s, retrying
from shardmig.archive.layout import disk_errors
from shardmig.errors import AdapterError, AuthFailed, BadInput, Denied, NotFound, RateLimited, TimedOut, Unavailable

T = TypeVar("T")

_PATH: Final = "api/rest/v2"
_BLOCK_BYTES: Final = 1 << 20
_LONGEST_MESSAGE: Final = 300


class RestClient:
    """Talks to one Comet server, one request at a time. All calls may be repeated."""

    def __init__(self, options: ServerOptions) -> None:
        self._root = options.root
        self._timeout_s = options.timeout_s
        self._budget = budget_of(f"comet {options.root}", requests_per_s=options.requests_per_s)
        self._session = requests.Session()
        self._session.headers["Authorization"] = options.api_key()

    def get(self, endpoint: str, answer: type[T], **params: Any) -> T:
        """The answer to a GET as `answer`. Raises AdapterError classes."""
        return self._read("GET", endpoint, answer, params=_texts(params))

    def post(self, endpoint: str, payload: Mapping[str, Any]) -> None:
        """A POST whose answer says nothing more than that it was done."""
        self._read("POST", endpoint, object, json=payload)

    def download(self, endpoint: str, file: Path, **params: Any) -> None:
        """The content that a GET gives, into a new file. Raises NotFound, and DiskFull."""

        def attempt() -> None:
            with (
                self._response("GET", endpoint, params=_texts(params), stream=True) as response,
                disk_errors(str(file)),
                file.open("wb") as target,
            ):
                target.writelines(_blocks(response))

        retrying(attempt, limit=self._budget)

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._session.close()

    def _read(self, method: str, endpoint: str, answer: type[T], **how: Any) -> T:
        def attempt() -> T:
            with self._response(method, endpoint, **how) as response:
                try:
                    return msgspec.json.decode(response.content or b"null", type=answer, strict=False)
                except msgspec.DecodeError as error:
                    raise Unavailable(f"{endpoint}: the answer is not what Comet sends: {error}") from error

        return retrying(attempt, limit=self._budget)

    @contextmanager
    def _response(self, method: str, endpoint: str, **how: Any) -> Iterator[requests.Response]:
        with _network_errors(endpoint):
            response = self._session.request(method, f"{self._root}/{_PATH}/{endpoint}", timeout=self._timeout_s, **how)
            with response:
                self._budget.heed(response.headers)
                if not response.ok:
                    raise refusal(endpoint, response)
                yield response


def refusal(endpoint: str, response: requests.Response) -> AdapterError:
    """The error that an answer is."""
    status = response.status_code
    message = f"{endpoint}: Comet answers {status}: {_message_of(response)}"
    if status == 429:
        return RateLimited(message, retry_after_s=retry_after_s(response.headers.get("Retry-After")))
    if status >= 500:
        return Unavailable(message)
    kinds: dict[int, Callable[[str], AdapterError]] = {401: AuthFailed, 403: Denied, 404: NotFound}
    return kinds.get(status, BadInput)(message)


def _message_of(response: requests.Response) -> str:
    try:
        answer = response.json()
        return str(answer.get("msg", answer) if isinstance(answer, dict) else answer)[:_LONGEST_MESSAGE]
    except ValueError:
        return response.text[:_LONGEST_MESSAGE]


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in params.items()}


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """The body, with what the network does to it told as errors of ours and not of the disk."""
    with _network_errors("a download"):
        blocks: Iterator[bytes] = response.iter_content(_BLOCK_BYTES)
        yield from blocks


@contextmanager
def _network_errors(what: str) -> Iterator[None]:
    try:
        yield
    except requests.Timeout as error:
        raise TimedOut(f"{what}: {error}") from error
    except requests.exceptions.SSLError as error:
        raise AuthFailed(
            f"{what}: the server's certificate is not trusted: {error}", hint="set $REQUESTS_CA_BUNDLE"
        ) from error
    except requests.RequestException as error:
        raise Unavailable(f"{what}: {error}") from error
