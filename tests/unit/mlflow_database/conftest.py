"""Bulk stores over databases of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store
from shardmig.adapters.mlflow.store import NewRun, RunStore, StoredRun
from tests.servers.postgres import postgres_server
from tests.servers.tracking_databases import (
    postgres_pair,
    postgres_template,
    postgres_uri,
    sqlite_file,
    sqlite_pair,
    sqlite_template,
)

__all__ = [
    "postgres_pair",
    "postgres_server",
    "postgres_template",
    "postgres_uri",
    "sqlite_file",
    "sqlite_pair",
    "sqlite_template",
]


@pytest.fixture
def sqlite_uri(sqlite_file: Path) -> str:
    return f"sqlite:///{sqlite_file}"


@pytest.fixture(params=["sqlite_uri", pytest.param("postgres_uri", marks=pytest.mark.postgres)])
def uri(request: pytest.FixtureRequest) -> str:
    """Each database in turn."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(uri: str) -> Iterator[RunStore]:
    """The bulk store over each database in turn."""
    opened, reason = open_store(uri, lambda: ClientStore(uri))
    assert (reason, opened.experiment_id("Default")) == ("", "0")
    yield opened
    opened.close()


@pytest.fixture
def run(store: RunStore) -> StoredRun:
    """A new run of that store."""
    new = NewRun(experiment_id="0", name="run", start_ms=5, user="eve", tags={"shardmig.key": "k"})
    return store.create_run(new)
