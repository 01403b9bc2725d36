"""A run's points put into another order on disk: series by series, step by step, and back."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.items import Item, ItemSpool
from shardmig.adapters.wandb.spools import SeriesSpool, StepSpool
from shardmig.adapters.wandb.times import Times, TimesWriter
from shardmig.adapters.wandb.whole_steps import whole_steps
from shardmig.records import NO_TIME, Chunk, End, FloatPoints, Steps

Row = tuple[int, int, int, float]
rows_of_series = st.dictionaries(
    st.integers(0, 9), st.lists(st.integers(0, 60), unique=True, max_size=40).map(sorted), max_size=8
)


def points_of(rows: list[Row]) -> Points:
    steps, keys, times_ms, values = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    integers = [np.array(column, dtype=np.int64) for column in (steps, keys, times_ms)]
    return Points(integers[0], integers[1], integers[2], np.array(values, dtype=np.float64))


def rows_in(points: Points) -> list[Row]:
    columns = (points.steps, points.keys, points.times_ms, points.values)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=40)
@given(rows_of_series, st.integers(1, 50))
def test_series_come_back_step_by_step_and_whole_steps_together(series: dict[int, list[int]], most: int) -> None:
    parts = [[(step, key, step * 10, key + step / 7) for step in steps] for key, steps in series.items()]
    with TemporaryDirectory() as folder:
        spool = StepSpool(Path(folder), most)
        for part in parts:
            spool.add(points_of(part))
        windows = [rows_in(window) for window in spool.by_step()]
    assert [row for window in windows for row in window] == sorted(row for part in parts for row in part)
    steps = [{row[0] for row in window} for window in windows]
    assert all(max(one) < min(next_one) for one, next_one in itertools.pairwise(steps))


@given(
    st.lists(st.lists(st.integers(0, 5), unique=True, max_size=6), max_size=30), st.integers(1, 20), st.integers(1, 7)
)
def test_rows_come_back_series_by_series(rows: list[list[int]], most: int, at_most: int) -> None:
    whole = [(step, key, step, key / 3) for step, keys in enumerate(rows) for key in sorted(keys)]
    with TemporaryDirectory() as folder:
        spool = SeriesSpool(Path(folder), most)
        for row in whole:
            spool.add(points_of([row]))
        spool.finish()
        for key in range(6):
            parts = [rows_in(part) for part in spool.series(key, at_most)]
            assert [row for part in parts for row in part] == [row for row in whole if row[1] == key]
            assert all(len(part) <= at_most for part in parts)


def test_items_come_back_in_order_of_their_steps_however_many_there_are(tmp_path: Path) -> None:
    spool = ItemSpool(tmp_path)
    items = [Item((number * 7919) % 1000, number % 3, number, b"x" * 50_000) for number in range(1000)]
    for item in items:
        spool.add(item)
    assert list(tmp_path.iterdir())
    assert [item[:3] for item in spool.by_step()] == [item[:3] for item in sorted(items, key=lambda one: one[:2])]


def test_times_that_differ_from_their_rows_come_back_unless_the_row_was_changed(tmp_path: Path) -> None:
    points = points_of([(0, 0, 5, 1.0), (0, 1, 7, 1.0), (1, 1, NO_TIME, 1.0), (4, 0, 9, 1.0)])
    rows_ms = np.array([7, 7, 8, 9])
    writer = TimesWriter(tmp_path / "times", ["a", "b"])
    writer.add(points, rows_ms)
    writer.close()
    held = Points(points.steps, points.keys, rows_ms, points.values)
    restored = Times(tmp_path / "times", {"a": 0, "b": 1}).restored(held)
    assert restored.times_ms.tolist() == [5, 7, NO_TIME, 9]
    changed = Points(points.steps, points.keys, np.array([6, 6, 8, 9]), points.values)
    assert Times(tmp_path / "times", {"a": 0, "b": 1}).restored(changed).times_ms.tolist() == [6, 6, NO_TIME, 9]


def test_points_of_one_step_are_not_left_in_two_chunks() -> None:
    def chunk(path: str, steps: list[int]) -> FloatPoints:
        numbers = np.array(steps, dtype=np.int64)
        return FloatPoints([path], np.array([len(steps)]), Steps(numbers), numbers, numbers / 2)

    chunks: list[Chunk] = [chunk("a", [-2, -1]), chunk("a", [0, 1, 1]), chunk("a", [1, 2]), chunk("b", [2]), End()]
    cut = [part for part in whole_steps(iter(chunks), 1) if isinstance(part, FloatPoints)]
    assert [(part.paths[0], part.steps.units.tolist()) for part in cut] == [
        ("a", [-2, -1, 0]),
        ("a", [1, 1, 1]),
        ("a", [2]),
        ("b", [2]),
    ]
