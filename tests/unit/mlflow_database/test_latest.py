"""The latest point of a series is the one that MLflow's own comparison would keep."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.mlflow.latest import latest_rows
from shardmig.adapters.sidecar.fitting import Metrics
from tests.contract.mlflow.runs import metrics_of

Point = tuple[int, int, float]
POINTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([-1.0, 0.0, 1.0, math.nan])),
    max_size=8,
    unique_by=repr,
)


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_the_latest_row_is_the_one_that_logging_point_by_point_leaves(series: list[list[Point]]) -> None:
    metrics = metrics_of({f"key{number}": points for number, points in enumerate(series)})
    expected = []
    for _, part in metrics.spans():
        latest: int | None = None
        for row in range(part.start, part.stop):
            if latest is None or _compared(_row(metrics, row)) > _compared(_row(metrics, latest)):
                latest = row
        expected += [] if latest is None else [latest]
    assert latest_rows(metrics).tolist() == expected


def _row(metrics: Metrics, row: int) -> Point:
    return int(metrics.steps[row]), int(metrics.times_ms[row]), float(metrics.values[row])


def _compared(point: Point) -> Point:
    step, time_ms, value = point
    return step, time_ms, 0.0 if math.isnan(value) else value
