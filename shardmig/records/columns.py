"""Columns of series: numpy arrays with the few invariants that make them exact.

No Python object per point: steps are integers with one decimal scale a column, texts and histograms are
flat buffers with offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

NO_TIME: Final = int(np.iinfo(np.int64).min)
"""In a `times_ms` column: this point has no timestamp."""

MAX_STEP_SCALE: Final = 18
"""Most decimal digits a step may have: what a decimal128(38, 18) holds beside a 64-bit integer part."""


class Steps(msgspec.Struct, frozen=True):
    """Exact decimal steps: step[i] = units[i] / 10**scale, 0 <= scale <= 18."""

    units: Int64s
    scale: int = 0

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, part: slice) -> Steps:
        return Steps(self.units[part], self.scale)

    def to_decimals(self) -> list[Decimal]:
        """The steps as Python decimals: for messages and small columns only."""
        return [Decimal(int(unit)).scaleb(-self.scale) for unit in self.units]


class Texts(msgspec.Struct, frozen=True):
    """UTF-8 strings, end to end: text i is utf8[offsets[i]:offsets[i + 1]]; len(offsets) = count + 1."""

    offsets: Int64s
    utf8: bytes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, part: slice) -> Texts:
        start, stop, _ = part.indices(len(self))
        stop = max(start, stop)
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Texts(self.offsets[start : stop + 1] - first, self.utf8[first:last])

    @classmethod
    def from_list(cls, texts: Sequence[str]) -> Texts:
        """Encode strings. Lone surrogates (they occur in logs) are kept as UTF-8 of U+FFFD: parquet has no place
        for them; callers that may meet one report it first."""
        encoded = [text.encode("utf-8", "replace") for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), out=offsets[1:])
        return cls(offsets, b"".join(encoded))

    @classmethod
    def from_arrow(cls, column: pa.Array) -> Texts:
        """Take over an arrow string column without nulls; no Python object per text."""
        large = column.cast(pa.large_string())
        _, offset_buffer, byte_buffer = large.buffers()
        if len(large) == 0 or offset_buffer is None:
            return cls(np.zeros(1, dtype=np.int64), b"")
        offsets = np.frombuffer(offset_buffer, dtype=np.int64)[large.offset : large.offset + len(large) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        utf8 = b"" if byte_buffer is None else byte_buffer.slice(first, last - first).to_pybytes()
        return cls(offsets - first, utf8)

    def to_arrow(self) -> pa.LargeStringArray:
        """The same texts as an arrow large_string column, without copying."""
        return pa.LargeStringArray.from_buffers(
            len(self), pa.py_buffer(np.ascontiguousarray(self.offsets)), pa.py_buffer(self.utf8)
        )

    def to_list(self) -> list[str]:
        """The texts as Python strings: one object a text."""
        return [
            self.utf8[start:stop].decode("utf-8")
            for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True)
        ]


class Histograms(msgspec.Struct, frozen=True):
    """Histograms, end to end. Histogram i has kind kinds[i], the next edge_counts[i] of `edges` and the next
    value_counts[i] of `values`. Kinds are Neptune's: COUNTING, DENSITY."""

    kinds: list[str]
    edge_counts: Int64s
    edges: Float64s
    value_counts: Int64s
    values: Float64s

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, part: slice) -> Histograms:
        start, stop, _ = part.indices(len(self))
        stop = max(start, stop)
        edges = np.concatenate(([0], np.cumsum(self.edge_counts)))
        values = np.concatenate(([0], np.cumsum(self.value_counts)))
        return Histograms(
            self.kinds[start:stop],
            self.edge_counts[start:stop],
            self.edges[int(edges[start]) : int(edges[stop])],
            self.value_counts[start:stop],
            self.values[int(values[start]) : int(values[stop])],
        )
