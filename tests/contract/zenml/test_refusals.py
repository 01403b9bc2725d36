"""What ZenML's refusals mean for the migration."""

from __future__ import annotations

import pytest
import requests
from sqlalchemy.exc import IntegrityError, OperationalError
from zenml.exceptions import (
    AuthorizationException,
    EntityExistsError,
    IllegalOperationError,
    SubscriptionUpgradeRequiredError,
)

from shardmig.adapters.zenml.refusals import database_errors, zenml_errors
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

pytestmark = pytest.mark.xdist_group("zenml")


@pytest.mark.parametrize(
    ("refusal", "meaning"),
    [
        (KeyError("Unable to get model"), NotFound),
        (EntityExistsError("there"), TargetConflict),
        (IntegrityError("INSERT", {}, Exception("UNIQUE")), TargetConflict),
        (RuntimeError("(sqlite3.IntegrityError) UNIQUE constraint failed"), TargetConflict),
        (OperationalError("INSERT", {}, Exception("database is locked")), Unavailable),
        (AuthorizationException("no"), AuthFailed),
        (IllegalOperationError("no"), Denied),
        (SubscriptionUpgradeRequiredError("pay"), QuotaExceeded),
        (requests.ConnectionError("refused"), Unavailable),
        (requests.ReadTimeout("slow"), TimedOut),
        (RuntimeError("429 HTTP Error received from server: slow down"), RateLimited),
        (RuntimeError("504 HTTP Error received from server: "), TimedOut),
        (RuntimeError("503 HTTP Error received from server: "), Unavailable),
        (RuntimeError("413 HTTP Error received from server: too large"), BadInput),
        (ValueError("a name with tabs"), BadInput),
    ],
)
def test_each_refusal_has_a_class(refusal: Exception, meaning: type[AdapterError]) -> None:
    with pytest.raises(meaning, match="doing something"), zenml_errors("doing something"):
        raise refusal


def test_around_code_of_ours_only_the_database_is_spoken_for() -> None:
    with pytest.raises(Unavailable), database_errors("a transaction"):
        raise OperationalError("COMMIT", {}, Exception("disk I/O error"))
    with pytest.raises(ValueError, match="a bug"), database_errors("a transaction"):
        raise ValueError("a bug")
