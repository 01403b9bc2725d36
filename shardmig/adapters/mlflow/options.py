"""The options of the MLflow target."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import Final, Literal
from urllib.parse import unquote_plus, urlsplit, urlunsplit

import msgspec

from shardmig.errors import UsageError

TEMPLATE_FIELDS: Final = ("project_id", "workspace", "project", "sys_name")
_CASELESS_DATABASES: Final = ("mysql", "mssql")
_PASSWORDS: Final = ("password", "passwd", "pwd", "sslpassword")
"""What drivers of databases call one in the query of a URI."""
_ODBC_PASSWORD: Final = re.compile(r"\b(pwd|password)\s*=", re.IGNORECASE)
_DATABASE_PASSWORD: Final = re.compile(r"[\w+]+://[^:/]*:([^@]*)@")
_HTTP: Final = ("http://", "https://")
_DATABASES: Final = ("sqlite", "postgresql", "postgres", "mysql", "mssql")


class TrackingOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Where MLflow is, whether it is written or read.

    tracking_uri       http(s) server or database
    credentials_file   TOML file that says who calls the server (see `credentials`); default: MLflow's environment variables
    requests_per_s     to a server, of all workers together; 0 = as many as it takes
    """

    tracking_uri: str = ""
    credentials_file: str = ""
    requests_per_s: float = 0

    @property
    def scheme(self) -> str:
        """The tracking URI's scheme without its driver: http, https, sqlite, postgresql …"""
        return urlsplit(self.tracking_uri).scheme.partition("+")[0]

    @property
    def is_http(self) -> bool:
        """Is it a server?"""
        return self.scheme in ("http", "https")


class MlflowOptions(TrackingOptions, frozen=True, kw_only=True):
    """Where and how to write. Passwords and tokens come from MLflow's own environment variables only.

    tracking_uri              http(s) server or database; default: $MLFLOW_TRACKING_URI
    name_prefix               first part of every experiment name
    experiment_name_template  of {project_id}, {workspace}, {project}, {sys_name}; a part between slashes that names a
                              fact which the run does not have is left out
    experiment_rename_file    CSV of old,new: the project `old` (an experiment of the source) counts as `new`
    model_rename_file         CSV of old,new: what registered models and prompts of the source are called
    bulk                      write database URIs through SQL where the schema revision is known
    names                     exact: the store tells `lr` from `LR` (SQLite, PostgreSQL). caseless: it may not (MySQL,
                              SQL Server), so names with anything but lower-case ASCII get a digest. Default: by the
                              database; `exact` for servers
    connections               HTTP connections of one worker
    artifact_workers          artifacts of one run that go up at the same time
    timeout_s                 of one HTTP request
    """

    name_prefix: str = ""
    experiment_name_template: str = "{project_id}/{sys_name}"
    experiment_rename_file: str = ""
    model_rename_file: str = ""
    bulk: Literal["yes", "no"] = "yes"
    names: Literal["", "exact", "caseless"] = ""
    connections: int = 4
    artifact_workers: int = 4
    timeout_s: float = 120.0

    @property
    def shown_uri(self) -> str:
        """The tracking URI as messages and links may show it: without user name and password."""
        parts = urlsplit(without_passwords(self.tracking_uri))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")

    @property
    def is_caseless(self) -> bool:
        """Must names differ in more than case?"""
        return self.names == "caseless" or (not self.names and self.scheme in _CASELESS_DATABASES)


def parse_options(texts: Mapping[str, str]) -> MlflowOptions:
    """Options from their texts. Raises UsageError for unknown names, bad values and a password in the URI."""
    try:
        options = msgspec.convert(dict(texts), MlflowOptions, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"mlflow target: {error}", hint=f"known options: {', '.join(_option_names())}") from error
    if holds_password(options.tracking_uri):
        raise UsageError(
            "the tracking URI holds a password, which would be stored in the plan",
            hint="set $MLFLOW_TRACKING_URI instead of --mlflow-tracking-uri, or use $PGPASSWORD",
        )
    options = msgspec.structs.replace(options, tracking_uri=with_password(options.tracking_uri))
    _check(options)
    return options


def with_password(uri: str) -> str:
    """The URI of the environment, if it is the one that a plan holds without password, or none; otherwise the same."""
    from_environment = os.environ.get("MLFLOW_TRACKING_URI", "")
    return from_environment if uri in ("", without_passwords(from_environment)) else uri


def holds_password(uri: str) -> bool:
    """Is there a password in the URI, before its host or in its query?"""
    return uri != without_passwords(uri)


def without_passwords(uri: str) -> str:
    """As a plan holds a URI of the environment, whose passwords stay there."""
    password = _password_of(uri)
    plain = uri.replace(f":{password}@", "@", 1) if password else uri
    head, mark, query = plain.partition("?")
    if "://" not in head or not any(map(_is_secret, query.split("&"))):
        return plain
    rest = "&".join(part for part in query.split("&") if not _is_secret(part))
    return f"{head}{mark}{rest}" if rest else head


def _password_of(uri: str) -> str | None:
    """Before the host, as whoever opens the URI reads it: SQLAlchemy takes `/`, `#` and `?` into a database's password."""
    if not uri.startswith(_HTTP) and (found := _DATABASE_PASSWORD.match(uri)):
        return found[1]
    try:
        return urlsplit(uri).password
    except ValueError:
        return None


def _is_secret(part: str) -> bool:
    """Is this part of a query a password? Of ODBC, which has a whole connection there: one with a password."""
    name, _, text = part.partition("=")
    if unquote_plus(name).lower() == "odbc_connect":
        return _ODBC_PASSWORD.search(unquote_plus(text)) is not None
    return bool(text) and unquote_plus(name).lower() in _PASSWORDS


@cache
def renames(file: str) -> Mapping[str, str]:
    """{old: new} from a CSV file without header. Raises UsageError for a line that is no pair, and for a name that is
    given twice on either side: two objects would become one."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"rename file {file} cannot be read: {error}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not all(row):
            raise UsageError(f"rename file {file}: row {number} is not old,new")
    for side in (0, 1):
        names = [row[side] for row in rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"rename file {file}: {twice[0]!r} is there twice")
    return {old: new for old, new in rows}  # noqa: C416 (rows are lists)


def _check(options: MlflowOptions) -> None:
    if not options.tracking_uri:
        raise UsageError("no MLflow tracking URI", hint="give --mlflow-tracking-uri or set $MLFLOW_TRACKING_URI")
    if not options.is_http and options.scheme not in _DATABASES:
        raise UsageError(
            f"tracking URIs of the kind {options.scheme or 'path'!r} are not supported",
            hint=f"known: http, https, {', '.join(_DATABASES)}",
        )
    try:
        fields = [name for _, name, _, _ in Formatter().parse(options.experiment_name_template) if name is not None]
    except ValueError as error:
        raise UsageError(f"experiment-name-template: {error}") from error
    if unknown := sorted(set(fields) - set(TEMPLATE_FIELDS)):
        raise UsageError(
            f"experiment-name-template: unknown field {unknown[0]!r}", hint=f"known: {', '.join(TEMPLATE_FIELDS)}"
        )
    if options.is_http and not urlsplit(options.tracking_uri).hostname:
        raise UsageError("the tracking URI names no host")
    for file in filter(None, (options.experiment_rename_file, options.model_rename_file)):
        renames(file)
    if options.connections < 1 or options.artifact_workers < 1:
        raise UsageError("connections and artifact-workers must be at least 1")


def _option_names() -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(MlflowOptions)]
