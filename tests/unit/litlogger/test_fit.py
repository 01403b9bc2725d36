"""What Lightning holds of a chunk, and what the sidecar is for."""

from __future__ import annotations

import numpy as np

from shardmig.adapters.litlogger.fit import EARLIEST_MS, LATEST_MS, LightningRules
from shardmig.adapters.litlogger.naming import LightningNaming
from shardmig.records import NO_TIME, Field, Fields, FloatPoints, LoadOptions, Steps

RULES = LightningRules(LoadOptions(step_multiplier=1), LightningNaming())


def points(values: list[float], times_ms: list[int] | None = None) -> FloatPoints:
    count = len(values)
    times = np.arange(count, dtype=np.int64) if times_ms is None else np.array(times_ms, np.int64)
    return FloatPoints(["key"], np.array([count]), Steps(np.arange(count)), times, np.array(values, np.float64))


def test_points_that_are_not_finite_are_left_out_and_exact() -> None:
    fitted = RULES.fit(points([1.0, np.nan, np.inf, -0.0, -np.inf]))
    assert isinstance(fitted.native, FloatPoints)
    assert isinstance(fitted.exact, FloatPoints)
    assert list(map(repr, fitted.native.values.tolist())) == ["1.0", "-0.0"]
    assert fitted.native.steps.units.tolist() == [0, 3]
    assert list(map(repr, fitted.exact.values.tolist())) == ["nan", "inf", "-inf"]
    assert [(finding.code, finding.count) for finding in fitted.findings] == [("value-not-finite", 3)]


def test_a_series_of_nothing_else_is_not_there_at_all() -> None:
    fitted = RULES.fit(points([np.nan, np.nan]))
    assert isinstance(fitted.native, FloatPoints)
    assert fitted.native.paths == []
    assert isinstance(fitted.exact, FloatPoints)
    assert fitted.exact.paths == ["key"]


def test_times_that_cannot_be_written_become_the_nearest() -> None:
    times_ms = [NO_TIME, -5, 0, EARLIEST_MS - 1, LATEST_MS + 1]
    fitted = RULES.fit(points([1.0] * 5, times_ms))
    assert isinstance(fitted.native, FloatPoints)
    assert fitted.native.times_ms.tolist() == [0, -5, 0, EARLIEST_MS, LATEST_MS]
    codes = {finding.code: finding.count for finding in fitted.findings}
    assert codes == {"time-missing": 1, "time-out-of-range": 2}


def test_long_texts_are_cut_and_exact() -> None:
    long, odd = Field("long", "string", "x" * 5001), Field("odd", "string", "nul\0")
    fitted = RULES.fit(Fields([Field("int", "int", 2**53 + 1), long, odd]))
    assert isinstance(fitted.native, Fields)
    assert [field.value for field in fitted.native.fields] == [2**53 + 1, "x" * 5000, "nul\ufffd"]
    assert fitted.exact == Fields([long, odd])
    assert [finding.code for finding in fitted.findings] == ["param-truncated", "character-replaced"]
