"""A listing of an archive is remembered: what did not change is not opened again, and what changed is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.many_runs import write_many
from shardmig.adapters.archive import open_source
from shardmig.archive.places import names_in
from shardmig.records import ArchivePaths, ProjectId, RunRef, Selection

OLD_NS = time.time_ns() - 10**10


class Archive:
    """Five runs, and a memory of their listing."""

    def __init__(self, folder: Path) -> None:
        self.paths: ArchivePaths = write_many(folder, 5)
        self.memory = folder / "state" / "listing"
        self.parts = sorted(Path(self.paths.data).glob("*/*.parquet"))
        for part in self.parts:
            os.utime(part, ns=(OLD_NS, OLD_NS))

    def listed(self, *, remembering: bool = True) -> list[RunRef]:
        options = {"data": self.paths.data, "files": self.paths.files}
        source = open_source(options | ({"memory": str(self.memory)} if remembering else {}))
        projects = list(source.list_projects(Selection()))
        runs = [run for project in projects for run in source.list_runs(project, Selection())]
        source.close()
        return runs

    def make_unreadable(self, part: Path) -> None:
        """Other bytes in what looks like the same file."""
        part.write_bytes(b"x" * part.stat().st_size)
        os.utime(part, ns=(OLD_NS, OLD_NS))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_what_did_not_change_is_not_opened_again(archive: Archive) -> None:
    first = archive.listed()
    for part in archive.parts:
        archive.make_unreadable(part)
    assert archive.listed() == first
    assert archive.listed(remembering=False) != first


def _remove(archive: Archive) -> None:
    archive.parts[1].unlink()


def _replace(archive: Archive) -> None:
    copy = archive.parts[1].with_suffix(".tmp")
    copy.write_bytes(archive.parts[1].read_bytes()[:-1])
    copy.replace(archive.parts[1])


def _touch(archive: Archive) -> None:
    archive.make_unreadable(archive.parts[1])
    os.utime(archive.parts[1], ns=(OLD_NS, OLD_NS + 1))


def _publish(archive: Archive) -> None:
    write_many(archive.memory.parents[1], 7)


@pytest.mark.parametrize("change", [_remove, _replace, _touch, _publish])
def test_a_change_is_seen(archive: Archive, change: Callable[[Archive], None]) -> None:
    before = archive.listed()
    change(archive)
    assert archive.listed() == archive.listed(remembering=False)
    assert archive.listed() != before


def test_a_file_that_changed_just_now_is_looked_at_again(archive: Archive) -> None:
    now_ns = time.time_ns()
    os.utime(archive.parts[0], ns=(now_ns, now_ns))
    first = archive.listed()
    content = archive.parts[0].read_bytes()
    archive.parts[0].write_bytes(b"x" * len(content))
    os.utime(archive.parts[0], ns=(now_ns, now_ns))
    assert archive.listed() != first


@pytest.mark.parametrize("content", [b"", b"something else", b"shardmig frames 1\n\x05\x00\x00\x00torn"])
def test_a_memory_that_cannot_be_read_is_none(archive: Archive, content: bytes) -> None:
    first = archive.listed()
    archive.memory.write_bytes(content)
    assert archive.listed() == first


def test_where_nothing_can_be_remembered_a_listing_is_as_ever(archive: Archive) -> None:
    archive.memory.parent.write_text("a file where the folder should be")
    assert len(archive.listed()) == 5
    assert {run.project for run in archive.listed()} == {ProjectId("bench/project")}


def test_the_names_of_a_folder_are_read_anew_once_it_changed(tmp_path: Path) -> None:
    (tmp_path / "run_part_0.parquet").touch()
    (tmp_path / "other_part_0.parquet").touch()
    os.utime(tmp_path, ns=(OLD_NS, OLD_NS))
    assert list(names_in(tmp_path, "run_part_")) == ["run_part_0.parquet"]
    (tmp_path / "run_part_1.parquet").touch()
    assert sorted(names_in(tmp_path, "run_part_")) == ["run_part_0.parquet", "run_part_1.parquet"]
    os.utime(tmp_path, ns=(OLD_NS, OLD_NS + 1))
    assert list(names_in(tmp_path, "run_part_")) == ["run_part_0.parquet", "run_part_1.parquet"]
