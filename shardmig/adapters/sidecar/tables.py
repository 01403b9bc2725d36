"""Series as parquet: the lossless form of what a target has no series for, and of what it changed.

Columns: `attribute_path` (sidecar only), `step` decimal128(38, 18), `timestamp` (ms, UTC; null = no time), and the
value: `float_value`, `string_value`, or `histogram_value` struct<type, edges, values>. Names and types are the
archive's; the step is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from shardmig.archive.decimals import EXACT_STEP, read_steps
from shardmig.archive.rows import KINDS, Blob, Keys, Rows, points_of
from shardmig.records import NO_TIME, FloatPoints, Histograms, Int64s, Points, Steps, StringPoints, Texts

TIME: Final = pa.timestamp("ms", tz="UTC")
HISTOGRAM: Final = pa.struct(
    [("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]
)


def step_array(steps: Steps) -> pa.Array:
    """Exact decimals, no Python object a row."""
    words = np.empty((len(steps), 2), dtype=np.int64)
    words[:, 0], words[:, 1] = steps.units, steps.units >> 63
    return pa.Array.from_buffers(pa.decimal128(38, steps.scale), len(steps), [None, pa.py_buffer(words)]).cast(
        EXACT_STEP
    )


def time_array(times_ms: Int64s) -> pa.Array:
    """Timestamps; NO_TIME is null."""
    return pa.array(times_ms, mask=times_ms == NO_TIME).cast(TIME)


def value_column(points: Points) -> tuple[str, pa.Array]:
    """Name and content of the value column."""
    if isinstance(points, FloatPoints):
        return "float_value", pa.array(points.values)
    if isinstance(points, StringPoints):
        return "string_value", points.values.to_arrow()
    return "histogram_value", _histogram_array(points.values)


def points_of_table(paths: list[str], lengths: Int64s, table: pa.Table) -> Iterator[Points]:
    """The chunks of a table's rows, which belong to these series in this order."""
    table = table.combine_chunks()
    whole, fraction, _ = read_steps(_only_chunk(table["step"]), None)
    times_ms = _only_chunk(table["timestamp"]).cast(pa.int64()).fill_null(NO_TIME).to_numpy(zero_copy_only=False)
    keys = Keys(whole, fraction, times_ms)
    if "float_value" in table.column_names:
        values = _only_chunk(table["float_value"]).to_numpy(zero_copy_only=False)
        yield from points_of(Rows("float_series", paths, lengths, keys, [values], []))
    elif "string_value" in table.column_names:
        texts = Texts.from_arrow(_only_chunk(table["string_value"]))
        blob = Blob(np.diff(texts.offsets), np.frombuffer(texts.utf8, dtype=np.uint8))
        yield from points_of(Rows("string_series", paths, lengths, keys, [], [blob]))
    else:
        yield from points_of(_histogram_rows(paths, lengths, keys, _only_chunk(table["histogram_value"])))


def _histogram_array(histograms: Histograms) -> pa.Array:
    kinds = pa.array(histograms.kinds, pa.string())
    edges = pa.ListArray.from_arrays(_offsets(histograms.edge_counts), pa.array(histograms.edges))
    values = pa.ListArray.from_arrays(_offsets(histograms.value_counts), pa.array(histograms.values))
    return pa.StructArray.from_arrays([kinds, edges, values], fields=list(HISTOGRAM))


def _histogram_rows(paths: list[str], lengths: Int64s, keys: Keys, column: pa.StructArray) -> Rows:
    kinds, edges, values = column.flatten()
    codes = np.fromiter(map(KINDS.index, kinds.to_pylist()), dtype=np.int64, count=len(column))
    return Rows("histogram_series", paths, lengths, keys, [codes], [_blob(edges), _blob(values)])


def _blob(lists: pa.ListArray) -> Blob:
    counts = lists.value_lengths().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return Blob(counts, lists.flatten().to_numpy(zero_copy_only=False))


def _offsets(counts: Int64s) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())


def _only_chunk(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
