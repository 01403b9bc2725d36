"""A series with more than 15,000 points is whole in the sidecar, however its points come in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from shardmig.adapters.comet.fit import MAX_POINTS, CometRules
from shardmig.adapters.comet.naming import Naming
from shardmig.adapters.comet.run import looking_ahead
from shardmig.records import Chunk, Field, Fields, FloatPoints, LoadOptions, Steps


def floats(*series: tuple[str, int, int]) -> FloatPoints:
    """(path, first step, points) of each series."""
    steps = np.concatenate([np.arange(start, start + count) for _, start, count in series])
    lengths = np.array([count for _, _, count in series], dtype=np.int64)
    return FloatPoints([path for path, _, _ in series], lengths, Steps(steps), 1000 + steps, steps / 7)


def kept_rows(chunks: list[Chunk]) -> tuple[dict[str, int], dict[str, int]]:
    """Of each series, how many points came out and how many of them go into the sidecar."""
    rules = CometRules(LoadOptions(step_multiplier=1), Naming())
    seen: dict[str, int] = {}
    exact: dict[str, int] = {}
    for chunk in looking_ahead(iter(chunks), rules):
        if not isinstance(chunk, FloatPoints):
            continue
        fitted = rules.fit_points(chunk)
        for path, length in zip(chunk.paths, chunk.lengths.tolist(), strict=True):
            seen[path] = seen.get(path, 0) + length
        for path, series in fitted.exact.points.series() if fitted.exact is not None else ():
            exact[path] = exact.get(path, 0) + len(series.values)
    return seen, exact


@pytest.mark.parametrize("cut", [1, 5_000, 14_999, 15_000, 15_001, 19_999])
def test_a_long_series_in_two_chunks_is_kept_from_its_first_point(cut: int) -> None:
    chunks: list[Chunk] = [floats(("a", 0, 10), ("b", 0, cut)), floats(("b", cut, 20_000 - cut), ("c", 0, 5))]
    assert kept_rows(chunks) == ({"a": 10, "b": 20_000, "c": 5}, {"b": 20_000})


def test_many_small_chunks_of_one_series_are_counted_together() -> None:
    chunks: list[Chunk] = [floats(("a", start, 4_000)) for start in range(0, 20_000, 4_000)]
    assert kept_rows([*chunks, floats(("b", 0, 4_000))]) == ({"a": 20_000, "b": 4_000}, {"a": 20_000})


def test_a_series_of_just_the_limit_stays_as_it_is() -> None:
    chunks: list[Chunk] = [floats(("a", 0, 10_000)), floats(("a", 10_000, 5_000)), floats(("b", 0, MAX_POINTS))]
    assert kept_rows(chunks) == ({"a": MAX_POINTS, "b": MAX_POINTS}, {})


def test_everything_else_passes_in_its_order() -> None:
    fields = Fields([Field("x", "int", 1)])
    chunks: list[Chunk] = [floats(("a", 0, 3)), fields, floats(("a", 3, 2), ("b", 0, 1))]
    passed = list(looking_ahead(iter(chunks), CometRules(LoadOptions(step_multiplier=1), Naming())))
    paths = [chunk.paths if isinstance(chunk, FloatPoints) else "fields" for chunk in passed]
    assert paths == [["a"], "fields", ["a"], ["b"]]


def test_nothing_is_read_further_ahead_than_one_chunk() -> None:
    asked = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal asked
        for start in range(0, 100_000, 20_000):
            asked += 1
            yield floats(("a", start, 20_000))

    first = next(looking_ahead(chunks(), CometRules(LoadOptions(step_multiplier=1), Naming())))
    assert isinstance(first, FloatPoints)
    assert asked == 1
