"""History rows as records of a transaction log: columns in, protobuf out, no Python object a point.

A row is `Record{history{item{key, value_json}…, step{num}}}`. The vendor's objects make about 100,000 points a second;
here the texts of numbers and the bytes around them are put together by Arrow, and only rows are Python objects. Within
an item the value stands before the key, so that what depends on the number's length and what depends on the key come
from two small tables. Protobuf allows fields in any order; a test decodes the rows with the vendor's own classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardmig.adapters.wandb.varint import sized, varint
from shardmig.records import Float64s, Int64s

_HISTORY: Final = b"\x12"
_ITEM: Final = b"\x0a"
_KEY: Final = b"\x0a"
_VALUE_JSON: Final = b"\x82\x01"
_STEP: Final = b"\x12"
_NUM: Final = b"\x08"
_LONGEST_NUMBER: Final = 32
STEP, TIME, RUNTIME = "_step", "_timestamp", "_runtime"


class Rows(NamedTuple):
    """Some rows in step order: row i has step steps[i], time times_ms[i], and the points from starts[i] to
    starts[i + 1]; `keys` numbers the key of each point."""

    steps: Int64s
    times_ms: Int64s
    starts: Int64s
    keys: Int64s
    values: Float64s


class RowEncoder:
    """Rows of one run. `keys`: the keys by number. `start_ms`: what `_runtime` counts from."""

    def __init__(self, keys: list[str], start_ms: int) -> None:
        names = [sized(_KEY, name.encode()) for name in (*keys, STEP, TIME, RUNTIME)]
        sizes, self._class_of = np.unique(np.fromiter(map(len, names), np.int64, len(names)), return_inverse=True)
        self._heads = pa.array([_head(size, length) for size in sizes.tolist() for length in range(_LONGEST_NUMBER)])
        self._tails = pa.array(names, pa.binary())
        self._start_ms = start_ms
        self._own = range(len(keys), len(names))

    def encode(self, rows: Rows, extra: Mapping[int, bytes]) -> list[bytes]:
        """The records of these rows. `extra`: further items of some rows, by step."""
        items = self._items(rows.keys, number_texts(rows.values))
        lists = pa.ListArray.from_arrays(pa.array(rows.starts, pa.int32()), items)
        columns = (rows.steps.tolist(), pc.binary_join(lists, b"").to_pylist(), self._row_items(rows).to_pylist())
        if not extra:
            return [_record(step, points + own) for step, points, own in zip(*columns, strict=True)]
        return [_record(step, points + extra.get(step, b"") + own) for step, points, own in zip(*columns, strict=True)]

    def _row_items(self, rows: Rows) -> Any:
        runtimes = np.maximum(rows.times_ms - self._start_ms, 0) / 1000
        texts = (pc.cast(pa.array(rows.steps), pa.string()), *map(number_texts, (rows.times_ms / 1000, runtimes)))
        count = len(rows.steps)
        columns = [self._items(np.full(count, key), text) for key, text in zip(self._own, texts, strict=True)]
        return pc.binary_join_element_wise(*columns, b"")

    def _items(self, keys: Int64s, texts: Any) -> Any:
        lengths = pc.binary_length(texts).to_numpy()
        heads = self._heads.take(pa.array(self._class_of[keys] * _LONGEST_NUMBER + lengths))
        return pc.binary_join_element_wise(heads, texts.cast(pa.binary()), self._tails.take(pa.array(keys)), b"")


def json_item(key: str, text: bytes) -> bytes:
    """One item of a row with any JSON value."""
    return sized(_ITEM, sized(_VALUE_JSON, text) + sized(_KEY, key.encode()))


def number_texts(values: Float64s) -> Any:
    """Numbers as JSON texts, as wandb writes them: the shortest that give the same double; NaN, Infinity, -Infinity."""
    texts = pc.cast(pa.array(values), pa.string())
    odd = ~np.isfinite(values)
    if odd.any():
        names = np.where(np.isnan(values[odd]), "NaN", np.where(values[odd] > 0, "Infinity", "-Infinity"))
        texts = pc.replace_with_mask(texts, pa.array(odd), pa.array(names.tolist(), pa.string()))
    return texts


def _head(key_size: int, length: int) -> bytes:
    """What stands before a number's text: the item's size, and the text's."""
    return _ITEM + varint(len(_VALUE_JSON) + 1 + length + key_size) + _VALUE_JSON + varint(length)


def _record(step: int, items: bytes) -> bytes:
    number = _NUM + varint(step)
    return sized(_HISTORY, items + _STEP + varint(len(number)) + number)
