"""Tracking databases for tests: made by MLflow once a session, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shardmig.adapters.mlflow.database import prepare_database
from tests.made_once import made_once
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised SQLite file. Not to be written."""
    name = "mlflow.db"
    return made_once(tmp_path_factory, "sqlite", lambda folder: prepare_database(f"sqlite:///{folder / name}")) / name


@pytest.fixture
def sqlite_file(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An initialised SQLite file of its own; artifacts go below the test's folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(sqlite_template, tmp_path / "mlflow.db"))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """Name of an initialised database to copy."""
    name = postgres_server.create_database()
    prepare_database(postgres_server.uri(name))
    return name


@pytest.fixture
def postgres_uri(
    postgres_server: PostgresServer, postgres_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Tracking URI of an initialised PostgreSQL database of its own."""
    monkeypatch.chdir(tmp_path)
    return postgres_server.uri(postgres_server.create_database(postgres_template))


@pytest.fixture
def sqlite_pair(sqlite_file: Path) -> tuple[str, str]:
    """Tracking URIs of two equal SQLite files."""
    other = shutil.copy(sqlite_file, sqlite_file.with_name("other.db"))
    return f"sqlite:///{sqlite_file}", f"sqlite:///{other}"


@pytest.fixture
def postgres_pair(postgres_uri: str, postgres_server: PostgresServer, postgres_template: str) -> tuple[str, str]:
    """Tracking URIs of two equal PostgreSQL databases."""
    return postgres_uri, postgres_server.uri(postgres_server.create_database(postgres_template))
