"""Points out of the table of metrics: pages of rows, each by a statement of its own, into columns.

Pages and not one long cursor: on SQLite an open cursor keeps every writer out, and memory is bounded without
depending on what a driver buffers. The database orders by what its index holds, key and step; what shares a step is
ordered here (measured on SQLite: 1.4 to 1.7 times as fast as when the database does it all).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, select

from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.database.schema import METRICS
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.errors import Unavailable
from shardmig.records import TargetRunId

_KEYS_A_STATEMENT: Final = 500
Rows = NDArray[np.void]
_ROW: Final = np.dtype([("step", np.int64), ("timestamp", np.int64), ("is_nan", np.bool_), ("value", np.float64)])
_COLUMNS: Final = [METRICS.c[name] for name in _ROW.names or ()]


def read_history(database: Database, run_id: TargetRunId, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
    """All points of these keys, in the order of `keys`, each series by step, time and value with NaN last.

    About `rows` points at a time; a longer series comes in parts of whole steps.
    Raises Unavailable when somebody writes to the run meanwhile.
    """
    for start in range(0, len(keys), _KEYS_A_STATEMENT):
        some = list(keys[start : start + _KEYS_A_STATEMENT])
        counts = _count(database, run_id, some)
        page: dict[str, int] = {}
        for key in some:
            count = counts.get(key, 0)
            if page and sum(page.values()) + count > rows:
                yield _read_whole(database, run_id, page, list(counts))
                page = {}
            if count > rows:
                yield from _read_long(database, run_id, key, rows)
            elif count:
                page[key] = count
        if page:
            yield _read_whole(database, run_id, page, list(counts))


def _count(database: Database, run_id: TargetRunId, keys: list[str]) -> dict[str, int]:
    """Points of each key that has any, in the database's own order of keys."""
    of_run = (METRICS.c.run_uuid == run_id) & METRICS.c.key.in_(keys)
    statement = select(METRICS.c.key, func.count()).where(of_run).group_by(METRICS.c.key).order_by(METRICS.c.key)
    with database.reading() as connection:
        return dict(connection.execute(statement).tuples().all())


def _read_whole(database: Database, run_id: TargetRunId, page: dict[str, int], collation: list[str]) -> Metrics:
    """Several series whole. Their lengths are known, so that the keys need not come with every row."""
    of_page = (METRICS.c.run_uuid == run_id) & METRICS.c.key.in_(list(page))
    rows = _fetch(database, select(*_COLUMNS).where(of_page).order_by(METRICS.c.key, METRICS.c.step))
    if len(rows) != sum(page.values()):
        raise Unavailable("the run changed while it was read", run=run_id)
    found = [key for key in collation if key in page]
    if found != list(page):
        ends = dict(zip(found, accumulate(page[key] for key in found), strict=True))
        rows = np.concatenate([rows[ends[key] - length : ends[key]] for key, length in page.items()])
    return _metrics(list(page), np.array(list(page.values()), dtype=np.int64), rows)


def _read_long(database: Database, run_id: TargetRunId, key: str, limit: int) -> Iterator[Metrics]:
    """One series in parts of whole steps, each from behind the last row of the one before."""
    of_series = (METRICS.c.run_uuid == run_id) & (METRICS.c.key == key)
    ordered = select(*_COLUMNS).where(of_series).order_by(METRICS.c.step)
    rows = _fetch_steps(database, ordered, limit)
    while len(rows):
        yield _metrics([key], np.array([len(rows)], dtype=np.int64), rows)
        rows = _fetch_steps(database, ordered.where(METRICS.c.step > int(rows["step"][-1])), limit)


def _fetch_steps(database: Database, ordered: Select[Any], limit: int) -> Rows:
    """About `limit` rows, without a step of which there may be more; more rows where one step alone has more."""
    while True:
        rows = _fetch(database, ordered.limit(limit))
        if len(rows) < limit:
            return rows
        if whole := int(np.searchsorted(rows["step"], rows["step"][-1])):
            return rows[:whole]
        limit *= 2


def _fetch(database: Database, statement: Select[Any]) -> Rows:
    with database.reading() as connection:
        tuples: Any = connection.execute(statement).cursor  # SQLAlchemy's own rows take three times as long
        return np.fromiter(tuples, dtype=_ROW)


def _metrics(keys: list[str], lengths: NDArray[np.int64], rows: Rows) -> Metrics:
    rows = _ordered(lengths, rows)
    values = np.where(rows["is_nan"], np.nan, rows["value"])
    return Metrics(keys, lengths, np.ascontiguousarray(rows["step"]), np.ascontiguousarray(rows["timestamp"]), values)


def _ordered(lengths: NDArray[np.int64], rows: Rows) -> Rows:
    """Series whose rows come by step: what shares a step by time, NaN last, and value."""
    step = rows["step"]
    if not (step[1:] == step[:-1]).any():
        return rows
    series = np.repeat(np.arange(len(lengths)), lengths)
    return rows[np.lexsort((rows["value"], rows["is_nan"], rows["timestamp"], step, series))]
