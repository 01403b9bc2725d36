"""MLflow as source: a tracking server over HTTP, its database, or a folder `mlruns`.

Read from top to bottom: options → reader (the read side: listing) → reading (one run as chunks) → tree (artifacts); files
is the run store over a folder, the others are the target's. The map between MLflow's runs and fields is `adapters/mlflow/native`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shardmig.adapters.base import ReadSide
from shardmig.adapters.mlflow import database
from shardmig.adapters.mlflow.source.options import SourceOptions, parse_options

if TYPE_CHECKING:
    from shardmig.adapters.mlflow.http import HttpClient
    from shardmig.adapters.mlflow.objects.reading import ObjectSource
    from shardmig.adapters.mlflow.source.wanted import Wanted

_OF_OBJECTS: Final = ("mlflow.store.tracking.rest_store", "mlflow.store.model_registry.rest_store")
"""What is no run is read through MLflow's own stores."""


def imports(options: Mapping[str, str]) -> Iterable[str]:
    """What a worker will import, seconds each: nothing for the runs of a server or a folder."""
    chosen, wanted = parse_options(options)
    if not chosen.is_http and chosen.folder is None:
        return database.MODULES
    return _OF_OBJECTS if wanted.scopes - {"runs"} else ()


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options, MissingExtra where mlflow is needed and not installed."""
    from shardmig.adapters.mlflow.credentials import Login, credentials_of
    from shardmig.adapters.mlflow.http import HttpClient
    from shardmig.adapters.mlflow.rest import RestStore
    from shardmig.adapters.mlflow.source.reader import MlflowSource
    from shardmig.adapters.mlflow.source.reading import FETCHERS

    chosen, wanted = parse_options(options)
    if not chosen.is_http:
        wanted.refuse_without_server()
    if chosen.folder is not None:
        return _folder_source(chosen.folder, wanted)
    if not chosen.is_http:
        return _database_source(chosen, wanted)
    login = Login(credentials_of("source", chosen.credentials_file), chosen.tracking_uri)
    most = chosen.connections + FETCHERS
    rate = chosen.requests_per_s
    http = HttpClient(chosen.tracking_uri, login, connections=most, timeout_s=chosen.timeout_s, requests_per_s=rate)
    store = RestStore(http, connections=chosen.connections)
    objects = _objects(chosen, wanted, http)
    return MlflowSource(store, http, objects=objects, wanted=wanted, expect=store.expect)


def _objects(options: SourceOptions, wanted: Wanted, http: HttpClient | None) -> ObjectSource:
    from shardmig.adapters.mlflow.database.uri import driver_uri
    from shardmig.adapters.mlflow.objects.classes import classes
    from shardmig.adapters.mlflow.objects.reading import ObjectSource
    from shardmig.adapters.mlflow.objects.references import References
    from shardmig.adapters.mlflow.objects.stores import Stores

    stores = Stores(options.tracking_uri if http else driver_uri(options.tracking_uri), http, wanted)
    references = References(stores)
    return ObjectSource(stores, references, classes(stores, references, wanted.scopes))


def _folder_source(folder: Path, wanted: Wanted) -> ReadSide:
    from shardmig.adapters.mlflow.objects.classes import classes
    from shardmig.adapters.mlflow.objects.folder import NOT_IN_FOLDERS, FolderStores
    from shardmig.adapters.mlflow.objects.reading import ObjectSource
    from shardmig.adapters.mlflow.objects.references import References
    from shardmig.adapters.mlflow.source.files import FileStore
    from shardmig.adapters.mlflow.source.reader import MlflowSource

    store, stores = FileStore(folder), FolderStores(folder, wanted)
    references = References(stores)
    objects = ObjectSource(stores, references, classes(stores, references, wanted.scopes - NOT_IN_FOLDERS))
    return MlflowSource(store, None, lost=store.lost, objects=objects, wanted=wanted)


def _database_source(options: SourceOptions, wanted: Wanted) -> ReadSide:
    from shardmig.adapters.mlflow.database import open_source_store
    from shardmig.adapters.mlflow.database.uri import driver_uri
    from shardmig.adapters.mlflow.source.reader import MlflowSource
    from shardmig.errors import MissingExtra

    try:
        from shardmig.adapters.mlflow.client import ClientStore
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"an MLflow database needs the package {error.name!r}", hint="pip install 'shardmig[mlflow]'"
        ) from error
    uri = driver_uri(options.tracking_uri)
    store = open_source_store(uri, lambda: ClientStore(uri))
    return MlflowSource(store, None, objects=_objects(options, wanted, None), wanted=wanted)
