"""Rows of history: what Arrow puts together is what the vendor's protobuf classes read."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.wandb.history import RowEncoder, Rows, json_item
from shardmig.adapters.wandb.records import messages

KEYS = ["loss", "a/b", "ü" * 70, "k" * 400, ""]
START_MS = 1_700_000_000_000


def decoded(record: bytes) -> dict[str, Any]:
    parsed = messages().Record()
    parsed.ParseFromString(record)
    values = {item.key: json.loads(item.value_json) for item in parsed.history.item}
    assert parsed.history.step.num == values["_step"]
    return values


@given(
    st.lists(
        st.lists(st.floats(width=64), min_size=1, max_size=len(KEYS)),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 2**62),
)
def test_every_number_comes_back_as_it_was(rows: list[list[float]], first: int) -> None:
    steps = np.arange(len(rows), dtype=np.int64) + first
    times_ms = START_MS + np.arange(len(rows), dtype=np.int64) * 777 - 1000
    keys = np.array([key for row in rows for key in range(len(row))], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    values = np.array([value for row in rows for value in row])
    records = RowEncoder(KEYS, START_MS).encode(Rows(steps, times_ms, starts, keys, values), {})
    for number, (record, row) in enumerate(zip(records, rows, strict=True)):
        found = decoded(record)
        assert found["_step"] == first + number
        assert round(found["_timestamp"] * 1000) == times_ms[number]
        assert found["_runtime"] == max(0, times_ms[number] - START_MS) / 1000
        for key, value in zip(KEYS, row, strict=False):
            same = float(found[key])
            assert same == value or (math.isnan(same) and math.isnan(value))


def test_further_items_go_into_the_row_of_their_step() -> None:
    rows = Rows(np.array([3, 9]), np.array([START_MS] * 2), np.array([0, 0, 1]), np.array([0]), np.array([0.5]))
    records = RowEncoder(["loss"], START_MS).encode(rows, {3: json_item("h", b'{"_type":"histogram"}')})
    assert [decoded(record).get("h") for record in records] == [{"_type": "histogram"}, None]
    assert [decoded(record).get("loss") for record in records] == [None, 0.5]
