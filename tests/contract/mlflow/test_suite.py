"""The MLflow target passes the suite on databases, with and without the bulk path."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import WriteSide
from shardmig.adapters.conformance import TargetSuite
from shardmig.adapters.mlflow import open_target
from shardmig.records import LoadOptions


class DatabaseSuite(TargetSuite):
    bulk = "yes"

    @pytest.fixture(autouse=True)
    def _database(self, sqlite_file: Path) -> None:
        """An initialised database as tmp_path/mlflow.db."""

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"tracking-uri": f"sqlite:///{folder}/mlflow.db", "bulk": self.bulk}, load)


class TestBulkDatabase(DatabaseSuite):
    pass


class TestOrdinaryDatabase(DatabaseSuite):
    bulk = "no"
