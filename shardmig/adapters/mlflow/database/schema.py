"""MLflow's tables: which schema revisions the bulk path knows, and how a new database gets them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Final, cast

from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
from mlflow.store.db import utils as mlflow_db
from mlflow.store.tracking.dbmodels.models import (
    SqlDataset,
    SqlExperiment,
    SqlExperimentTag,
    SqlInput,
    SqlInputTag,
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from sqlalchemy import Column, MetaData, String, Table, inspect, literal, select
from sqlalchemy.engine import make_url

from shardmig.adapters.mlflow.database.connection import Database, remove_file
from shardmig.adapters.mlflow.database.turns import turn
from shardmig.errors import UsageError

KNOWN_REVISIONS: Final = frozenset({"dc11669786a5"})
"""Schema revisions against which every API answer was compared (tests/contract/mlflow): MLflow 3.17.2."""

EXPERIMENTS: Final = cast("Table", SqlExperiment.__table__)
EXPERIMENT_TAGS: Final = cast("Table", SqlExperimentTag.__table__)
RUNS: Final = cast("Table", SqlRun.__table__)
TAGS: Final = cast("Table", SqlTag.__table__)
PARAMS: Final = cast("Table", SqlParam.__table__)
METRICS: Final = cast("Table", SqlMetric.__table__)
LATEST_METRICS: Final = cast("Table", SqlLatestMetric.__table__)
DATASETS: Final = cast("Table", SqlDataset.__table__)
INPUTS: Final = cast("Table", SqlInput.__table__)
INPUT_TAGS: Final = cast("Table", SqlInputTag.__table__)

_OTHER_SCHEMA: Final = {
    "source": "read it through an `mlflow server` of its own version (--source mlflow http://...), or upgrade a copy of it",
    "target": "upgrade it (`mlflow db upgrade`, with its servers stopped), or write through an `mlflow server` of its version",
}
_ALEMBIC_VERSION: Final = Table("alembic_version", MetaData(), Column("version_num", String(32)))


def why_not_bulk(database: Database) -> str:
    """Why the bulk path must keep its hands off this database; "" = it may write."""
    if MLFLOW_ENABLE_WORKSPACES.get():
        return "MLflow's workspaces are enabled"
    revisions = _revisions(database)
    if revisions != {_installed_revision()}:
        return (
            f"the database is at schema revision {_listed(revisions)}, the installed MLflow at {_installed_revision()}"
        )
    if not revisions <= KNOWN_REVISIONS:
        return f"schema revision {_listed(revisions)} is newer or older than those shardmig knows"
    return ""


def refuse_other_schema(side: str, database: Database) -> None:
    """Raises UsageError for a database that is not at the schema revision of the installed MLflow: opening it, MLflow makes
    the tables that it lacks and so upgrades it in place (measured, 3.17.2), and whoever uses it with an older one cannot
    any more. `side`: source or target."""
    held = _revisions(database)
    if held != {_installed_revision()}:
        what = f"is at schema revision {_listed(held)}, the installed MLflow at {_installed_revision()}"
        raise UsageError(f"the {side} {what if held else 'is no MLflow database'}", hint=_OTHER_SCHEMA[side])


def initialise(uri: str) -> None:
    """Give a database without tables MLflow's, once, whoever comes first. Raises as `refuse_other_schema`.

    A new SQLite file is made beside its place and renamed, so that a worker killed meanwhile leaves nothing half made.
    """
    path = make_url(uri).database if uri.startswith("sqlite") else None
    file = None if path in (None, "", ":memory:") or path.startswith("file:") else Path(path)
    if (file is None or file.exists()) and _is_at_installed_revision(uri):
        return
    with _quiet_migrations(), turn("initialise", uri):
        if file is None or file.exists():
            _create_missing_tables(uri)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_name(f"{file.name}.shardmig-new")
        remove_file(staged)
        _create_missing_tables(make_url(uri).set(database=str(staged)).render_as_string(hide_password=False))
        remove_file(file)
        os.replace(staged, file)


def _is_at_installed_revision(uri: str) -> bool:
    with closing(Database(uri)) as database:
        return _revisions(database) == {_installed_revision()}


def _create_missing_tables(uri: str) -> None:
    with closing(Database(uri)) as database:
        if _has_nothing(database):
            with database.translated():
                engine = mlflow_db.create_sqlalchemy_engine(uri)
                mlflow_db._initialize_tables(engine)  # noqa: SLF001
                engine.dispose()
        refuse_other_schema("target", database)


def _has_nothing(database: Database) -> bool:
    """No table, or the first ones alone: MLflow makes those in a transaction of their own, and may be killed behind it."""
    with database.reading() as connection:
        if not inspect(connection).has_table(EXPERIMENTS.name):
            return True
        is_used = connection.execute(select(literal(1)).select_from(EXPERIMENTS).limit(1)).first()
    return is_used is None and not _revisions(database)


def _revisions(database: Database) -> set[str]:
    with database.reading() as connection:
        if not inspect(connection).has_table(_ALEMBIC_VERSION.name):
            return set()
        return set(connection.scalars(select(_ALEMBIC_VERSION.c.version_num)))


@cache
def _installed_revision() -> str:
    return cast("str", mlflow_db._get_latest_schema_revision())  # noqa: SLF001


def _listed(revisions: set[str]) -> str:
    return ", ".join(sorted(revisions)) or "none"


@contextmanager
def _quiet_migrations() -> Iterator[None]:
    # Alembic logs one line a migration; fifty lines say nothing to a user who asked for a new file.
    logger = logging.getLogger("alembic")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
