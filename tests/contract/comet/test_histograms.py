"""Histograms are drawn in the bins of the vendor's client."""

from __future__ import annotations

import json

import numpy as np
import pytest

from shardmig.adapters.comet.histograms import drawn, in_bins
from shardmig.records import HistogramPoints, Histograms, Steps

pytestmark = pytest.mark.xdist_group("comet")


def test_counts_fall_into_the_bins_of_the_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_ERROR_TRACKING_ENABLE", "false")
    monkeypatch.setenv("COMET_INTERNAL_REPORTING", "false")
    from comet_ml.data_structure import Histogram

    edges = np.array([-1e6, -2.5, -1.0, -0.0, 0.0, 1e-9, 0.5, 1.5, 100.0, 1e19])
    counts = np.arange(1, len(edges), dtype=np.float64)
    vendors = Histogram()
    vendors.add((edges[:-1] / 2 + edges[1:] / 2).copy(), counts=counts.astype(int).tolist())
    found = json.loads(in_bins("COUNTING", edges, counts))
    assert found["index_values"] == vendors.counts_compressed()
    assert {name: found[name] for name in ("version", "offset", "start", "stop", "step")} == {
        "version": 2,
        "offset": 0,
        "start": vendors.start,
        "stop": vendors.stop,
        "step": vendors.step,
    }


def test_densities_are_drawn_as_a_million_values() -> None:
    found = json.loads(in_bins("DENSITY", np.array([0.0, 1.0, 3.0]), np.array([0.5, 0.25])))
    assert [count for _, count in found["index_values"]] == [500_000, 500_000]


def test_what_has_no_place_in_the_bins_is_not_drawn() -> None:
    edges = np.array([0.0, 1.0, np.inf, 2.0, 1e300])
    assert json.loads(in_bins("COUNTING", edges, np.array([np.nan, 1.0, 1.0, 1.0])))["index_values"] == []


def test_a_long_series_is_drawn_in_ever_larger_strides() -> None:
    count = 1200
    ones = np.ones(count, dtype=np.int64)
    histograms = Histograms(["COUNTING"] * count, 2 * ones, np.tile([0.0, 1.0], count), ones, np.ones(count))
    points = HistogramPoints(["h"], np.array([count]), Steps(np.arange(count)), np.zeros(count, np.int64), histograms)
    rows = [one.row for one in drawn(points, 0)]
    assert rows[:100] == list(range(100))
    assert rows[100:] == [*range(100, 1000, 10), 1000, 1100]
