"""Which points of a run are new, where some of them are in the target."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.mlflow.merging import new_rows
from shardmig.adapters.sidecar.fitting import NativePoints

VALUES = st.sampled_from([0.0, -0.0, 1.5, float("nan")])
POINTS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), VALUES), max_size=12)


def points(rows: list[tuple[int, int, float]]) -> NativePoints:
    steps, times_ms, values = zip(*rows, strict=True) if rows else ((), (), ())
    return NativePoints(np.array(steps, np.int64), np.array(times_ms, np.int64), np.array(values, np.float64))


def told(row: tuple[int, int, float]) -> tuple[int, int, str]:
    step, time_ms, value = row
    return step, time_ms, repr(value + 0.0)


@given(POINTS, POINTS)
def test_a_point_is_new_unless_one_of_its_step_time_and_value_is_there(
    brought: list[tuple[int, int, float]], held: list[tuple[int, int, float]]
) -> None:
    there = set(map(told, held))
    assert new_rows(points(brought), points(held)).tolist() == [told(row) not in there for row in brought]
