"""What the refusals of Lightning and the way to it mean for the migration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from shardmig.adapters.litlogger.options import KEY_HINT
from shardmig.adapters.wrappers import retry_after_s
from shardmig.errors import (
    AdapterError,
    AuthFailed,
    BadInput,
    Denied,
    Fatal,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TargetConflict,
    TimedOut,
    Unavailable,
)

_SHOWN: Final = 300
"""Bytes of a refusal's body that a message quotes."""


@contextmanager
def lightning_errors(what: str) -> Iterator[None]:
    """Exceptions of the vendor's client, and of urllib3 below it, as AdapterError classes."""
    import urllib3
    from lightning_sdk.lightning_cloud.openapi.rest import ApiException

    try:
        yield
    except ApiException as error:
        raise _error_of(what, error) from error
    except ConnectionError as error:  # what the client makes of 401
        if isinstance(error.__context__, ApiException):
            raise AuthFailed(f"{what}: Lightning does not know this user or key", hint=KEY_HINT) from error
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error
    except urllib3.exceptions.TimeoutError as error:
        raise TimedOut(f"{what}: no answer in time") from error
    except urllib3.exceptions.HTTPError as error:
        if isinstance(error.__cause__, urllib3.exceptions.SSLError):
            raise _untrusted(what, error) from error
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error


def status_error(what: str, status: int, body: bytes, headers: Any) -> AdapterError:
    """What an HTTP status means. `headers`: anything with `get`, or None."""
    text = body[:_SHOWN].decode("utf-8", "replace").strip()
    message = f"{what}: {status} {text}"
    pause_s = retry_after_s(headers.get("Retry-After")) if headers is not None else None
    if status == 401:
        return AuthFailed(message, hint=KEY_HINT)
    if status == 402:
        return QuotaExceeded(message)
    if status == 403:
        return Denied(message)
    if status == 404:
        return NotFound(message)
    if status == 409:
        return TargetConflict(message)
    if status == 429 or (status == 503 and pause_s is not None):
        return RateLimited(message, retry_after_s=pause_s)
    if status in (408, 504):
        return TimedOut(message)
    return Unavailable(message) if status >= 500 else BadInput(message)


def _error_of(what: str, error: Any) -> AdapterError:
    if error.status == 0:  # the client's own number for a certificate that it does not trust
        return _untrusted(what, error)
    body = error.body if isinstance(error.body, bytes) else str(error.body or "").encode()
    return status_error(what, int(error.status or 500), body, error.headers)


def _untrusted(what: str, error: Any) -> Fatal:
    return Fatal(f"{what}: {error}", hint="name the certificate authority in $REQUESTS_CA_BUNDLE")
