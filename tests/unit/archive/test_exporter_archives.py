"""What archives written by neptune-exporter hold, and what is made of it."""

from __future__ import annotations

import datetime as dt
import math
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardmig.adapters.base import Want
from shardmig.archive.layout import archive_paths, project_folder
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import BadInput, NotFound
from shardmig.records import (
    NO_TIME,
    Chunk,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    HistogramPoints,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    StringPoints,
)
from tests.unit.archive.runs import RUN, end_of, paths_in, points_of_kind, read, write_exporter_part

SAMPLES = Path(__file__).parents[2] / "samples"
NOTE = Finding("note", "no-receipt", detail="completeness unknown: the archive has no receipt for this run")


def _sample(name: str) -> ArchiveReader:
    return ArchiveReader(archive_paths(SAMPLES / name))


def _chunks(reader: ArchiveReader, run: RunRef) -> list[Chunk]:
    return [piece.chunk for piece in reader.read(run, Want())]


def _fields(chunks: list[Chunk]) -> dict[str, Field]:
    return {field.path: field for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}


def _files(chunks: list[Chunk]) -> list[FileRef]:
    return [ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files]


def _point(path: str, step: str | None, value: float | None, **more: Any) -> dict[str, Any]:
    at = None if step is None else Decimal(step)
    return {"attribute_path": path, "attribute_type": "float_series", "step": at, "float_value": value, **more}


def test_an_export_of_neptune_3_is_read_whole() -> None:
    reader = _sample("exporter-3x")
    assert list(reader.projects()) == ["ws/three"]
    runs = {run.id: run for run in reader.runs(ProjectId("ws/three"))}
    assert sorted(runs) == ["run-0", "run-1", "run-2"]
    assert runs[RunId("run-2")].parent == "run-0"
    assert runs[RunId("run-0")].created_ms == 1_700_000_000_000
    assert runs[RunId("run-0")].weight == 4053
    chunks = _chunks(reader, runs[RunId("run-2")])
    assert _fields(chunks)["p/bigint"].value == 4611686018427387904
    series = dict(points_of_kind(chunks, FloatPoints))
    assert [str(step) for step in series["m/loss"].steps.to_decimals()] == [
        "5.0",
        "5.5",
        "6.0",
        "6.5",
        "7.0",
        "7.5",
        "8.0",
    ]
    assert math.isnan(series["m/nan"].values[0])
    assert math.isinf(series["m/nan"].values[1])
    assert dict(points_of_kind(chunks, StringPoints))["log/text"].values.to_list()[0] == "line 0 ✓"
    histogram = dict(points_of_kind(chunks, HistogramPoints))["h/counts"].values
    assert (histogram.kinds[0], histogram.edges[:4].tolist(), histogram.values[:3].tolist()) == (
        "COUNTING",
        [0.0, 1.0, 2.5, 3.0],
        [0.0, 2.0, 3.0],
    )


def test_two_attributes_on_one_file_are_both_read() -> None:
    reader = _sample("exporter-3x")
    files = _files(_chunks(reader, next(reader.runs(ProjectId("ws/three")))))
    shared = [ref.path for ref in files if ref.stored == "run-0/f/x_y.bin"]
    assert shared == ["f/x.y", "f/x_y"]
    steps = [ref.step for ref in files if ref.path == "fs/img"]
    assert steps == [Decimal("0.25"), Decimal("1.25"), Decimal("2.25")]
    assert all(ref.sha256 and ref.size_bytes >= 0 for ref in files)


def test_an_export_of_neptune_2_is_read_whole() -> None:
    reader = _sample("exporter-2x")
    (run,) = reader.runs(ProjectId("ws/two"))
    chunks = _chunks(reader, run)
    assert run.id == "TWO-1"
    assert _fields(chunks)["sys/tags"].value == ["r0", "t1"]
    files = {ref.path: ref for ref in _files(chunks)}
    assert files["f/set"].is_tree
    assert files["art/data"].name == "files_list.json"
    assert [ref.step for ref in _files(chunks) if ref.type == "file_series"] == [0, 1, 2]
    assert end_of(chunks).findings == [NOTE]
    assert len(dict(points_of_kind(chunks, FloatPoints))["m/loss"].values) == 2500


def test_models_and_their_versions_are_scopes_of_their_own() -> None:
    reader = _sample("exporter-2x-models")
    project = ProjectId("ws/two")
    assert list(reader.projects()) == ["ws/two"]
    assert list(reader.runs(project)) == []
    assert [run.id for run in reader.runs(project, "models")] == ["TWO-MOD"]
    versions = list(reader.runs(project, "model_versions"))
    assert [(run.id, run.scope) for run in versions] == [
        ("TWO-MOD-1", "model_versions"),
        ("TWO-MOD-2", "model_versions"),
    ]
    assert _fields(_chunks(reader, versions[0]))["sys/tags"].value == []


def test_a_float_without_value_is_nan_and_a_scalar_without_value_is_absent(tmp_path: Path) -> None:
    write_exporter_part(
        tmp_path,
        0,
        [
            {"attribute_path": "p/gone", "attribute_type": "int"},
            {"attribute_path": "f/gone", "attribute_type": "file"},
            {"attribute_path": "p/here", "attribute_type": "int", "int_value": 3},
            _point("m", "1", None),
        ],
    )
    chunks = read(tmp_path)
    assert list(_fields(chunks)) == ["p/here"]
    assert math.isnan(dict(points_of_kind(chunks, FloatPoints))["m"].values[0])
    assert end_of(chunks).findings == [
        Finding("note", "absent-field", "f/gone"),
        Finding("note", "absent-field", "p/gone"),
        NOTE,
    ]


def test_points_without_time_step_or_value_are_told_apart(tmp_path: Path) -> None:
    now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    write_exporter_part(
        tmp_path,
        0,
        [
            _point("m", "1", 1.0),
            _point("m", None, 2.0),
            _point("m", "2", 3.0, timestamp=now),
            {"attribute_path": "log", "attribute_type": "string_series", "step": Decimal(1)},
        ],
    )
    chunks = read(tmp_path)
    series = dict(points_of_kind(chunks, FloatPoints))["m"]
    assert series.times_ms.tolist() == [NO_TIME, 1_704_067_200_000]
    assert end_of(chunks).findings == [
        Finding("gap", "point-without-value", "log"),
        Finding("loss", "point-without-step", "m"),
        NOTE,
    ]


def test_a_type_that_nobody_knows_is_a_loss(tmp_path: Path) -> None:
    rows = [{"attribute_path": "g", "attribute_type": "git_ref", "string_value": "abc"}, _point("m", "1", 1.0)]
    write_exporter_part(tmp_path, 0, rows)
    chunks = read(tmp_path)
    assert end_of(chunks).findings[0] == Finding("loss", "unknown-type", "g", detail="git_ref")
    assert len(list(points_of_kind(chunks, FloatPoints))) == 1


def test_series_that_interleave_and_spread_over_parts_come_in_canonical_order(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [_point(path, str(step), step) for step in (9, 3) for path in ("b", "a")])
    write_exporter_part(tmp_path, 1, [_point(path, str(step), step) for step in (1, 2) for path in ("a", "b")])
    (chunk,) = [chunk for chunk in read(tmp_path) if isinstance(chunk, FloatPoints)]
    assert chunk.paths == ["a", "b"]
    assert chunk.values.tolist() == [1, 2, 3, 9, 1, 2, 3, 9]


def test_a_missing_middle_part_is_named(tmp_path: Path) -> None:
    for number in (0, 2):
        write_exporter_part(tmp_path, number, [_point("m", "1", 1.0)])
    with pytest.raises(BadInput, match=r"part_1\.parquet is missing"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
@pytest.mark.parametrize("number", [0, 1])
def test_an_unreadable_part_fails_its_run_alone_and_is_named(tmp_path: Path, content: bytes, number: int) -> None:
    other = RunRef(project=RUN.project, id=RunId("RUN-2"))
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)], other)
    for part in (0, 1):
        path = write_exporter_part(tmp_path, part, [_point("m", "1", 1.0)])
        if part == number:
            path.write_bytes(content)
            damaged = path
    listed = list(ArchiveReader(paths_in(tmp_path)).runs(RUN.project))
    assert len(listed) == 2
    (bad,) = [run for run in listed if run.id != "RUN-2"]
    with pytest.raises(BadInput) as caught:
        read(tmp_path, bad)
    assert str(damaged) in caught.value.message
    assert "RUN-1" in caught.value.run
    assert caught.value.hint
    assert end_of(read(tmp_path, other)).findings == [NOTE]


def test_a_part_whose_columns_are_missing_or_of_other_kinds_is_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "attribute_type": ["float_series", "string"],
            "step": pa.array([Decimal("1.5"), None], pa.decimal128(38, 9)),
            "attribute_path": pa.array(["m", "p"], pa.large_string()),
            "run_id": ["RUN-1"] * 2,
            "project_id": ["ws/proj"] * 2,
            "float_value": [2.0, None],
            "timestamp": pa.array([1_000_000, None], pa.timestamp("us", "UTC")),
            "string_value": pa.array([None, "x"], pa.large_string()),
            "comment": ["extra", "column"],
        }
    )
    pq.write_table(table, write_exporter_part(tmp_path, 0, []), compression="zstd")
    chunks = read(tmp_path)
    (series,) = (one for _, one in points_of_kind(chunks, FloatPoints))
    assert (series.steps.to_decimals(), series.times_ms.tolist(), series.values.tolist()) == (
        [Decimal("1.5")],
        [1000],
        [2.0],
    )
    assert _fields(chunks)["p"] == Field("p", "string", "x")


def test_a_run_without_sys_fields_is_listed_and_read(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)])
    (run,) = ArchiveReader(paths_in(tmp_path)).runs(RUN.project)
    assert (run.id, run.created_ms, run.parent, run.archived) == ("RUN-1", None, None, False)


def test_archived_runs_are_known_by_either_field(tmp_path: Path) -> None:
    for path in ("sys/trashed", "sys/archived"):
        run = RunRef(project=RUN.project, id=RunId(path))
        rows = [{"attribute_path": path, "attribute_type": "bool", "bool_value": True}]
        write_exporter_part(tmp_path, 0, [*rows, _point("a", "1", 1.0), _point("z", "1", 1.0)], run)
    assert [run.archived for run in ArchiveReader(paths_in(tmp_path)).runs(RUN.project)] == [True, True]


def test_the_name_on_disk_says_nothing_the_columns_everything(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)], prefix="a_part_0-bce0455cfae7e0b4")
    (run,) = ArchiveReader(paths_in(tmp_path)).runs(RUN.project)
    assert run.id == "RUN-1"
    assert len(read(tmp_path, run)) == 3
    assert len(read(tmp_path, RUN)) == 3


def test_two_files_that_claim_one_run_are_refused(tmp_path: Path) -> None:
    for prefix in ("one", "two"):
        write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)], prefix=prefix)
    with pytest.raises(BadInput, match="one and two"):
        list(ArchiveReader(paths_in(tmp_path)).runs(RUN.project))


def test_runs_of_two_projects_in_one_folder_stay_apart(tmp_path: Path) -> None:
    other = RunRef(project=ProjectId("ws/other"), id=RUN.id)
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)])
    path = write_exporter_part(tmp_path, 0, [_point("n", "1", 1.0)], other)
    shutil.move(path, project_folder(tmp_path / "data", RUN.project) / "foreign_part_0.parquet")
    reader = ArchiveReader(paths_in(tmp_path))
    assert list(reader.projects()) == ["ws/other", "ws/proj"]
    for project, field in (("ws/proj", "m"), ("ws/other", "n")):
        (run,) = reader.runs(ProjectId(project))
        assert [path for path, _ in points_of_kind(_chunks(reader, run), FloatPoints)] == [field]


def test_what_the_archive_does_not_have_is_not_found(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)])
    with pytest.raises(NotFound, match="RUN-2") as caught:
        read(tmp_path, RunRef(project=RUN.project, id=RunId("RUN-2")))
    assert "RUN-1" in caught.value.hint
    with pytest.raises(NotFound):
        list(ArchiveReader(paths_in(tmp_path / "nowhere")).projects())


def test_state_folders_and_temporary_files_are_no_runs(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)])
    (tmp_path / "data" / ".shardmig" / "spools").mkdir(parents=True)
    (project_folder(tmp_path / "data", RUN.project) / "x_part_0.parquet.tmp").touch()
    reader = ArchiveReader(paths_in(tmp_path))
    assert [run.id for run in reader.runs(RUN.project)] == ["RUN-1"]


def test_parts_without_a_part_0_are_a_run_that_fails_when_it_is_read(tmp_path: Path) -> None:
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)])
    (project_folder(tmp_path / "data", RUN.project) / "x_part_1.parquet").touch()
    reader = ArchiveReader(paths_in(tmp_path))
    whole, cut = reader.runs(RUN.project)
    assert (whole.id, cut.id) == ("RUN-1", "x")
    with pytest.raises(BadInput, match=r"x_part_0\.parquet"):
        list(reader.read(cut, Want()))


def test_a_damaged_run_is_listed_in_its_own_project_alone(tmp_path: Path) -> None:
    other = RunRef(project=ProjectId("ws/other"), id=RunId("RUN-2"))
    lost = RunRef(project=ProjectId("ws/lost"), id=RunId("RUN-3"))
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)])
    write_exporter_part(tmp_path, 0, [_point("m", "1", 1.0)], other)
    (project_folder(tmp_path / "data", other.project) / "broken_part_0.parquet").write_bytes(b"PAR1")
    write_exporter_part(tmp_path, 0, [], lost).write_bytes(b"PAR1")
    reader = ArchiveReader(paths_in(tmp_path))
    folder = project_folder(tmp_path / "data", lost.project).name
    listed = {project: [run.id for run in reader.runs(project)] for project in reader.projects()}
    assert listed.pop(ProjectId(folder)) != []
    assert listed == {RUN.project: ["RUN-1"], other.project: ["RUN-2", "broken"]}


def test_only_selected_fields_are_read(tmp_path: Path) -> None:
    rows = [_point("metrics/a", "1", 1.0), _point("metrics/b", "1", 1.0), _point("sys/x", "1", 1.0)]
    write_exporter_part(tmp_path, 0, [*rows, {"attribute_path": "p", "attribute_type": "int", "int_value": 1}])
    for selection, expected in (
        (Selection(attributes=("metrics/.*",)), ["metrics/a", "metrics/b"]),
        (Selection(attributes=("metrics/b", "sys/x")), ["metrics/b", "sys/x"]),
        (Selection(exclude_attributes="sys"), ["metrics/a", "metrics/b"]),
        (Selection(classes=("parameters",)), []),
    ):
        chunks = read(tmp_path, selection=selection)
        assert [path for path, _ in points_of_kind(chunks, FloatPoints)] == expected


def test_a_large_disordered_run_is_read_in_order(tmp_path: Path) -> None:
    """Rows as neptune-exporter writes them: all series interleaved by step, several parts and row groups."""
    random = np.random.default_rng(3)
    for number in range(3):
        path = write_exporter_part(tmp_path, number, [])
        steps = random.permutation(200_000)
        table = pa.table(
            {
                "project_id": ["ws/proj"] * 200_000,
                "run_id": ["RUN-1"] * 200_000,
                "attribute_path": [f"m/{step % 3}" for step in steps],
                "attribute_type": ["float_series"] * 200_000,
                "step": pa.array(steps).cast(pa.decimal128(19, 0)).cast(pa.decimal128(18, 0)),
                "float_value": steps * 2.0,
            }
        )
        pq.write_table(table, path, row_group_size=70_000)
    chunks = read(tmp_path, chunk_points=50_000)
    sizes = [len(chunk.times_ms) for chunk in chunks if isinstance(chunk, FloatPoints)]
    assert sum(sizes) == 600_000
    assert max(sizes) <= 50_000
    by_series: dict[str, list[Any]] = {}
    for name, series in points_of_kind(chunks, FloatPoints):
        assert (np.diff(series.steps.units) >= 0).all()
        assert np.array_equal(series.steps.units * 2.0, series.values)
        by_series.setdefault(name, []).append(series.steps.units)
    assert list(by_series) == ["m/0", "m/1", "m/2"]
    assert all((np.diff(np.concatenate(parts)) >= 0).all() for parts in by_series.values())
