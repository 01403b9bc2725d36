"""Folders and databases that real clients of several years left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.neptune_local.local_data import SAMPLES, read_all, tree_state


def test_every_sample_is_found_and_read(tmp_path: Path) -> None:
    runs = read_all(SAMPLES, tmp_path)
    assert {run.ref.project for run in runs.values()} == {"ws/project", "ws/three"}
    assert set(runs) == {"offline-3aa70d9d", "offline-47a3d97c", "offline-8dd15815", "offline-f4665e19", "old-run"}


@pytest.mark.parametrize("run_id", ["offline-3aa70d9d", "offline-f4665e19"])
def test_an_offline_run_of_client_1_8_6_and_0_16_18_is_whole(run_id: str, tmp_path: Path) -> None:
    run = read_all(SAMPLES, tmp_path)[run_id]
    assert run.scalars["p/a"] == 1
    assert run.scalars["p/s"] == "x"
    assert run.scalars["p/dt"] == 1_704_067_200_000
    assert run.scalars["sys/tags"] == ["a", "b"]
    assert run.scalars["shardmig/source"] == "offline"
    assert [(step, value) for step, _, value in run.series["m"]] == [("0", 0.0), ("1", 1.0), ("2", 2.0)]
    assert [time for _, time, _ in run.series["m"]] == [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002_000]
    assert [(step, value) for step, _, value in run.series["log"]] == [("0", "l0"), ("1", "l1")]
    assert run.files["f/c"][0].name == "c.md"
    (image,) = run.files["img"]
    assert (str(image.step), image.name) == ("3", "img.png")
    assert run.stored["img: img.png"].startswith(b"\x89PNG")
    assert run.findings == []


def test_a_killed_async_run_gives_its_acknowledged_and_its_pending_records(tmp_path: Path) -> None:
    run = read_all(SAMPLES, tmp_path)["offline-47a3d97c"]
    assert [(step, value) for step, _, value in run.series["m/x"]] == [(str(n), float(n)) for n in range(200)]
    assert run.scalars["p/b"] == "after"
    assert run.scalars["shardmig/source"] == "async"
    assert run.stored["f/d: d.txt"]
    (gone,) = run.findings
    assert (gone.kind, gone.code, gone.field) == ("gap", "uploaded-file-gone", "f/c")


def test_acknowledged_records_can_be_left_out(tmp_path: Path) -> None:
    run = read_all(SAMPLES, tmp_path, include_acked="no")["offline-47a3d97c"]
    assert [value for _, _, value in run.series["m/x"]] == [float(n) for n in range(100, 200)]
    assert "sys/name" not in run.scalars
    (left_out,) = run.findings
    assert (left_out.kind, left_out.code, left_out.count) == ("note", "acknowledged-left-out", 111)


def test_a_process_folder_of_client_1_8_6_is_one_run(tmp_path: Path) -> None:
    run = read_all(SAMPLES, tmp_path)["offline-8dd15815"]
    assert len(run.series["m/x"]) == 60
    assert run.ref.created_ms == 1_795_257_373_299
    assert run.findings == []


def test_a_database_of_version_3_is_read_with_its_buffer_beside_it(tmp_path: Path) -> None:
    run = read_all(SAMPLES, tmp_path)["old-run"]
    assert run.logged() == {
        "p/a": 1,
        "p/s": "x",
        "sys/tags": ["t"],
        "sys/name": "e",
        "sys/experiment/name": "e",
    }
    assert [(step, value) for step, _, value in run.series["m"]] == [(str(n), float(n)) for n in range(5)]
    assert run.series["s"] == [("1", 1_795_254_347_902, "hello")]
    assert len(run.stored["f: f.bin"]) == 5
    assert run.findings == []


def test_nothing_on_disk_changes_not_even_a_time(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(SAMPLES, copy)
    before = tree_state(copy)
    read_all(copy, tmp_path / "archive")
    assert tree_state(copy) == before
