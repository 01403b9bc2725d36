"""The options of source `mlflow`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from shardmig.adapters.mlflow.options import TrackingOptions, holds_password, with_password
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.source.wanted import Wanted, split_options, wanted_names
from shardmig.errors import UsageError

_DATABASES: Final = ("sqlite", "postgresql", "postgres", "mysql", "mssql")


class SourceOptions(TrackingOptions, frozen=True, kw_only=True):
    """Where to read. Passwords and tokens come from MLflow's own environment variables only.

    tracking_uri   http(s) server, database, or folder (`mlruns`); default: $MLFLOW_TRACKING_URI
    connections    HTTP connections of one worker
    timeout_s      of one HTTP request
    """

    connections: int = 4
    timeout_s: float = 120.0

    @property
    def folder(self) -> Path | None:
        """The folder of a file store; None: a server or a database."""
        uri = self.tracking_uri
        place = on_this_machine(uri) if uri else None
        return Path(uri) if uri and place is None and "://" not in uri else place


class Parsed(NamedTuple):
    """Where to read, and what."""

    options: SourceOptions
    wanted: Wanted


def parse_options(texts: Mapping[str, str]) -> Parsed:
    """Options from their texts. Raises UsageError for unknown names, bad values, a password in the URI, and a SQLite file
    or folder that does not exist."""
    wanted, where = split_options(texts)
    try:
        options = msgspec.convert(where, SourceOptions, strict=False)
    except msgspec.ValidationError as error:
        known = [*(field.encode_name for field in msgspec.structs.fields(SourceOptions)), *wanted_names()]
        names = ", ".join(known)
        raise UsageError(f"mlflow source: {error}", hint=f"known options: {names}") from error
    if holds_password(options.tracking_uri):
        raise UsageError(
            "the source's URI holds a password, which would be stored in the plan",
            hint="set $MLFLOW_TRACKING_URI instead, or use $MLFLOW_TRACKING_PASSWORD or $PGPASSWORD",
        )
    options = msgspec.structs.replace(options, tracking_uri=with_password(options.tracking_uri))
    _check(options)
    return Parsed(options, wanted)


def _check(options: SourceOptions) -> None:
    if not options.tracking_uri:
        raise UsageError("no MLflow to read", hint="give its URI after --source mlflow, or set $MLFLOW_TRACKING_URI")
    if options.folder is not None:
        if not options.folder.is_dir():
            raise UsageError(f"there is no folder {options.folder}")
        return
    if not options.is_http and options.scheme not in _DATABASES:
        raise UsageError(
            f"MLflow at URIs of the kind {options.scheme or 'path'!r} cannot be read",
            hint=f"known: a folder, http, https, {', '.join(_DATABASES)}",
        )
    if options.is_http and not urlsplit(options.tracking_uri).hostname:
        raise UsageError("the source's URI names no host")
    if options.connections < 1:
        raise UsageError("connections must be at least 1")
    path = options.tracking_uri.partition(":///")[2].partition("?")[0]
    if options.scheme == "sqlite" and not path.startswith(("file:", ":memory:")) and not Path(path).exists():
        raise UsageError(f"there is no SQLite file {path}")
