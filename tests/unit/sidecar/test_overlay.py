"""Exact rows replace their approximations, and only those."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest

from shardmig import steps as exact_steps
from shardmig.adapters.mlflow.fit import MlflowRules
from shardmig.adapters.mlflow.naming import Naming
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.overlay import Overlay
from shardmig.archive.digest import RunDigest
from shardmig.records import NO_TIME, FloatPoints, LoadOptions, Points

LOAD = LoadOptions(step_multiplier=2, allow_step_merge=True)
INF = float("inf")
ROWS = [
    ("0", NO_TIME, 1.0),
    ("0", 5, 2.0),
    ("0.5", 5, INF),
    ("0.5", 5, -0.0),
    ("1", -7, 3.0),
    ("1.3", 7, 3.0),
    ("1.4", 7, 3.0),
    ("2", 7, float("nan")),
    ("2", 7, float("nan")),
    ("3", 9, 4.0),
]


def points(rows: Sequence[tuple[str, int, float]]) -> FloatPoints:
    steps = exact_steps.from_decimals([Decimal(step) for step, _, _ in rows])
    times = np.array([time for _, time, _ in rows], dtype=np.int64)
    return FloatPoints(["m"], np.array([len(rows)]), steps, times, np.array([value for _, _, value in rows]))


def restored(original: FloatPoints, native: Metrics, cut: int) -> list[Points]:
    """Read back `native` in pieces of `cut` steps, over the sidecar of `original`."""
    exact = MlflowRules(LOAD, Naming()).fit_points(original).exact
    assert exact is not None
    overlay = Overlay("m", iter([exact]), 2)
    found: list[Points] = []
    for chosen in np.array_split(np.unique(native.steps), cut):
        rows = np.isin(native.steps, chosen)
        if rows.any():
            part = NativePoints(native.steps[rows], native.times_ms[rows], native.values[rows])
            found += overlay.restored(part)
    return found


def digest(chunks: Sequence[Points]) -> str:
    whole = RunDigest()
    for chunk in chunks:
        whole.add(chunk)
    return whole.digest()


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_every_row_comes_back_exactly(cut: int) -> None:
    original = points(ROWS)
    native = MlflowRules(LOAD, Naming()).fit_points(original).metrics
    assert digest(restored(original, native, cut)) == digest([original])


@pytest.mark.parametrize("row", range(8))
def test_a_native_value_that_was_changed_shows(row: int) -> None:
    original = points(ROWS)
    native = MlflowRules(LOAD, Naming()).fit_points(original).metrics
    values = native.values.copy()
    values[row] = np.nextafter(0 if np.isnan(values[row]) else values[row], -1)
    changed = Metrics(native.keys, native.lengths, native.steps, native.times_ms, values)
    found = restored(original, changed, 2)
    assert digest(found) != digest([original])
    assert values[row] in np.concatenate([chunk.values for chunk in found if isinstance(chunk, FloatPoints)])


def test_a_native_row_that_is_gone_stays_gone() -> None:
    original = points(ROWS)
    native = MlflowRules(LOAD, Naming()).fit_points(original).metrics
    kept = np.arange(len(native)) != 0
    less = Metrics(["m"], np.array([kept.sum()]), native.steps[kept], native.times_ms[kept], native.values[kept])
    assert digest(restored(original, less, 1)) == digest([points(ROWS[1:])])
