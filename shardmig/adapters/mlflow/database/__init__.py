"""The bulk path of the MLflow target: runs through SQL, for SQLite and PostgreSQL tracking URIs.

Writes MLflow's own tables as MLflow's own store would, only in large transactions, and reads histories in columns.
What it leaves behind cannot be told from the ordinary path through any call of MLflow's API. Nothing here imports
mlflow or SQLAlchemy before one of the functions is called.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from shardmig.adapters.mlflow.database.uri import driver_uri, is_bulk_dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardmig.adapters.mlflow.database.connection import Database
    from shardmig.adapters.mlflow.store import RunStore


MODULES: Final = ("shardmig.adapters.mlflow.client", "shardmig.adapters.mlflow.database.store")
"""What a store needs. To import them takes 2 to 4 s (measured), most of it mlflow's."""


def prepare_database(tracking_uri: str) -> str:
    """The database URI to hand to MLflow; a database without tables gets MLflow's, by MLflow's own code.

    Call it before the first MlflowClient: several workers may, only one of them initialises. A missing SQLite file
    appears whole or not at all. Raises AdapterError classes, and UsageError for another schema revision.
    """
    from shardmig.adapters.mlflow.database.schema import initialise

    uri = driver_uri(tracking_uri)
    # It tells of its first tables, and with a traceback of each error that it raises as well, and that is told then.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if is_bulk_dialect(uri):
        initialise(uri)
    return uri


def open_bulk(tracking_uri: str) -> tuple[Database | None, str]:
    """A prepared database that may be written past MLflow's own store, to be closed, and ""; or the reason why it may not."""
    from shardmig.adapters.mlflow.database.connection import Database
    from shardmig.adapters.mlflow.database.schema import why_not_bulk

    uri = driver_uri(tracking_uri, bulk=True)
    if not is_bulk_dialect(uri):
        return None, f"the bulk path writes SQLite and PostgreSQL, not {uri.partition(':')[0]}"
    with ExitStack() as unless_used:
        database = Database(uri)
        unless_used.callback(database.close)
        if reason := why_not_bulk(database):
            return None, reason
        unless_used.pop_all()
    return database, ""


def open_store(tracking_uri: str, open_ordinary: Callable[[], RunStore]) -> tuple[RunStore, str]:
    """The bulk store over a prepared database and "", or the ordinary store and the reason why there is no bulk path.

    The bulk store opens the ordinary one for what is rare, and closes it.
    """
    from shardmig.adapters.mlflow.database.store import DatabaseStore

    database, reason = open_bulk(tracking_uri)
    return (open_ordinary() if database is None else DatabaseStore(database, open_ordinary)), reason


def open_source_store(tracking_uri: str, open_ordinary: Callable[[], RunStore]) -> RunStore:
    """A store to read a database of the installed MLflow's schema revision. Raises UsageError for another one."""
    from shardmig.adapters.mlflow.database.connection import Database
    from shardmig.adapters.mlflow.database.schema import refuse_other_schema
    from shardmig.adapters.mlflow.database.store import DatabaseStore

    database, _ = open_bulk(tracking_uri)
    if database is not None:
        return DatabaseStore(database, open_ordinary)
    with closing(Database(driver_uri(tracking_uri, bulk=True))) as other:
        refuse_other_schema("source", other)
    return open_ordinary()
