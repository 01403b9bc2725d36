"""Traces that are begun together, without their spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.errors import AdapterError, settled, settled_each


def start_together(stores: Stores, infos: Sequence[Any]) -> dict[str, AdapterError]:
    """Make traces without their spans: in one transaction what may be written as rows, by MLflow one after the other what
    may not, and what the transaction was refused for. Which traces were not made, and why."""
    made = _inserted(stores, infos)
    alone = [info for info in infos if info.trace_id not in made]
    results = zip(alone, settled_each(lambda info: _start(stores, info), alone), strict=True)
    return {info.trace_id: error for info, error in results if error is not None}


def _start(stores: Stores, info: Any) -> None:
    with mlflow_errors(f"trace {info.trace_id}"):
        stores.tracking.start_trace(info)


def _inserted(stores: Stores, infos: Sequence[Any]) -> set[str]:
    if len(infos) < 2 or (database := stores.bulk) is None:
        return set()
    from shardmig.adapters.mlflow.database.traces import insert_traces, may_insert

    rows = [info for info in infos if may_insert(info)]

    def insert() -> None:
        with mlflow_errors(f"{len(rows)} traces"), database.writing() as connection:
            insert_traces(connection, rows)

    is_refused = not rows or settled(insert) is not None
    return set() if is_refused else {info.trace_id for info in rows}
