"""What a refusal of the server, of its object store and of the way to them means for the migration."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from shardmig.adapters import wrappers
from shardmig.adapters.neptune3.protocol import layer
from shardmig.adapters.neptune_server import TLS_HINT, ServerError
from shardmig.errors import (
    AdapterError,
    AuthFailed,
    BadInput,
    Denied,
    Fatal,
    NotFound,
    RateLimited,
    TimedOut,
    Unavailable,
)


class _Refusal(msgspec.Struct, rename="camel"):
    error_type: str = ""
    message: str = ""


@contextmanager
def network_errors(what: str) -> Iterator[None]:
    """What went wrong on the way, as AdapterError classes."""
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        raise TimedOut(f"{what}: no answer in time") from error
    except (httpx.TransportError, httpx.StreamError) as error:
        if (cause := _certificate(error)) is not None:
            raise Fatal(f"{what}: {cause}", hint=TLS_HINT) from error
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def client_errors(what: str) -> Iterator[None]:
    """What the generated client raises beside errors of the network."""
    errors = layer("errors")
    try:
        with network_errors(what):
            yield
    except (errors.ApiKeyRejectedError, errors.InvalidApiTokenException) as error:
        raise AuthFailed(
            f"{what}: the server rejects the API token", hint="is it revoked, or of another server?"
        ) from (error)
    except (errors.UnableToExchangeApiKeyError, errors.UnableToRefreshTokenError) as error:
        raise Unavailable(f"{what}: {error}") from error
    except errors.UnableToParseResponse as error:
        status = error.response.status_code
        if status < 400:
            # Not from the error itself: that quotes the answer, which may hold an access token.
            raise Unavailable(f"{what}: an answer that cannot be read: {error.exception}") from error.exception
        raise refusal(what, status, error.response.content, error.response.headers) from error
    except ValueError as error:  # a status that HTTP does not define, such as 520 of a proxy
        raise Unavailable(f"{what}: {error}") from error


def refusal(what: str, status: int, content: bytes, headers: Mapping[str, str]) -> AdapterError:
    """What an answer of status 300 or more means."""
    try:
        said = msgspec.json.decode(content, type=_Refusal)
    except msgspec.DecodeError:
        said = _Refusal(message=content[:200].decode("utf-8", "replace"))
    text = f"{what}: {status} {said.error_type} {said.message}".rstrip()
    match status:
        case 429:
            return RateLimited(text, retry_after_s=retry_after_s(headers))
        case 408:
            return TimedOut(text)
        case 401:
            return AuthFailed(text, hint="is the API token of this server?")
        case 403:
            return Denied(text, hint="the token's user needs to see the project, which must exist")
        case 404:
            return NotFound(text)
        case 500:
            return ServerError(text)
        case _:
            return Unavailable(text) if status >= 500 else BadInput(text)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait: seconds, or a date."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))  # the vendor's client takes fractions too
    except ValueError:
        return wrappers.retry_after_s(asked)


def _certificate(error: BaseException) -> ssl.SSLCertVerificationError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause
