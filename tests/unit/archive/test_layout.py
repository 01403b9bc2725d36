from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.archive.layout import archive_paths, parse_part, part_name, sanitize, staged
from shardmig.records import FloatPoints, RunId, RunRef
from tests.unit.archive.runs import RUN, floats, parts_in, points_of_kind, publish, read


@pytest.mark.parametrize(
    ("id_", "name"),
    [
        ("org/project", "org_project-ea8dfac2f8d8c39c"),
        ("my-project_123", "my-project_123-b1846f7fea709615"),
        ("RUN-1", "RUN-1-549fcb30a0f06072"),
        ("sweep/calm-run.00000", "sweep_calm-run_00000-b5b3df5a65fd7d2a"),
        ("żółw", "żółw-70d5555a8fc1103a"),
        ("", "-e4a6a0577479b2b4"),
    ],
)
def test_names_are_those_of_neptune_exporter(id_: str, name: str) -> None:
    assert sanitize(id_) == name


@pytest.mark.parametrize("id_", ["a" * 219, "a" * 220, "a" * 10_000, "ż" * 300, "😀" * 300, "a" * 218 + "é"])
def test_every_name_fits_a_file_system_with_every_ending(id_: str) -> None:
    for number in (0, 9, 10, 12_345):
        path = Path(part_name(sanitize(id_), number))
        assert len(path.name.encode()) <= 255
        assert len(staged(path).name.encode()) <= 255
        assert str(number) in staged(path).name
    assert sanitize(id_)[-16:] == sanitize(id_[:-1] + id_[-1:])[-16:]


def test_the_longest_id_that_neptune_exporter_takes_is_named_as_it_names_it() -> None:
    assert sanitize("a" * 219).startswith("a" * 219 + "-")


@pytest.mark.parametrize(
    "id_", ["../../etc/passwd", "a\0b", "nul\n", "\u202egnp.exe", "C:\\x", ".hidden", "a" * 5000, "'; drop", "\ud800"]
)
def test_hostile_ids_become_plain_names(id_: str) -> None:
    assert set(sanitize(id_)) & set("/\\\0\n:.'\u202e") == set()


def test_ids_that_differ_in_case_or_normal_form_have_names_that_differ_in_more() -> None:
    assert sanitize("Run").casefold() != sanitize("run").casefold()
    assert sanitize("é")[-16:] != sanitize("e\u0301")[-16:]


def test_only_the_last_part_number_of_a_name_counts() -> None:
    assert parse_part("a_part_0-bce0455cfae7e0b4_part_12.parquet") == ("a_part_0-bce0455cfae7e0b4", 12)
    assert parse_part("a_part_0.parquet.tmp") is None
    assert parse_part("a_part_01.parquet") is None


@pytest.mark.parametrize("id_", ["a_part_0", "x" * 300, "ż" * 300, "a\nb", "..", "Run", "run", "\u202eabc", "q'\"q"])
def test_a_run_of_any_id_is_published_and_read_back(tmp_path: Path, id_: str) -> None:
    run = RunRef(project=RUN.project, id=RunId(id_))
    publish(tmp_path, [floats("m", [1], [2.0])], run)
    assert [path for path, _ in points_of_kind(read(tmp_path, run), FloatPoints)] == ["m"]


def test_a_shorter_export_replaces_a_longer_one_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    many = [floats(f"m{index}", range(200_000), [float(step) / 7 for step in range(200_000)]) for index in range(2)]
    publish(tmp_path, many, part_bytes=1)
    assert len(parts_in(tmp_path)) > 1
    publish(tmp_path, [floats("m", [1], [2.0])])
    assert parts_in(tmp_path) == ["RUN-1-549fcb30a0f06072_part_0.parquet"]
    assert [path for path, _ in points_of_kind(read(tmp_path), FloatPoints)] == ["m"]


def test_what_a_killed_attempt_staged_is_removed(tmp_path: Path) -> None:
    publish(tmp_path, [floats("m", [1], [2.0])])
    (folder,) = (tmp_path / "data").iterdir()
    for number in range(3):
        staged(folder / part_name("RUN-1-549fcb30a0f06072", number)).write_bytes(b"torn")
    publish(tmp_path, [floats("m", [1], [2.0])])
    assert parts_in(tmp_path) == ["RUN-1-549fcb30a0f06072_part_0.parquet"]


def test_the_folders_of_an_archive_are_guessed_as_neptune_exporter_names_them(tmp_path: Path) -> None:
    (tmp_path / "exports" / "data").mkdir(parents=True)
    for given in (tmp_path / "exports", tmp_path / "exports" / "data"):
        assert archive_paths(given).data == str(tmp_path / "exports" / "data")
        assert archive_paths(given).files == str(tmp_path / "exports" / "files")
    assert archive_paths(tmp_path / "exports" / "model_data").files == str(tmp_path / "exports" / "model_files")
    assert archive_paths(tmp_path / "exports", "/elsewhere").files == "/elsewhere"
