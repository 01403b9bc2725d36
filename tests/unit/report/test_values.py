"""What `show` tells of one field."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np

from shardmig import codec
from shardmig.records import NO_TIME, Chunk, Field, Fields, FileRef, Files, FloatPoints, HistogramPoints, Histograms
from shardmig.report import terminal, values
from shardmig.steps import from_decimals


def _floats(first: int, *numbers: float) -> FloatPoints:
    steps = from_decimals([Decimal(first + index) / 4 for index in range(len(numbers))])
    times = np.array([NO_TIME, *[1_000] * (len(numbers) - 1)], dtype=np.int64)
    return FloatPoints(["m"], np.array([len(numbers)]), steps, times, np.array(numbers))


def _only(*chunks: Chunk, head: int = 2, tail: int = 2) -> values.FieldAnswer:
    [answer] = values.answers(chunks, run="ws/p/R", head=head, tail=tail)
    return answer


def test_the_ends_of_a_series_are_found_across_chunks() -> None:
    answer = _only(_floats(0, 0.0, 1.0, 2.0), _floats(3, 3.0), _floats(4, 4.0, 5.0))
    assert answer.points == 6
    assert [(point.step, point.value) for point in answer.head] == [("0.00", 0.0), ("0.25", 1.0)]
    assert [point.value for point in answer.tail] == [4.0, 5.0]
    assert "2 points between" in "".join(terminal.text_of(part) for part in values.shown(answer))


def test_a_short_series_is_shown_once_and_whole() -> None:
    answer = _only(_floats(0, 0.0, 1.0, 2.0), head=2, tail=10)
    assert [point.value for point in (*answer.head, *answer.tail)] == [0.0, 1.0, 2.0]


def test_what_json_cannot_hold_is_text() -> None:
    answer = _only(_floats(0, math.nan, -math.inf), head=9)
    assert [point.value for point in answer.head] == ["nan", "-inf"]
    assert [point.time for point in answer.head] == ["", "1970-01-01T00:00:01.000Z"]
    json.loads(codec.encode_json(answer))


def test_histograms_have_type_edges_and_values() -> None:
    ones, twos = np.array([1]), np.array([2])
    histograms = Histograms(["COUNTING"], twos, np.array([0.0, 1.0]), ones, np.array([5.0]))
    chunk = HistogramPoints(["h"], ones, from_decimals([Decimal(0)]), np.array([0]), histograms)
    assert _only(chunk).head[0].value == {"type": "COUNTING", "edges": [0.0, 1.0], "values": [5.0]}


def test_a_scalar_is_its_text_alone_for_scripts() -> None:
    answer = _only(Fields([Field("params/n", "int", 9_007_199_254_740_993)]))
    assert "".join(terminal.text_of(part) for part in values.shown(answer)) == "9007199254740993\n"


def test_two_types_on_one_path_are_two_answers() -> None:
    fields = Fields([Field("lr", "float", 0.1), Field("lr", "string", "0.1")])
    assert [answer.type for answer in values.answers([fields], run="R", head=1, tail=1)] == ["float", "string"]


def test_files_are_told_with_size_and_digest() -> None:
    ref = FileRef(
        path="model", type="file", stored="R/model.bin", size_bytes=1234, sha256="ab" * 32, step=Decimal("0.50")
    )
    text = "".join(terminal.text_of(part) for part in values.shown(_only(Files([ref]))))
    assert "1,234" in text
    assert "ab" * 32 in text
    json.loads(codec.encode_json(_only(Files([ref]))))
