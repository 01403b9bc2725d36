"""Histories as MLflow answers them, in the order of the archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from shardmig.adapters.mlflow.store import Metrics


def metrics_of(
    key: str, steps: Sequence[int], times_ms: Sequence[int], values: Sequence[float], rows: int
) -> Iterator[Metrics]:
    """One series ordered by (step, time, value), about `rows` points at a time, cut at the ends of steps only."""
    step, time_ms = np.array(steps, np.int64), np.array(times_ms, np.int64)
    value = np.array(values, np.float64)
    order = np.lexsort((value, time_ms, step))
    step, time_ms, value = step[order], time_ms[order], value[order]
    starts = np.flatnonzero(np.diff(step, prepend=step[:1] - 1))
    start = 0
    while start < len(order):
        after = starts[np.searchsorted(starts, min(start + rows, len(order)), side="left") :]
        stop = int(after[0]) if len(after) else len(order)
        part = slice(start, stop)
        yield Metrics([key], np.array([stop - start], np.int64), step[part], time_ms[part], value[part])
        start = stop
