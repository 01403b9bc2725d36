"""Strategies for arbitrary runs, and what a run is, whatever its chunks: the rows of its fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from shardmig.records import (
    NO_TIME,
    Chunk,
    Field,
    Fields,
    FieldType,
    FloatPoints,
    HistogramPoints,
    Histograms,
    Points,
    Steps,
    StringPoints,
    Texts,
)

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["", "\0", "é", "e\u0301", "x" * 9000]
)
PATHS = st.sampled_from(["a", "A", "a/b", "a_b", "sys/x", "é", "\u202egnp", "p" * 3000]) | TEXTS
BITS = st.integers(0, 2**64 - 1) | st.sampled_from(
    [0, 1 << 63, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000001, 0x7FF0000000000001, 0xFFFFFFFFFFFFFFFF]
)
TIMES = st.just(NO_TIME) | st.integers(-(2**62), 2**62) | st.integers(0, 3)
_VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    "int": INT64,
    "float": st.floats(),
    "string": TEXTS,
    "bool": st.booleans(),
    "datetime": st.integers(-(2**53), 2**53),
    "string_set": st.lists(TEXTS, unique=True, max_size=4).map(sorted),
}


def _column(values: Iterable[int]) -> Any:
    return np.array(list(values), dtype=np.int64)


@st.composite
def scalars(draw: st.DrawFn) -> Fields:
    """Scalar fields, each (path, type) once."""
    keys = draw(st.lists(st.tuples(PATHS, st.sampled_from(sorted(_VALUES))), unique=True, max_size=8))
    return Fields([Field(path, field_type, draw(_VALUES[field_type])) for path, field_type in keys])


@st.composite
def points(draw: st.DrawFn) -> Points:
    """One chunk of points of one type."""
    paths = draw(st.lists(PATHS, unique=True, min_size=1, max_size=4))
    lengths = [draw(st.integers(0, 6)) for _ in paths]
    count = sum(lengths)
    scale = draw(st.integers(0, 18))
    units = draw(st.lists(INT64 | st.integers(-3, 3), min_size=count, max_size=count))
    times = draw(st.lists(TIMES, min_size=count, max_size=count))
    columns = (paths, _column(lengths), Steps(_column(units), scale), _column(times))
    kind = draw(st.sampled_from([FloatPoints, StringPoints, HistogramPoints]))
    if kind is FloatPoints:
        bits = draw(st.lists(BITS, min_size=count, max_size=count))
        return FloatPoints(*columns, np.array(bits, dtype=np.uint64).view(np.float64))
    if kind is StringPoints:
        return StringPoints(*columns, Texts.from_list(draw(st.lists(TEXTS, min_size=count, max_size=count))))
    return HistogramPoints(*columns, draw(_histograms(count)))


@st.composite
def _histograms(draw: st.DrawFn, count: int) -> Histograms:
    edges = [draw(st.integers(0, 3)) for _ in range(count)]
    values = [draw(st.integers(0, 3)) for _ in range(count)]
    kinds = draw(st.lists(st.sampled_from(["COUNTING", "DENSITY"]), min_size=count, max_size=count))
    numbers = [
        np.array(draw(st.lists(st.floats(), min_size=sum(ns), max_size=sum(ns))), dtype=np.float64)
        for ns in (edges, values)
    ]
    return Histograms(kinds, _column(edges), numbers[0], _column(values), numbers[1])


RUNS = st.tuples(scalars(), st.lists(points(), max_size=5)).map(lambda run: [run[0], *run[1]])
"""The chunks of a run between Header and End."""


def rows_of(chunks: Iterable[Chunk]) -> dict[tuple[str, str], Counter[Any]]:
    """All rows by path and type, each how often: exact steps, times, and the bits of values (NaN payloads included)."""
    rows: dict[tuple[str, str], Counter[Any]] = {}
    for chunk in chunks:
        if isinstance(chunk, Fields):
            for field in chunk.fields:
                value = field.value.hex() if isinstance(field.value, float) else repr(field.value)
                rows[field.path, field.type] = Counter([value])
        elif isinstance(chunk, FloatPoints | StringPoints | HistogramPoints):
            for path, series in chunk.series():
                if len(series.times_ms):
                    rows.setdefault((path, type(chunk).__name__), Counter()).update(ordered_rows(series))
    return rows


def ordered_rows(series: Points) -> list[Any]:
    """(step, time, value) of one series in its order."""
    steps = [Fraction(int(unit), 10**series.steps.scale) for unit in series.steps.units]
    values: list[Any]
    if isinstance(series, FloatPoints):
        values = series.values.view(np.uint64).tolist()
    elif isinstance(series, StringPoints):
        values = series.values.to_list()
    else:
        many = [series.values[slice(index, index + 1)] for index in range(len(series.values))]
        values = [(one.kinds[0], one.edges.tobytes(), one.values.tobytes()) for one in many]
    return list(zip(steps, series.times_ms.tolist(), values, strict=True))
