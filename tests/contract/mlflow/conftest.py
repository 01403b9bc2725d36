"""Tracking databases for the contract of the MLflow target."""

from __future__ import annotations

from tests.servers.mlflow import mlflow_http
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
    "mlflow_http",
    "postgres_pair",
    "postgres_server",
    "postgres_template",
    "postgres_uri",
    "sqlite_file",
    "sqlite_pair",
    "sqlite_template",
]
