"""Which point of a series MLflow calls its latest, and how that table is kept."""

from __future__ import annotations

import numpy as np
from sqlalchemy import Connection, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from shardmig.adapters.mlflow.database.schema import LATEST_METRICS
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.records import Int64s, TargetRunId


def latest_rows(metrics: Metrics) -> Int64s:
    """The row of the latest point of each series that has points, as MLflow compares them.

    Greatest step, then time, then value, where NaN counts as 0 and the point logged first wins a tie. Rows come ordered
    with NaN last, so only a NaN at the very end must be compared with the row before it, if step and time are the same.
    """
    ends = np.cumsum(metrics.lengths)
    last, first = ends[metrics.lengths > 0] - 1, (ends - metrics.lengths)[metrics.lengths > 0]
    before = np.maximum(last - 1, first)
    is_beaten = (
        np.isnan(metrics.values[last])
        & (metrics.values[before] >= 0)
        & (metrics.steps[before] == metrics.steps[last])
        & (metrics.times_ms[before] == metrics.times_ms[last])
    )
    return np.where(is_beaten, before, last)


def keep_latest(connection: Connection, run_id: TargetRunId, metrics: Metrics) -> None:
    """Bring the table of latest points up to these points; a later point that is there already stays."""
    rows = latest_rows(metrics)
    if not len(rows):
        return
    values = metrics.values[rows]
    is_nan = np.isnan(values)
    keys = [key for key, length in zip(metrics.keys, metrics.lengths.tolist(), strict=True) if length]
    columns = (metrics.steps[rows], metrics.times_ms[rows], np.where(is_nan, 0.0, values), is_nan)
    connection.execute(
        _upsert(connection),
        [
            {"run_uuid": run_id, "key": key, "step": step, "timestamp": time_ms, "value": value, "is_nan": nan}
            for key, step, time_ms, value, nan in zip(keys, *(column.tolist() for column in columns), strict=True)
        ],
    )


def _upsert(connection: Connection) -> sqlite.Insert | postgresql.Insert:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(LATEST_METRICS)
    new, old = statement.excluded, LATEST_METRICS.c
    return statement.on_conflict_do_update(
        index_elements=[old.key, old.run_uuid],
        set_={name: new[name] for name in ("value", "step", "timestamp", "is_nan")},
        where=tuple_(new.step, new.timestamp, new.value) > tuple_(old.step, old.timestamp, old.value),
    )
