"""The bulk path keeps its hands off what it does not know."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store, prepare_database
from shardmig.adapters.mlflow.database.schema import KNOWN_REVISIONS
from shardmig.adapters.mlflow.source import open_source
from shardmig.errors import UsageError


@pytest.fixture
def ordinary(sqlite_uri: str) -> ClientStore:
    return ClientStore(sqlite_uri)


def test_a_database_of_the_installed_mlflow_is_known(sqlite_uri: str, ordinary: ClientStore) -> None:
    store, reason = open_store(sqlite_uri, lambda: ordinary)
    assert (store is not ordinary, reason) == (True, "")
    store.close()


@pytest.mark.parametrize("revision", ["0123456789ab", None])
def test_another_schema_revision_is_left_to_the_ordinary_path(
    sqlite_file: Path, ordinary: ClientStore, revision: str | None
) -> None:
    with sqlite3.connect(sqlite_file) as connection:
        connection.execute("DELETE FROM alembic_version")
        if revision:
            connection.execute("INSERT INTO alembic_version VALUES (?)", [revision])
    connection.close()
    store, reason = open_store(f"sqlite:///{sqlite_file}", lambda: ordinary)
    assert store is ordinary
    assert f"schema revision {revision or 'none'}" in reason


def test_workspaces_are_left_to_the_ordinary_path(
    sqlite_uri: str, ordinary: ClientStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert open_store(sqlite_uri, lambda: ordinary) == (ordinary, "MLflow's workspaces are enabled")


@pytest.mark.parametrize("uri", ["mysql://host/db", "mysql+pymysql://host/db", "mssql+pyodbc://host/db"])
def test_other_databases_are_left_to_the_ordinary_path(ordinary: ClientStore, uri: str) -> None:
    store, reason = open_store(uri, lambda: ordinary)
    assert store is ordinary
    assert "SQLite and PostgreSQL" in reason


def test_the_known_revisions_include_the_one_of_the_installed_mlflow() -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert _get_latest_schema_revision() in KNOWN_REVISIONS


@pytest.mark.parametrize("revision", ["0584bdc529eb", None])
def test_a_database_of_another_revision_is_refused_and_stays_as_it_is(sqlite_file: Path, revision: str | None) -> None:
    with closing(sqlite3.connect(sqlite_file)) as connection, connection:
        connection.execute("DROP TABLE assessments")  # MLflow would make it, and upgrade the rest, as it opens this
        connection.execute("DELETE FROM alembic_version")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [(one,) for one in [revision] if one])
    before = sqlite_file.read_bytes()
    told = f"at schema revision {revision}" if revision else "no MLflow database"
    uri = f"sqlite:///{sqlite_file}"
    with pytest.raises(UsageError, match=f"the source is {told}"):
        open_source({"tracking-uri": uri})
    if revision:  # without any it is a database whose first tables alone were made, and MLflow goes on
        with pytest.raises(UsageError, match=f"the target is {told}"):
            prepare_database(uri)
    assert sqlite_file.read_bytes() == before
