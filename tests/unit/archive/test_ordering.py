from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from shardmig.archive.digest import RunDigest
from shardmig.archive.merging import merged_rows, sort_blocks
from shardmig.archive.ordering import ordered_points
from shardmig.archive.rows import Column, Keys
from shardmig.archive.scratch import ScratchColumn
from shardmig.records import FloatPoints, Points, Steps, StringPoints, Texts
from tests.unit.archive.runs import floats, int64s, texts


def _order(chunks: list[Points], scratch: Path, chunk_points: int = 1000) -> list[Points]:
    return list(ordered_points(lambda: chunks, scratch, chunk_points))


@pytest.mark.parametrize("folder", [True, False])
def test_a_scratch_column_holds_what_was_put_at_any_place(tmp_path: Path, folder: bool) -> None:
    column = ScratchColumn(1000, np.int64, tmp_path if folder else None)
    column.write(500, int64s(range(500)))
    column.write(0, int64s([7]))
    assert column.read(498, 502).tolist() == [0, 0, 0, 1]
    assert column.read(0, 2).tolist() == [7, 0]
    assert column.read(999, 1000).tolist() == [499]
    assert os.listdir(tmp_path) == []
    column.close()


@pytest.mark.parametrize(("block_rows", "count"), [(10, 95), (10, 10), (7, 1), (1000, 5000)])
def test_blocks_are_merged_in_order_and_equal_keys_keep_their_order(
    tmp_path: Path, block_rows: int, count: int
) -> None:
    random = np.random.default_rng(count)
    rows: list[Column] = [random.integers(-3, 3, count) for _ in range(3)]
    rows.append(np.arange(count))
    columns = [ScratchColumn(count + 5, np.int64, tmp_path) for _ in rows]
    for column, values in zip(columns, rows, strict=True):
        column.write(5, values)
    blocks = sort_blocks(columns, 5, count + 5, block_rows)
    assert blocks == -(-count // block_rows)
    merged = list(merged_rows(columns, 5, count + 5, block_rows))
    found = list(zip(*(np.concatenate(parts).tolist() for parts in zip(*merged, strict=True)), strict=True))
    assert found == sorted(zip(*(column.tolist() for column in rows), strict=True))
    for column in columns:
        column.close()


def test_chunks_of_interleaved_series_are_put_together(tmp_path: Path) -> None:
    chunks: list[Points] = [
        FloatPoints(
            ["b", "a"], int64s([2, 2]), Steps(int64s([at, at + 1] * 2)), int64s([0] * 4), np.array([1.0, 2.0, 3.0, 4.0])
        )
        for at in (4, 2, 0)
    ]
    chunks.insert(1, texts("aa", [2, 1], ["late", "early"]))
    ordered = _order(chunks, tmp_path)
    assert [(type(chunk), chunk.paths) for chunk in ordered] == [
        (FloatPoints, ["a"]),
        (StringPoints, ["aa"]),
        (FloatPoints, ["b"]),
    ]
    first, log, _ = ordered
    assert first.steps.units.tolist() == [0, 1, 2, 3, 4, 5]
    assert isinstance(log, StringPoints)
    assert log.values.to_list() == ["early", "late"]


def test_rows_of_one_step_and_time_keep_their_order_of_arrival(tmp_path: Path) -> None:
    chunks: list[Points] = [floats("m", [5, 1, 5], [1.0, 2.0, 3.0]), floats("m", [5, 1], [4.0, 5.0])]
    (chunk,) = _order(chunks, tmp_path)
    assert isinstance(chunk, FloatPoints)
    assert chunk.values.tolist() == [2.0, 5.0, 1.0, 3.0, 4.0]


def test_rows_of_one_step_and_time_stay_in_one_chunk_unless_there_are_too_many(tmp_path: Path) -> None:
    steps = [0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4]
    chunks = _order([floats("m", steps, range(len(steps)))], tmp_path, chunk_points=4)
    assert [chunk.steps.units.tolist() for chunk in chunks] == [[0, 1, 1, 1], [2], [3, 3, 3, 3], [3, 3, 3, 4]]


def test_steps_of_any_scales_stand_in_one_series(tmp_path: Path) -> None:
    chunks: list[Points] = [
        floats("m", [9_000_000_000_000_000_000], [3.0]),
        floats("m", [1], [1.0], scale=18),
        floats("m", [15], [2.0], scale=1),
    ]
    ordered = _order(chunks, tmp_path)
    steps = [step for chunk in ordered for step in chunk.steps.to_decimals()]
    assert [str(step.normalize()) for step in steps] == ["1E-18", "1.5", "9E+18"]


def test_long_texts_make_small_chunks(tmp_path: Path) -> None:
    long = "x" * (9 << 20)
    chunks = _order([texts("log", range(10), [long + str(step) for step in range(10)])], tmp_path)
    assert max(len(chunk.times_ms) for chunk in chunks) == 3
    assert [text[-1] for chunk in chunks if isinstance(chunk, StringPoints) for text in chunk.values.to_list()] == list(
        "0123456789"
    )


def test_more_points_than_memory_may_hold_are_ordered_on_disk(tmp_path: Path) -> None:
    """2.4 million disordered points and texts: the scratch files, the blocks and the merge."""
    random = np.random.default_rng(0)
    count = 2_000_000
    steps = random.permutation(count)
    log_steps = random.permutation(400_000)
    log = Texts.from_list([f"line {step}" for step in log_steps.tolist()])

    def again() -> Iterator[Points]:
        for start in range(0, count, 250_000):
            part = steps[start : start + 250_000]
            lengths = int64s([len(part) - 10, 10])
            yield FloatPoints(["m/loss", "m/few"], lengths, Steps(part), part * 2, part / 3)
        yield StringPoints(["m/log"], int64s([400_000]), Steps(log_steps), np.zeros(400_000, dtype=np.int64), log)

    given, found = RunDigest(), RunDigest()
    for points in again():
        given.add(points)
    last: dict[str, int] = {}
    series: list[str] = []
    for points in ordered_points(again, tmp_path, 250_000):
        found.add(points)
        for path, one in points.series():
            series += [path] if series[-1:] != [path] else []
            assert one.steps.units[0] >= last.get(path, -1)
            assert (
                not Keys(one.steps.units[1:], one.times_ms[1:] * 0, one.times_ms[1:])
                .is_below(Keys(one.steps.units[:-1], one.times_ms[1:] * 0, one.times_ms[:-1]))
                .any()
            )
            last[path] = int(one.steps.units[-1])
    assert series == ["m/few", "m/log", "m/loss"]
    assert found.digest() == given.digest()
    assert os.listdir(tmp_path) == []


def test_a_chunk_may_name_a_series_twice(tmp_path: Path) -> None:
    chunk = FloatPoints(["a", "b", "a"], int64s([1, 0, 1]), Steps(int64s([2, 1])), int64s([0, 0]), np.array([2.0, 1.0]))
    (ordered,) = _order([chunk], tmp_path)
    assert isinstance(ordered, FloatPoints)
    assert (ordered.paths, ordered.values.tolist()) == (["a"], [1.0, 2.0])


def test_series_come_by_path_then_type(tmp_path: Path) -> None:
    chunks: list[Points] = [texts("a", [1], ["x"]), floats("b", [1], [1.0]), floats("a", [1], [1.0])]
    ordered = [(type(chunk), chunk.paths) for chunk in _order(chunks, tmp_path)]
    assert ordered == [(FloatPoints, ["a"]), (StringPoints, ["a"]), (FloatPoints, ["b"])]
    assert all(one != other for one, other in pairwise(ordered))
