"""How the table of latest points is kept."""

from __future__ import annotations

import numpy as np
from sqlalchemy import Connection, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from shardmig.adapters.mlflow.database.schema import LATEST_METRICS
from shardmig.adapters.mlflow.latest import latest_rows
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.records import TargetRunId


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
