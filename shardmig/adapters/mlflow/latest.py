"""Which point of a series MLflow calls its latest."""

from __future__ import annotations

import numpy as np

from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.records import Int64s


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
