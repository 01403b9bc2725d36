"""What the refusals of MLflow, its servers and the way to them mean for the migration."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from shardmig.adapters.wrappers import retry_after_s
from shardmig.errors import (
    AdapterError,
    AuthFailed,
    BadInput,
    Denied,
    Fatal,
    NotFound,
    RateLimited,
    TargetConflict,
    TimedOut,
    Unavailable,
    Unsupported,
)

_AWS_STRANGERS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_NO_WAY = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL})
"""What a socket says without a way to the server: no ConnectionError to Python."""
_NO_VALUES = (UnicodeError, OverflowError)
"""What a driver raises of a text that has no UTF-8, or of a number beyond 64 bits."""
_AWS_HINT = "check $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or ~/.aws"


@contextmanager
def network_errors(what: str) -> Iterator[None]:
    """What went wrong on the way to the server, as AdapterError classes."""
    try:
        yield
    except TimeoutError as error:
        raise TimedOut(f"{what}: no answer in time") from error
    except ssl.SSLCertVerificationError as error:
        raise Fatal(
            f"{what}: {error}", hint="set $MLFLOW_TRACKING_SERVER_CERT_PATH to the server's certificate authority"
        ) from error
    except (ConnectionError, http.client.HTTPException, ssl.SSLError, socket.gaierror) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error
    except OSError as error:  # those of a disk pass through here, too
        if error.errno not in _NO_WAY:
            raise
        raise Unavailable(f"{what}: {error.strerror}") from error


class _Refusal(msgspec.Struct):
    error_code: str | int = ""
    message: str = ""


def response_error(method: str, target: str, response: http.client.HTTPResponse) -> AdapterError:
    """What a response of status 400 or more means."""
    text = response.read()
    try:
        refusal = msgspec.json.decode(text, type=_Refusal)
    except msgspec.DecodeError:
        refusal = _Refusal(message=text[:200].decode("utf-8", "replace"))
    pause_s = retry_after_s(response.headers.get("Retry-After"))
    what = f"{method} {target.partition('?')[0]}: {response.status} {refusal.error_code} {refusal.message}"
    return error_of(response.status, str(refusal.error_code), what, pause_s)


def error_of(status: int, code: str, message: str, pause_s: float | None = None) -> AdapterError:
    """What an HTTP status and MLflow's error code mean for the migration."""
    if status == 401:
        return AuthFailed(message, hint="check $MLFLOW_TRACKING_USERNAME and _PASSWORD, or $MLFLOW_TRACKING_TOKEN")
    if status == 403:
        return Denied(message)
    if status == 429 or (status == 503 and pause_s is not None):
        return RateLimited(message, retry_after_s=pause_s)
    if status in (408, 504):
        return TimedOut(message)
    if status >= 500:
        return Unavailable(message)
    if code == "RESOURCE_ALREADY_EXISTS":
        return TargetConflict(message)
    if status == 404 or code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(message)
    return BadInput(message)


@contextmanager
def mlflow_errors(what: str) -> Iterator[None]:
    """MLflow's own exceptions, those of what it stands on, and those of values that it has no form for, as AdapterError
    classes."""
    import yaml  # type: ignore[import-untyped]
    from google.protobuf.json_format import Error as NoJson
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if isinstance(error.__cause__, _NO_VALUES):  # of a database, which MLflow calls an internal error
            raise BadInput(f"{what}: {error.message}") from error
        status: int = error.get_http_status_code()
        raise error_of(status, str(error.error_code), f"{what}: {_without_sql(error.message)}") from error
    except SQLAlchemyError as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {_without_sql(str(error))}") from error
    except NotImplementedError as error:
        raise Unsupported(f"{what}: {str(error) or 'MLflow has no way to do this'}") from error
    except ImportError as error:  # MLflow imports what an artifact store needs once it is used
        hint = "install the package that MLflow's documentation names for this store"
        raise BadInput(f"{what}: {error}", hint=hint) from error
    except (ValueError, TypeError, OverflowError, NoJson, yaml.YAMLError) as error:
        raise BadInput(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def artifact_errors(what: str) -> Iterator[None]:
    """As `mlflow_errors`, and what MLflow lets through of boto3, where artifacts lie in S3."""
    with mlflow_errors(what):
        try:
            yield
        except _aws_errors() as error:
            raise _aws_error(what, error) from error


def _aws_errors() -> tuple[type[Exception], ...]:
    if "botocore" not in sys.modules:  # then it raised nothing
        return ()
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return Boto3Error, BotoCoreError, ClientError


def _aws_error(what: str, error: Exception) -> AdapterError:
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    told = error if isinstance(error, ClientError) else error.__context__  # boto3 wraps what an upload raised
    message = f"{what}: {error}"
    if not isinstance(told, ClientError):
        is_nobody = isinstance(error, NoCredentialsError | PartialCredentialsError)
        return AuthFailed(message, hint=_AWS_HINT) if is_nobody else Unavailable(message)
    if told.response["Error"]["Code"] in _AWS_STRANGERS:
        return AuthFailed(message, hint=_AWS_HINT)
    return error_of(told.response["ResponseMetadata"]["HTTPStatusCode"], "", message)


def _without_sql(message: str) -> str:
    """Without the statement and its parameters, which hold what users logged."""
    return message.partition("\n[SQL:")[0].strip()


def deleted_experiment(name: str, experiment_id: str) -> TargetConflict:
    """What to say when a deleted experiment holds the name."""
    return TargetConflict(
        f"experiment {name!r} exists in MLflow but is deleted, and deleted experiments keep their name",
        hint=f"mlflow experiments restore --experiment-id {experiment_id}, or choose another --name-prefix",
    )
