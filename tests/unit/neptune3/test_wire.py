"""Float points read from the bytes of an answer are those that the message class reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.neptune3 import wire
from shardmig.errors import Unavailable
from tests.servers.neptune3.messages import series

int64s = st.integers(-(2**63), 2**63 - 1)
points = st.tuples(
    st.one_of(st.just(0), int64s), st.one_of(st.just(0.0), st.floats()), st.floats(), st.booleans(), st.floats(width=32)
)


def answer_of(found: dict[str, list[tuple[int, float, float, bool, float]]]) -> Any:
    answer = series.ProtoFloatSeriesValuesResponseDTO()
    for name, rows in found.items():
        one = answer.series.add(requestId=name)
        one.series.total_item_count = len(rows)
        for time_ms, step, value, is_preview, completion in rows:
            one.series.values.add(
                timestamp_millis=time_ms, step=step, value=value, is_preview=is_preview, completion_ratio=completion
            )
    return answer


@given(st.dictionaries(st.text(min_size=1), st.lists(points)))
def test_any_answer_is_read_bit_by_bit(found: dict[str, list[tuple[int, float, float, bool, float]]]) -> None:
    columns = wire.float_series(answer_of(found).SerializeToString())
    assert columns.keys() == found.keys()
    for name, rows in found.items():
        expected = [[row[place] for row in rows] for place in range(5)]
        got = columns[name]
        for column, kind, values in (
            (got.times_ms, np.int64, expected[0]),
            (got.steps, np.float64, expected[1]),
            (got.values, np.float64, expected[2]),
            (got.previews, np.bool_, expected[3]),
            (got.completions, np.float64, expected[4]),
        ):
            assert column.tobytes() == np.array(values, kind).tobytes() or _same_with_nan(column, values)


def test_more_points_than_a_block_are_read() -> None:
    rows = [(number, number / 2, 0.0 if number % 3 else -0.5, False, 0.0) for number in range(20_000)]
    columns = wire.float_series(answer_of({"a": rows, "b": [], "c": rows[:1]}).SerializeToString())
    assert columns["a"].times_ms.tolist() == list(range(20_000))
    assert columns["a"].values.tolist() == [row[2] for row in rows]
    assert len(columns["b"].steps) == 0
    assert columns["c"].steps.tolist() == [0.0]


def test_fields_of_a_newer_server_are_passed_over() -> None:
    content = answer_of({"a": [(5, 1.0, 2.0, False, 0.0)]}).SerializeToString()
    point = b"\x08\x05\x11" + np.float64(1).tobytes() + b"\x19" + np.float64(2).tobytes()
    newer = content.replace(bytes([len(point)]) + point, bytes([len(point) + 2]) + point + b"\x30\x07")
    newer = b"\x0a" + bytes([newer[1] + 2]) + newer[2:]
    newer = newer.replace(b"\x12" + bytes([len(point) + 4]), b"\x12" + bytes([len(point) + 6]))
    assert wire.float_series(newer)["a"].values.tolist() == [2.0]


@pytest.mark.parametrize("content", [b"<html>busy</html>", b"\x0a\xff"])
def test_an_answer_that_is_none_can_be_asked_for_again(content: bytes) -> None:
    with pytest.raises(Unavailable):
        wire.float_series(content)


def _same_with_nan(column: Any, values: Any) -> bool:
    return bool(np.array_equal(column, np.array(values, np.float64), equal_nan=True))
