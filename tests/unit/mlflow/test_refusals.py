"""What MLflow and its database refuse is told without what users logged."""

from __future__ import annotations

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException

from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.errors import Unavailable


def test_a_refusing_database_is_told_without_the_statement() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with (
        engine.connect() as connection,
        pytest.raises(Unavailable) as refused,
        mlflow_errors("reading"),
    ):
        connection.exec_driver_sql("SELECT ? FROM nowhere", ("secret",))
    engine.dispose()
    assert "no such table: nowhere" in refused.value.message
    assert "secret" not in refused.value.message
    assert "SELECT" not in refused.value.message


def test_so_is_one_that_mlflow_tells_of() -> None:
    with pytest.raises(Unavailable) as refused, mlflow_errors("reading"):
        raise MlflowException("(sqlite3.OperationalError) locked\n[SQL: INSERT INTO params VALUES ('secret')]")
    assert refused.value.message == "reading: (sqlite3.OperationalError) locked"
