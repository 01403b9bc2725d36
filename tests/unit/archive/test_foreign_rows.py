"""Rows of archives that others wrote, or put together, and that no single run can have: told of, never taken in silence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardmig.archive.layout import sanitize
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import BadInput
from shardmig.records import Field, Fields, FloatPoints, RunId, RunRef
from tests.unit.archive.runs import RUN, end_of, exporter_rows, paths_in, read, write_exporter_part

OTHER = RunRef(project=RUN.project, id=RunId("RUN-2"))


def scalar(path: str, value: float) -> dict[str, Any]:
    return {"attribute_path": path, "attribute_type": "float", "float_value": value}


def file(path: str, place: str) -> dict[str, Any]:
    return {"attribute_path": path, "attribute_type": "file", "file_value": {"path": place}}


def found(folder: Path) -> list[tuple[str, str, str, int]]:
    """The findings of the run, but for the note that it has no receipt."""
    findings = [(one.kind, one.code, one.field, one.count) for one in end_of(read(folder)).findings]
    return [one for one in findings if one[1] != "no-receipt"]


def test_a_field_with_two_values_is_a_loss_and_one_that_is_there_twice_is_not(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [scalar("same", float("nan")), scalar("lr", 1.0), file("f", "a"), file("g", "a")])
    write_exporter_part(tmp_path, 1, [scalar("same", float("nan")), scalar("lr", 2.0), file("f", "b"), file("g", "a")])
    losses = [one for one in found(tmp_path) if one[1] != "missing-file"]
    assert losses == [("loss", "two-values", "f", 1), ("loss", "two-values", "lr", 1)]


def test_a_part_of_another_run_is_refused(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [scalar("lr", 1.0)])
    write_exporter_part(tmp_path, 1, [scalar("lr", 2.0)], OTHER, sanitize(RUN.id))
    with pytest.raises(BadInput, match=r"part_1\.parquet holds rows of another run: run_id 'RUN-2', not 'RUN-1'"):
        read(tmp_path)


@pytest.mark.parametrize("statistics", [True, False])
def test_a_part_of_two_runs_is_refused(tmp_path: Path, statistics: bool) -> None:
    path = write_exporter_part(tmp_path, 0, [scalar("lr", 1.0)])
    both = pa.concat_tables([exporter_rows([scalar("lr", 1.0)]), exporter_rows([scalar("b", 1.0)], OTHER)])
    pq.write_table(both, path, write_statistics=statistics)
    with pytest.raises(BadInput, match=r"part_0\.parquet holds rows of another run: run_id 'RUN-2', not 'RUN-1'"):
        read(tmp_path)


def test_of_two_files_that_are_one_run_the_runs_behind_are_listed_all_the_same(tmp_path: Path) -> None:
    path = write_exporter_part(tmp_path, 0, [scalar("lr", 1.0)])
    shutil.copy(path, path.with_name("RUN-1 copy_part_0.parquet"))
    write_exporter_part(tmp_path, 0, [scalar("lr", 2.0)], OTHER)
    runs = ArchiveReader(paths_in(tmp_path)).runs(RUN.project)
    assert [next(runs).id, next(runs).id] == ["RUN-1", "RUN-2"]
    with pytest.raises(BadInput, match="are both run 'RUN-1'"):
        next(runs)


@pytest.mark.parametrize(("unit", "per_ms"), [("us", 1_000), ("ns", 1_000_000)])
def test_times_finer_than_milliseconds_are_rounded_down_and_told_of(tmp_path: Path, unit: str, per_ms: int) -> None:
    point = {"attribute_path": "m", "attribute_type": "float_series", "float_value": 1.0, "step": 1}
    when = {"attribute_path": "at", "attribute_type": "datetime"}
    path = write_exporter_part(tmp_path, 0, [point, point, point, when])
    table = pq.read_table(path)
    for name, times in (("timestamp", [-1, 5 * per_ms, None, None]), ("datetime_value", [None, None, None, -1])):
        column = pa.array(times, pa.timestamp(unit, "UTC"))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, path)
    chunks = read(tmp_path)
    [fields] = (chunk.fields for chunk in chunks if isinstance(chunk, Fields))
    [points] = (chunk for chunk in chunks if isinstance(chunk, FloatPoints))
    assert fields == [Field("at", "datetime", -1)]
    assert sorted(points.times_ms.tolist())[1:] == [-1, 5]
    assert found(tmp_path) == [
        ("approximation", "time-rounded", "at", 1),
        ("approximation", "time-rounded", "m", 1),
    ]


def test_a_member_of_a_set_without_value_is_a_gap(tmp_path: Path) -> None:
    tags = {"attribute_path": "tags", "attribute_type": "string_set", "string_set_value": ["b", None, "a"]}
    write_exporter_part(tmp_path, 0, [tags])
    assert [chunk.fields for chunk in read(tmp_path) if isinstance(chunk, Fields)] == [
        [Field("tags", "string_set", ["a", "b"])]
    ]
    assert found(tmp_path) == [("gap", "member-without-value", "tags", 1)]


def test_a_link_in_a_circle_among_the_projects_is_passed_over(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [scalar("lr", 1.0)])
    (tmp_path / "data" / "circle").symlink_to("circle")
    (tmp_path / "data" / "nowhere").symlink_to("gone")
    assert list(ArchiveReader(paths_in(tmp_path)).projects()) == [RUN.project]
