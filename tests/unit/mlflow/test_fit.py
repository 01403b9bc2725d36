"""Every documented approximation, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest

from shardmig import steps as exact_steps
from shardmig.adapters.mlflow.fit import LARGEST, MAX_PARAM, MlflowRules
from shardmig.adapters.mlflow.naming import Naming
from shardmig.errors import StepConflict
from shardmig.records import NO_TIME, Field, Fields, FloatPoints, LoadOptions, Steps

NAMING = Naming()


def series(rows: Sequence[tuple[str, int, float]], path: str = "loss") -> FloatPoints:
    """One series from (step, time, value) rows."""
    steps = exact_steps.from_decimals([Decimal(step) for step, _, _ in rows])
    times = np.array([time for _, time, _ in rows], dtype=np.int64)
    return FloatPoints([path], np.array([len(rows)]), steps, times, np.array([value for _, _, value in rows]))


def reasons(points: FloatPoints, load: LoadOptions | None = None) -> dict[str, int]:
    findings = MlflowRules(load or LoadOptions(step_multiplier=1), NAMING).fit(points).findings
    return {finding.code: finding.count for finding in findings if finding.field == points.paths[0]}


def test_ordinary_points_are_exact() -> None:
    points = series([("0", 5, 1.5), ("1", 6, float("nan")), ("-3", 7, 5e-324), (str(2**53 + 1), 0, -LARGEST)])
    fitted = MlflowRules(LoadOptions(step_multiplier=1), NAMING).fit(points)
    assert fitted.exact is None
    assert fitted.findings == []
    assert isinstance(fitted.native, FloatPoints)
    np.testing.assert_array_equal(fitted.native.values, points.values)
    np.testing.assert_array_equal(fitted.native.steps.units, points.steps.units)


def test_infinities_become_the_largest_doubles() -> None:
    fitted = MlflowRules(LoadOptions(), NAMING).fit_points(series([("0", 1, np.inf), ("1", 1, -np.inf), ("2", 1, 0.5)]))
    assert fitted.metrics.values.tolist() == [LARGEST, -LARGEST, 0.5]
    assert fitted.exact is not None
    assert fitted.exact.points.values.tolist() == [np.inf, -np.inf]
    assert [(one.code, one.count) for one in fitted.findings] == [("infinity-clamped", 2)]


def test_negative_zero_becomes_zero() -> None:
    fitted = MlflowRules(LoadOptions(), NAMING).fit_points(series([("0", 1, -0.0), ("1", 1, 0.0)]))
    assert not np.signbit(fitted.metrics.values).any()
    assert reasons(series([("0", 1, -0.0), ("1", 1, 0.0)])) == {"negative-zero": 1}


def test_points_without_time_or_before_1970_get_time_0() -> None:
    points = series([("0", NO_TIME, 1.0), ("1", -5, 1.0), ("2", 5, 1.0)])
    assert MlflowRules(LoadOptions(), NAMING).fit_points(points).metrics.times_ms.tolist() == [0, 0, 5]
    assert reasons(points) == {"time-missing": 1, "time-negative": 1}


def test_points_equal_in_all_are_one_and_all_of_them_are_kept_exactly() -> None:
    points = series([("0", 1, 2.0), ("0", 1, 3.0), ("0", 1, 2.0), ("0", 1, float("nan")), ("0", 1, float("nan"))])
    fitted = MlflowRules(LoadOptions(), NAMING).fit_points(points)
    assert sorted(fitted.metrics.values.tolist()[:2]) == [2.0, 3.0]
    assert len(fitted.metrics) == 3
    assert fitted.exact is not None
    assert len(fitted.exact.points.values) == 4
    assert reasons(points) == {"duplicate-points-collapse": 2}


def test_a_point_that_becomes_equal_to_another_collapses_too() -> None:
    points = series([("0", NO_TIME, 1.0), ("0", 0, 1.0), ("1", 3, np.inf), ("1", 3, LARGEST)])
    fitted = MlflowRules(LoadOptions(), NAMING).fit_points(points)
    assert len(fitted.metrics) == 2
    assert fitted.exact is not None
    assert len(fitted.exact.points.values) == 4


def test_the_same_point_in_two_series_stays_two() -> None:
    points = FloatPoints(["a", "b"], np.array([1, 1]), Steps(np.zeros(2, np.int64)), np.ones(2, np.int64), np.ones(2))
    assert len(MlflowRules(LoadOptions(), NAMING).fit_points(points).metrics) == 2


def test_0_29_times_100_is_29() -> None:
    points = series([(f"{number / 100:.2f}", 1, 1.0) for number in range(1000)])
    numbers = MlflowRules(LoadOptions(step_multiplier=100), NAMING).fit_points(points).metrics.steps
    assert numbers.tolist() == list(range(1000))


def test_a_step_that_would_be_rounded_names_its_field_and_the_multiplier_that_keeps_it() -> None:
    points = series([("0", 1, 1.0), ("0.25", 1, 1.0)], "train/loss")
    with pytest.raises(StepConflict, match=r"train/loss: step 0\.25 x 1") as conflict:
        MlflowRules(LoadOptions(step_multiplier=1), NAMING).fit(points)
    assert conflict.value.field == "train/loss"
    assert "--step-multiplier 4" in conflict.value.hint


def test_steps_are_merged_when_told_to_and_it_is_said() -> None:
    points = series([("0", 1, 1.0), ("0.25", 1, 2.0), ("0.75", 1, 3.0), ("1", 1, 4.0)])
    load = LoadOptions(step_multiplier=1, allow_step_merge=True)
    assert MlflowRules(load, NAMING).fit_points(points).metrics.steps.tolist() == [0, 0, 1, 1]
    assert reasons(points, load) == {"step-rounded": 2, "step-merged": 2}


def test_a_step_beyond_64_bits_names_its_field() -> None:
    with pytest.raises(StepConflict, match="loss") as conflict:
        MlflowRules(LoadOptions(step_multiplier=10), NAMING).fit(series([(str(2**62), 1, 1.0)]))
    assert conflict.value.field == "loss"


def test_before_a_multiplier_is_chosen_every_step_is_exact() -> None:
    assert reasons(series([("0", 1, 1.0), ("0.125", 1, 1.0)]), LoadOptions(step_multiplier=0)) == {}


def test_a_long_text_is_cut_and_its_whole_kept() -> None:
    field = Field("text", "string", "x" * 7000)
    fitted = MlflowRules(LoadOptions(), NAMING).fit(Fields([field, Field("short", "int", 1)]))
    assert fitted.native == Fields([Field("text", "string", "x" * MAX_PARAM), Field("short", "int", 1)])
    assert fitted.exact == Fields([field])
    assert [(one.kind, one.code, one.field) for one in fitted.findings] == [
        ("approximation", "param-truncated", "text")
    ]


def test_a_long_set_becomes_the_text_that_is_left_of_it() -> None:
    fitted = MlflowRules(LoadOptions(), NAMING).fit(Fields([Field("set", "string_set", ["x" * 7000])]))
    assert isinstance(fitted.native, Fields)
    assert fitted.native.fields[0].type == "string"


def test_nul_becomes_a_replacement_character() -> None:
    fitted = MlflowRules(LoadOptions(), NAMING).fit(Fields([Field("text", "string", "a\0b")]))
    assert fitted.native == Fields([Field("text", "string", "a\ufffdb")])
    assert [one.code for one in fitted.findings] == ["character-replaced"]


def test_a_changed_name_is_a_note_and_nothing_else_changes() -> None:
    fitted = MlflowRules(LoadOptions(step_multiplier=1), NAMING).fit(series([("0", 1, 1.0)], "a#b"))
    assert [(one.kind, one.code) for one in fitted.findings] == [("note", "name-changed")]
    assert isinstance(fitted.native, FloatPoints)
    assert fitted.native.paths == ["a#b"]
