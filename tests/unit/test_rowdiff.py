from __future__ import annotations

import numpy as np
import pytest

from shardmig.records import (
    NO_TIME,
    Chunk,
    Finding,
    Float64s,
    FloatPoints,
    HistogramPoints,
    Histograms,
    Int64s,
    Steps,
    StringPoints,
    Texts,
)
from shardmig.worker import rowdiff
from shardmig.worker.rowdiff import row_differences

KEY = ("loss", "float_series")
TIME_MS = 1_700_000_000_000


def points(steps: Int64s, values: Float64s, times_ms: Int64s | None = None, scale: int = 0) -> FloatPoints:
    times_ms = TIME_MS + np.arange(len(steps), dtype=np.int64) if times_ms is None else times_ms
    return FloatPoints(["loss"], np.array([len(steps)]), Steps(steps, scale), times_ms, values)


def curve(count: int = 1000) -> FloatPoints:
    return points(np.arange(count), np.sin(np.arange(count, dtype=np.float64)))


def without(chunk: FloatPoints, row: int) -> FloatPoints:
    keep = np.arange(len(chunk.values)) != row
    return points(chunk.steps.units[keep], chunk.values[keep], chunk.times_ms[keep])


def compare(expected: Chunk, found: Chunk, key: tuple[str, str] = KEY) -> list[Finding]:
    rows = 2 * max(len(chunk.values) for chunk in (expected, found) if isinstance(chunk, FloatPoints | StringPoints))
    return row_differences(lambda: [expected], lambda: [found], {key: rows})[key]


@pytest.fixture(params=["all rows held", "by buckets"], autouse=True)
def _held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of finding the rows: everything at once, and in buckets."""
    if request.param == "by buckets":
        monkeypatch.setattr(rowdiff, "ROWS_HELD", 10)


def test_equal_readings_have_no_differences_whatever_their_order_and_scale() -> None:
    one = curve()
    back = points(one.steps.units[::-1] * 100, one.values[::-1], one.times_ms[::-1], scale=2)
    assert compare(one, back) == []


def test_a_dropped_point_is_missing() -> None:
    (finding,) = compare(curve(), without(curve(), 500))
    assert (finding.kind, finding.code, finding.field, finding.count) == ("loss", "points-missing", "loss", 1)
    assert finding.detail == f"step 500, 2023-11-14T22:13:20.500+00:00: expected {np.sin(500.0)!r}".replace(
        "np.float64(", ""
    ).replace(")", "")


def test_a_doubled_point_is_extra_even_if_it_equals_its_twin() -> None:
    one = curve()
    twice = points(
        np.append(one.steps.units, 7), np.append(one.values, one.values[7]), np.append(one.times_ms, one.times_ms[7])
    )
    (finding,) = compare(one, twice)
    assert (finding.code, finding.count) == ("points-extra", 1)


def test_one_ulp_is_a_difference() -> None:
    one = curve()
    values = one.values.copy()
    values[3] = np.nextafter(values[3], 2)
    (finding,) = compare(one, points(one.steps.units, values, one.times_ms))
    assert (finding.code, finding.count) == ("values-differ", 1)
    assert finding.detail.startswith("step 3, ")


def test_a_negative_zero_differs_from_zero_and_all_nans_are_one() -> None:
    payload = np.array([0x7FF8000000000001, 0xFFF8000000000000], dtype=np.uint64).view(np.float64)
    steps = np.arange(3)
    one = points(steps, np.array([np.nan, np.nan, 0.0]))
    other = points(steps, np.array([*payload, -0.0]))
    (finding,) = compare(one, other)
    assert (finding.code, finding.count) == ("values-differ", 1)
    assert "expected 0.0, found -0.0" in finding.detail


def test_a_shifted_step_and_a_changed_time_are_told_apart() -> None:
    one = curve()
    steps, times_ms = one.steps.units.copy(), one.times_ms.copy()
    steps[10] += 5000
    times_ms[20] = NO_TIME
    by_code = {finding.code: finding for finding in compare(one, points(steps, one.values, times_ms))}
    assert by_code.keys() == {"steps-differ", "times-differ"}
    assert by_code["steps-differ"].detail.endswith("found at step 5010")
    assert by_code["times-differ"].detail.endswith("found at no time")


def test_when_everything_differs_a_part_is_counted_and_it_is_said() -> None:
    one = curve(200_000)
    (finding,) = compare(one, points(one.steps.units, one.values + 1.0, one.times_ms))
    assert finding.code == "values-differ"
    assert 0 < finding.count < 200_000
    assert "at least: counted in" in finding.detail


def test_texts_that_differ_behind_what_is_shown_still_differ() -> None:
    def text(last: str) -> StringPoints:
        texts = Texts.from_list(["a" * 20_000 + last, "same"])
        return StringPoints(["log"], np.array([2]), Steps(np.arange(2)), np.array([TIME_MS, TIME_MS]), texts)

    (finding,) = compare(text("b"), text("c"), ("log", "string_series"))
    assert (finding.code, finding.count, finding.field) == ("values-differ", 1, "log")
    assert "20001 characters" in finding.detail


def test_histograms_differ_by_kind_edges_or_values() -> None:
    def histogram(kind: str, edge: float) -> HistogramPoints:
        values = Histograms([kind], np.array([2]), np.array([0.0, edge]), np.array([1]), np.array([3.0]))
        return HistogramPoints(["h"], np.array([1]), Steps(np.arange(1)), np.array([TIME_MS]), values)

    key = ("h", "histogram_series")
    for other in (histogram("DENSITY", 1.0), histogram("COUNTING", 1.5)):
        found = row_differences(lambda: [histogram("COUNTING", 1.0)], lambda other=other: [other], {key: 2})[key]  # type: ignore[misc]
        assert [finding.code for finding in found] == ["values-differ"]
