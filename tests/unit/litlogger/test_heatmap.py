"""A histogram series as a picture: dark where much is, and never more than fits."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shardmig.adapters.litlogger.heatmap import MOST_COLUMNS, ROWS, Heatmap
from shardmig.records import HistogramPoints, Histograms, Steps


def points(edges: list[list[float]], amounts: list[list[float]], kind: str = "COUNTING") -> HistogramPoints:
    count = len(edges)
    counts = [np.array([len(one) for one in column]) for column in (edges, amounts)]
    flat = [np.array([value for one in column for value in one]) for column in (edges, amounts)]
    histograms = Histograms([kind] * count, counts[0], flat[0], counts[1], flat[1])
    return HistogramPoints(["h"], np.array([count]), Steps(np.arange(count)), np.zeros(count, np.int64), histograms)


def drawn(heatmap: Heatmap) -> NDArray[np.uint8]:
    """Darkness of each cell, the first row below."""
    with Image.open(io.BytesIO(heatmap.png())) as image:
        assert image.format == "PNG"
        pixels: NDArray[np.uint8] = 255 - np.asarray(image)[::-1]
    return pixels[::2]


def test_it_is_dark_where_much_is() -> None:
    heatmap = Heatmap()
    heatmap.add(points([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]], [[4.0, 0.0], [1.0, 2.0]]))
    cells = drawn(heatmap)
    first, second = cells[:, 0], cells[:, -1]
    assert len(cells) == ROWS
    assert (first[: ROWS // 2] == 255).all()
    assert (first[ROWS // 2 :] == 0).all()
    assert (second[: ROWS // 2] == 128).all()
    assert (second[ROWS // 2 :] == 255).all()
    assert heatmap.legend() == "steps 0 to 1, values 0 to 2"


def test_a_density_counts_as_much_as_its_bin_is_wide() -> None:
    heatmap = Heatmap()
    heatmap.add(points([[0.0, 1.0, 4.0]], [[3.0, 1.0]], "DENSITY"))
    cells = drawn(heatmap)[:, 0]
    assert cells[0] == 255
    assert cells[-1] == 85


def test_a_long_series_is_thinned_out_evenly_to_its_end() -> None:
    heatmap = Heatmap()
    for _ in range(10):
        heatmap.add(points([[0.0, 1.0]] * 500, [[1.0]] * 500))
    cells = drawn(heatmap)
    assert MOST_COLUMNS // 2 <= cells.shape[1] / 2 <= 2 * MOST_COLUMNS
    assert (cells == 255).all()


def test_what_is_no_plain_histogram_is_counted_and_not_drawn() -> None:
    heatmap = Heatmap()
    odd = [[0.0, np.inf], [1.0, 0.0], [0.0, 1.0], [0.0], []]
    heatmap.add(points(odd, [[1.0], [1.0], [-1.0], [], []]))
    assert (heatmap.left_out, heatmap.legend()) == (5, "")
    heatmap.add(points([[5.0, 5.0]], [[1.0]]))
    assert drawn(heatmap).shape[0] == ROWS
