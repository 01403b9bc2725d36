"""The one file of all float series, and the cards."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from shardmig.adapters.conformance.runs import field_digests, rich_run
from shardmig.adapters.zenml.series import Cards, PointsWriter, read_points
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, FloatPoints, ProjectId, Steps


def _points(paths: list[str], lengths: list[int], values: list[float]) -> FloatPoints:
    count = len(values)
    steps, times_ms = Steps(np.arange(count)), np.zeros(count, dtype=np.int64)
    return FloatPoints(paths, np.array(lengths, dtype=np.int64), steps, times_ms, np.array(values, dtype=np.float64))


@pytest.mark.parametrize("chunk_points", [1, 7, 10_000])
def test_points_come_back_exactly(tmp_path: Path, chunk_points: int) -> None:
    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), ProjectId("ws/rich"))
    chunks = [chunk for chunk in rich_run(files) if isinstance(chunk, FloatPoints)]
    writer = PointsWriter(tmp_path / "series.parquet")
    for chunk in chunks:
        writer.add(chunk)
    assert writer.close()
    assert writer.close()
    read = list(read_points(writer.path, lambda _: True, chunk_points))
    assert all(len(points.values) <= chunk_points for points in read)
    assert field_digests(read) == field_digests(chunks)


def test_only_the_wanted_series_are_read(tmp_path: Path) -> None:
    writer = PointsWriter(tmp_path / "series.parquet")
    writer.add(_points(["a", "b"], [120_000, 2], [0.0] * 120_002))
    writer.add(_points(["b", "c"], [2, 1], [1.0, 2.0, 3.0]))
    writer.close()
    found = list(read_points(writer.path, lambda path: path == "b", 1000))
    assert {path for points in found for path in points.paths} == {"b"}
    assert sum(len(points.values) for points in found) == 4


def test_without_points_there_is_no_file(tmp_path: Path) -> None:
    writer = PointsWriter(tmp_path / "series.parquet")
    assert not writer.close()
    assert not writer.path.exists()


def test_cards_tell_of_all_points_over_all_chunks() -> None:
    cards = Cards()
    cards.add(_points(["a", "none", "b"], [3, 0, 1], [3.0, 1.0, 2.0, math.nan]))
    cards.add(_points(["a", "b"], [2, 1], [6.0, math.nan, 4.0]))
    assert cards.shown() == {
        "a": {"count": 5, "min": 1.0, "max": 6.0, "final": "NaN", "mean": 3.0},
        "b": {"count": 2, "min": 4.0, "max": 4.0, "final": 4.0, "mean": 4.0},
    }


def test_cards_of_infinities_and_of_nothing_but_nan_are_text() -> None:
    cards = Cards()
    cards.add(_points(["inf", "nan"], [2, 1], [math.inf, 1.0, math.nan]))
    shown = cards.shown()
    assert shown["inf"] == {"count": 2, "min": 1.0, "max": "Infinity", "final": 1.0, "mean": "Infinity"}
    assert shown["nan"] == {"count": 1, "min": "NaN", "max": "NaN", "final": "NaN", "mean": "NaN"}
