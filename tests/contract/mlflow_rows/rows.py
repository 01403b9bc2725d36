"""Makes rows for every table that MLflow has, and tells what a database holds: without the code under test."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import mlflow.store.model_registry.dbmodels.models
import mlflow.store.tracking.dbmodels.models
import mlflow.store.workspace.dbmodels.models  # noqa: F401 (all three fill the metadata)
import sqlalchemy
from mlflow.store.db.base_sql_model import Base
from sqlalchemy import Column, Table

ROWS = 3
EXPERIMENT = 7
_CHOICES = {
    ("runs", "status"): "FINISHED",
    ("runs", "lifecycle_stage"): "active",
    ("runs", "source_type"): "LOCAL",
    ("experiments", "lifecycle_stage"): "active",
    ("logged_models", "lifecycle_stage"): "active",
}


def fill_every_table(uri: str) -> None:
    """Three rows in each table; what refers to another row refers to one that is there."""
    engine = sqlalchemy.create_engine(uri)
    made: dict[str, list[dict[str, Any]]] = {}
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            made[table.name] = [_row(table, number, made) for number in range(ROWS)]
            connection.execute(table.insert(), made[table.name])
    engine.dispose()


def held(uri: str) -> dict[str, list[str]]:
    """What each table holds, sorted."""
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        found = {
            table.name: sorted(_told(row._mapping) for row in connection.execute(table.select()))
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return found


def _told(row: Any) -> str:
    return json.dumps(
        {key: str(value) if isinstance(value, bytes) else value for key, value in row.items()}, default=str
    )


def _row(table: Table, number: int, made: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    values = {column.name: _value(table, column, number) for column in table.columns if column.computed is None}
    for constraint in table.foreign_key_constraints:
        other = made.get(constraint.referred_table.name)
        if other:
            for element in constraint.elements:
                values[element.parent.name] = other[number][element.column.name]
    return values


def _value(table: Table, column: Column[Any], number: int) -> Any:
    if (table.name, column.name) in _CHOICES:
        return _CHOICES[table.name, column.name]
    if column.name == "experiment_id":
        return EXPERIMENT + number
    if column.name == "workspace":
        return "default"
    kind = column.type
    if isinstance(kind, sqlalchemy.JSON):
        return {"ü": [number, None, 0.1]}
    if isinstance(kind, sqlalchemy.Boolean):
        return number == 1
    if isinstance(kind, sqlalchemy.Date):
        return date(2026, 1, 1 + number)
    if isinstance(kind, sqlalchemy.LargeBinary):
        return bytes([0, number, 255])
    if isinstance(kind, sqlalchemy.Integer):
        return number + 1
    if isinstance(kind, sqlalchemy.Float | sqlalchemy.Numeric):
        return 0.1 * number
    text = f"{table.name[:8]} {number} 'ü\t\\N" if number else f"{table.name[:8]}0"
    return text[: kind.length] if isinstance(kind, sqlalchemy.String) and kind.length else text
