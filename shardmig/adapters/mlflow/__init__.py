"""MLflow as target: a tracking server over HTTP, or its database, with the bulk path where the schema is known.

mlflow itself is imported for databases and foreign artifact stores only; a server is spoken to without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shardmig.adapters.base import WriteSide
from shardmig.adapters.mlflow import database
from shardmig.adapters.mlflow.options import MlflowOptions, parse_options
from shardmig.adapters.mlflow.store import RunStore
from shardmig.records import LoadOptions


def imports(options: Mapping[str, str]) -> Iterable[str]:
    """What a worker will import: nothing for a server, seconds for a database."""
    return () if parse_options(options).is_http else database.MODULES


def open_target(options: Mapping[str, str], load: LoadOptions) -> WriteSide:
    """The write side. Raises UsageError for its options, MissingExtra where mlflow is needed and not installed."""
    from shardmig.adapters.mlflow.credentials import Login, credentials_of
    from shardmig.adapters.mlflow.http import HttpClient
    from shardmig.adapters.mlflow.rest import RestStore
    from shardmig.adapters.mlflow.target import MlflowTarget

    chosen = parse_options(options)
    if not chosen.is_http:
        return MlflowTarget(lambda: _database_store(chosen), None, chosen, load)
    most = chosen.connections + chosen.artifact_workers
    login = Login(credentials_of("target", chosen.credentials_file), chosen.tracking_uri)
    rate = chosen.requests_per_s
    http = HttpClient(chosen.tracking_uri, login, connections=most, timeout_s=chosen.timeout_s, requests_per_s=rate)
    return MlflowTarget(lambda: RestStore(http, connections=chosen.connections), http, chosen, load)


def _database_store(options: MlflowOptions) -> RunStore:
    from shardmig import logs
    from shardmig.adapters.mlflow.database import open_store, prepare_database
    from shardmig.errors import MissingExtra

    try:
        from shardmig.adapters.mlflow.client import ClientStore
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"an MLflow database needs the package {error.name!r}", hint="pip install 'shardmig[mlflow]'"
        ) from error
    uri = prepare_database(options.tracking_uri)
    if options.bulk == "no":
        return ClientStore(uri)
    store, reason = open_store(uri, lambda: ClientStore(uri))
    if reason:
        logs.get_logger().info(logs.Event.FALLBACK, target="mlflow", reason=reason)
    return store
