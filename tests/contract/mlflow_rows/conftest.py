"""Tracking databases with a row in every table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.mlflow_rows.rows import fill_every_table
from tests.servers.postgres import postgres_server
from tests.servers.tracking_databases import postgres_template, postgres_uri, sqlite_file, sqlite_template

__all__ = ["postgres_server", "postgres_template", "postgres_uri", "sqlite_file", "sqlite_template"]


@pytest.fixture
def source(sqlite_file: Path) -> Path:
    """A SQLite database with rows in every table."""
    fill_every_table(f"sqlite:///{sqlite_file}")
    return sqlite_file
