"""A histogram series as one picture: steps from left to right, values from bottom to top, the darker the more.

The picture is for people; the exact histograms are in their file. It shows at most 256 histograms, evenly spread, each
as dark as its fullest row allows.
"""

from __future__ import annotations

import zlib
from struct import pack
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardmig.records import Float64s, HistogramPoints

MOST_COLUMNS: Final = 256
ROWS: Final = 128
_WIDTH: Final = 512
"""Pixels, at least; a row is two pixels high."""
_MOST_VALUE: Final = 1e300
"""Differences of edges stay finite below it."""


class _Column(NamedTuple):
    step: str
    edges: Float64s
    amounts: Float64s


class Heatmap:
    """The picture of one series while its points come in. Memory: twice the histograms that it shows."""

    def __init__(self) -> None:
        self._columns: list[_Column] = []
        self._stride = 1
        self._seen = 0
        self.left_out = 0

    def add(self, points: HistogramPoints) -> None:
        """Further histograms of the series; `left_out` counts those that have no such form."""
        histograms = points.values
        edge_ends, value_ends = np.cumsum(histograms.edge_counts), np.cumsum(histograms.value_counts)
        for row, (kind, step) in enumerate(zip(histograms.kinds, points.steps.to_decimals(), strict=True)):
            edges = histograms.edges[edge_ends[row] - histograms.edge_counts[row] : edge_ends[row]]
            amounts = histograms.values[value_ends[row] - histograms.value_counts[row] : value_ends[row]]
            if not _is_plain(edges, amounts):
                self.left_out += 1
                continue
            if self._seen % self._stride == 0:
                amounts = amounts * np.diff(edges) if kind == "DENSITY" else amounts
                self._columns.append(_Column(f"{step:f}", edges, amounts))
            self._seen += 1
            if len(self._columns) == 2 * MOST_COLUMNS:
                self._columns = self._columns[::2]
                self._stride *= 2

    def legend(self) -> str:
        """What the axes are; "" = there is nothing to draw."""
        if not self._columns:
            return ""
        low, high = self._range()
        return f"steps {self._columns[0].step} to {self._columns[-1].step}, values {low:g} to {high:g}"

    def png(self) -> bytes:
        """The picture. There must be something to draw."""
        columns = self._columns[:: -(-len(self._columns) // MOST_COLUMNS)]
        borders = np.linspace(*self._range(), ROWS + 1)
        amounts = np.array([_in_rows(column, borders) for column in columns])
        fullest = amounts.max(axis=1, keepdims=True)
        shades = np.divide(amounts, fullest, out=np.zeros_like(amounts), where=fullest > 0)
        pixels = (255 - np.rint(255 * shades)).astype(np.uint8).T[::-1]
        return _png(pixels.repeat(2, axis=0).repeat(-(-_WIDTH // len(columns)), axis=1))

    def _range(self) -> tuple[float, float]:
        low = min(float(column.edges[0]) for column in self._columns)
        high = max(float(column.edges[-1]) for column in self._columns)
        return (low, high) if low < high else (low - 0.5, high + 0.5)


def _is_plain(edges: Float64s, amounts: Float64s) -> bool:
    return bool(
        len(edges) == len(amounts) + 1 > 1
        and (np.abs(edges) < _MOST_VALUE).all()
        and (np.diff(edges) >= 0).all()
        and np.isfinite(amounts).all()
        and (amounts >= 0).all()
    )


def _in_rows(column: _Column, borders: Float64s) -> Float64s:
    """How much of a histogram lies between each two borders, if a bin's content is spread evenly."""
    below = np.concatenate(([0.0], np.cumsum(column.amounts)))
    amounts: Float64s = np.diff(np.interp(borders, column.edges, below))
    return amounts


def _png(gray: NDArray[np.uint8]) -> bytes:
    height, width = gray.shape
    lines = np.hstack([np.zeros((height, 1), np.uint8), gray])  # each begins with its filter: none
    parts = ((b"IHDR", pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(lines.tobytes())))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(*part) for part in (*parts, (b"IEND", b"")))


def _png_part(kind: bytes, content: bytes) -> bytes:
    return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))
