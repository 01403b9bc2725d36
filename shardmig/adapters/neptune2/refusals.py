"""What the refusals of Neptune, of its client and of the way to it mean for the migration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from shardmig.adapters.neptune_server import TLS_HINT, TOKEN_HINT, ServerError
from shardmig.adapters.wrappers import retry_after_s
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
    Unsupported,
)

if TYPE_CHECKING:
    from requests import Response


class _Refusal(msgspec.Struct):
    errorType: str | None = ""  # noqa: N815 (Neptune's spelling)
    title: str | None = ""
    message: str | None = ""


def response_error(what: str, response: Response) -> AdapterError:
    """What a response of status 400 or more means."""
    try:
        refusal = msgspec.json.decode(response.content, type=_Refusal)
    except (msgspec.DecodeError, msgspec.ValidationError):
        refusal = _Refusal(title=response.text[:200])
    said = refusal.title or refusal.message or ""
    kind = refusal.errorType or ""
    pause_s = retry_after_s(response.headers.get("Retry-After"))
    return _error_of(response.status_code, f"{what}: {response.status_code} {kind} {said}".rstrip(), pause_s)


def _error_of(status: int, message: str, pause_s: float | None = None) -> AdapterError:
    if status == 401:
        return AuthFailed(message, hint=TOKEN_HINT)
    if status == 403:
        return Denied(message)
    if status == 404:
        return NotFound(message)
    if status == 429 or (status == 503 and pause_s is not None):
        return RateLimited(message, retry_after_s=pause_s)
    if status in (408, 504):
        return TimedOut(message)
    if status == 500:
        return ServerError(message)
    return Unavailable(message) if status > 500 else BadInput(message)


@contextmanager
def client_errors(what: str) -> Iterator[None]:
    """Exceptions of Neptune's client, and of what it stands on, as AdapterError classes."""
    import bravado.exception
    import neptune.common.exceptions as common
    import neptune.exceptions as neptune
    import requests.exceptions
    import urllib3.exceptions
    from oauthlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]

    try:
        yield
    except (requests.exceptions.Timeout, bravado.exception.BravadoTimeoutError) as error:
        raise TimedOut(f"{what}: no answer in time") from error
    except (requests.exceptions.SSLError, common.NeptuneSSLVerificationError) as error:
        if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise Unavailable(f"{what}: {_first_line(error)}") from error
        raise Fatal(f"{what}: {_first_line(error)}", hint=TLS_HINT) from error
    except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL) as error:
        raise AuthFailed(f"{what}: the API token is damaged", hint=TOKEN_HINT) from error
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema) as error:
        raise AuthFailed(f"{what}: the API token names no server", hint=TOKEN_HINT) from error
    except common.NeptuneConnectionLostException as error:
        raise Unavailable(f"{what}: {error.cause}") from error
    except (common.NeptuneInvalidApiTokenException, common.Unauthorized, OAuth2Error) as error:
        raise AuthFailed(f"{what}: {_first_line(error)}", hint=TOKEN_HINT) from error
    except common.Forbidden as error:
        raise Denied(f"{what}: {_first_line(error)}") from error
    except bravado.exception.HTTPError as error:
        raise _error_of(error.status_code, f"{what}: {error}") from error
    except neptune.NeptuneClientUpgradeRequiredError as error:
        raise Fatal(f"{what}: the server asks for another version of the neptune client") from error
    except neptune.NeptuneFeatureNotAvailableException as error:
        raise Unsupported(f"{what}: this server does not have it") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, neptune.CannotResolveHostname) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """Neptune's messages are pages with colours; those of requests hold addresses, whose query may be a signature."""
    lines = [re.sub(r"\?\S+", "?…", line.strip()) for line in str(error).splitlines()]
    return next((line for line in lines if line and "----" not in line and "\x1b" not in line), type(error).__name__)
