"""Histograms as Comet draws them: counts in its own bins, each a tenth wider than the one before (1e-12 to 1e20, both signs).

What is drawn is an approximation; the exact histograms are files beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np

from shardmig.records import Float64s, HistogramPoints

_START: Final = 1e-12
_STOP: Final = 1e20
_STEP: Final = 1.1
_ZERO: Final = 775
"""The bin of zero."""
_MOST_ROWS: Final = 10**12
_DENSITY_TOTAL: Final = 1_000_000
"""Comet's counts are whole: a density is drawn as so many values."""


class Drawn(NamedTuple):
    """One histogram of a series: its row there, and Comet's JSON."""

    row: int
    content: bytes


def drawn(points: HistogramPoints, first_row: int) -> Iterator[Drawn]:
    """Some histograms of one series, of which `first_row` were seen before: the first hundred, of the next nine hundred
    every tenth, and so on."""
    histograms = points.values
    edge_ends, value_ends = np.cumsum(histograms.edge_counts), np.cumsum(histograms.value_counts)
    for index, kind in enumerate(histograms.kinds):
        row = first_row + index
        if row % _stride(row):
            continue
        edges = histograms.edges[edge_ends[index] - histograms.edge_counts[index] : edge_ends[index]]
        values = histograms.values[value_ends[index] - histograms.value_counts[index] : value_ends[index]]
        yield Drawn(row, in_bins(kind, edges, values))


def rows_drawn() -> Iterator[int]:
    """The rows of which `drawn` makes pictures, of however long a series."""
    row = 0
    while row < _MOST_ROWS:
        yield row
        row += _stride(row)


def _stride(row: int) -> int:
    return int(10 ** max(0, len(str(row)) - 2))


def in_bins(kind: str, edges: Float64s, values: Float64s) -> bytes:
    """Comet's JSON of one histogram: all that fell between two edges is put where their middle is."""
    count = min(len(edges) - 1, len(values))
    left, right = edges[:count], edges[1 : count + 1]
    weights = values[:count] * (right - left) if kind == "DENSITY" else values[:count]
    usable = np.isfinite(weights) & np.isfinite(left) & np.isfinite(right) & (weights > 0)
    weights, middles = weights[usable], left[usable] / 2 + right[usable] / 2
    if kind == "DENSITY" and len(weights):
        weights = weights * (_DENSITY_TOTAL / weights.sum())
    inside = np.abs(middles) < _STOP
    bins = np.array([_bin_of(middle) for middle in middles[inside].tolist()], dtype=np.int64)
    places, owner = np.unique(bins, return_inverse=True)
    counts = np.rint(np.bincount(owner, weights[inside], minlength=len(places))).astype(np.int64)
    pairs = [[place, number] for place, number in zip(places.tolist(), counts.tolist(), strict=True) if number > 0]
    shape = {"version": 2, "index_values": pairs, "values": None, "offset": 0}
    return msgspec.json.encode(shape | {"start": _START, "stop": _STOP, "step": _STEP})


def _bin_of(value: float) -> int:
    """The vendor's rule."""
    if abs(value) <= 1e-20:
        return _ZERO
    distance = int(np.ceil(np.log(abs(value) / _START) / np.log(_STEP)))
    return _ZERO + distance if value > 0 else _ZERO - 1 - distance
