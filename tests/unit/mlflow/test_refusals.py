"""What MLflow and its database refuse is told without what users logged."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import sqlalchemy
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from mlflow.exceptions import MlflowException

from shardmig.adapters.mlflow.refusals import artifact_errors, mlflow_errors, network_errors
from shardmig.errors import AdapterError, AuthFailed, Denied, Unavailable


def _s3_error(status: int, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


def test_a_refusing_database_is_told_without_the_statement() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with (
        engine.connect() as connection,
        pytest.raises(Unavailable) as refused,
        mlflow_errors("reading"),
    ):
        connection.exec_driver_sql("SELECT ? FROM nowhere", ("secret",))
    engine.dispose()
    assert "no such table: nowhere" in refused.value.message
    assert "secret" not in refused.value.message
    assert "SELECT" not in refused.value.message


def test_so_is_one_that_mlflow_tells_of() -> None:
    with pytest.raises(Unavailable) as refused, mlflow_errors("reading"):
        raise MlflowException("(sqlite3.OperationalError) locked\n[SQL: INSERT INTO params VALUES ('secret')]")
    assert refused.value.message == "reading: (sqlite3.OperationalError) locked"


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (NoCredentialsError(), AuthFailed),
        (EndpointConnectionError(endpoint_url="http://nowhere"), Unavailable),
        (_s3_error(403, "SignatureDoesNotMatch"), AuthFailed),
        (_s3_error(403, "AccessDenied"), Denied),
        (_s3_error(503, "SlowDown"), Unavailable),
    ],
)
def test_what_s3_refuses_is_told_as_what_it_means(told: Exception, error: type[AdapterError]) -> None:
    with pytest.raises(error) as refused, artifact_errors("artifact a.txt"):
        raise told
    assert refused.value.message.startswith("artifact a.txt: ")


def test_so_is_what_boto3_wraps() -> None:
    wrapped = S3UploadFailedError("Failed to upload a.txt")
    wrapped.__context__ = _s3_error(403, "AccessDenied")
    with pytest.raises(Denied), artifact_errors("artifact a.txt"):
        raise wrapped


def test_no_way_to_the_server_is_waited_for_and_a_full_disk_is_none() -> None:
    with pytest.raises(Unavailable, match="GET /: No route to host"), network_errors("GET /"):
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    with pytest.raises(OSError, match="No space left") as full, network_errors("GET /"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not isinstance(full.value, AdapterError)
