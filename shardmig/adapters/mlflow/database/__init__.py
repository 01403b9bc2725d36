"""The bulk path of the MLflow target: runs through SQL, for SQLite and PostgreSQL tracking URIs.

Writes MLflow's own tables as MLflow's own store would, only in large transactions, and reads histories in columns.
What it leaves behind cannot be told from the ordinary path through any call of MLflow's API. Nothing here imports
mlflow or SQLAlchemy before one of the functions is called.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from shardmig.adapters.mlflow.database.uri import driver_uri, is_bulk_dialect

if TYPE_CHECKING:
    from shardmig.adapters.mlflow.store import RunStore


MODULES: Final = ("shardmig.adapters.mlflow.client", "shardmig.adapters.mlflow.database.store")
"""What a store needs. To import them takes 2 to 4 s (measured), most of it mlflow's."""


def prepare_database(tracking_uri: str) -> str:
    """The database URI to hand to MLflow; a database without tables gets MLflow's, by MLflow's own code.

    Call it before the first MlflowClient: several workers may, only one of them initialises. A missing SQLite file
    appears whole or not at all. Raises AdapterError classes, and UsageError for another schema revision.
    """
    from shardmig.adapters.mlflow.database.schema import initialise, refuse_other_schema

    uri = driver_uri(tracking_uri)
    # It tells of its first tables, and with a traceback of each error that it raises as well, and that is told then.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if is_bulk_dialect(uri):
        initialise(uri)
        refuse_other_schema("target", uri)
    return uri


def open_store(tracking_uri: str, ordinary: RunStore) -> tuple[RunStore, str]:
    """The bulk store over a prepared database and "", or `ordinary` and the reason why there is no bulk path.

    The bulk store closes `ordinary`, which it uses for what is rare.
    """
    from shardmig.adapters.mlflow.database.connection import Database
    from shardmig.adapters.mlflow.database.schema import why_not_bulk
    from shardmig.adapters.mlflow.database.store import DatabaseStore

    uri = driver_uri(tracking_uri, bulk=True)
    if not is_bulk_dialect(uri):
        return ordinary, f"the bulk path writes SQLite and PostgreSQL, not {uri.partition(':')[0]}"
    database = Database(uri)
    if reason := why_not_bulk(database):
        database.close()
        return ordinary, reason
    return DatabaseStore(database, ordinary), ""
