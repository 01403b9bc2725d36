"""What the refusals of ZenML's store, local or a server, mean for the migration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from zenml.exceptions import (
    AuthorizationException,
    EntityCreationError,
    EntityExistsError,
    IllegalOperationError,
    SubscriptionUpgradeRequiredError,
    ZenMLBaseException,
)

from shardmig.errors import (
    AdapterError,
    AuthFailed,
    BadInput,
    Denied,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TargetConflict,
    TimedOut,
    Unavailable,
)

_STATUS: Final = re.compile(r"\b(\d{3}) HTTP Error\b")


@contextmanager
def zenml_errors(what: str) -> Iterator[None]:
    """ZenML's own exceptions, and those of what it stands on, as AdapterError classes."""
    try:
        yield
    except KeyError as error:  # how ZenML says that something does not exist
        raise NotFound(f"{what}: {error}") from error
    except (
        ZenMLBaseException,
        SQLAlchemyError,
        requests.RequestException,
        ValidationError,
        ValueError,
        RuntimeError,
    ) as error:
        raise _meaning(error, f"{what}: {error}") from error


@contextmanager
def database_errors(what: str) -> Iterator[None]:
    """Those of the database alone, around code of ours."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _meaning(error, f"{what}: {error}") from error


def _meaning(error: Exception, message: str) -> AdapterError:
    match error:
        case EntityExistsError() | IntegrityError():
            return TargetConflict(message)
        case AuthorizationException():
            return AuthFailed(message, hint="log in with `zenml login`, or set $ZENML_STORE_API_KEY")
        case SubscriptionUpgradeRequiredError():
            return QuotaExceeded(message)
        case IllegalOperationError():
            return Denied(message)
        case requests.Timeout():
            return TimedOut(message)
        case SQLAlchemyError() | EntityCreationError() | requests.RequestException():
            return Unavailable(message)
        case RuntimeError():
            return _of_server(message)
        case _:
            return BadInput(message)


def _of_server(message: str) -> AdapterError:
    """What a server tells in words: a status that ZenML has no class for, or an exception of the server's own."""
    if "IntegrityError" in message:
        return TargetConflict(message)
    found = _STATUS.search(message)
    status = int(found[1]) if found else 500
    if status == 429:
        return RateLimited(message)
    if status in (408, 504):
        return TimedOut(message)
    return Unavailable(message) if status >= 500 else BadInput(message)
