"""A run that the source had when it was listed, and has no more: told of by name once, then the plan goes on without."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shardmig.archive.layout import project_folder, sanitize
from shardmig.archive.reader import ArchiveReader
from shardmig.cli.app import execute
from shardmig.records import RunId
from tests.unit.archive.runs import RUN, floats, paths_in, publish

OTHER = msgspec.structs.replace(RUN, id=RunId("RUN-2"))
EXPORT = ["export", "--source", "archive", "source/data", "source/files", "-d", "copy/data", "-f", "copy/files"]


def export() -> int:
    return execute([*EXPORT, "--engine", "inline", "--no-progress"])


def test_a_run_that_is_gone_fails_once_and_comes_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (RUN, OTHER):
        publish(tmp_path / "source", [floats("m", [1], [2.0])], run)
    part = project_folder(tmp_path / "source" / "data", RUN.project) / f"{sanitize(OTHER.id)}_part_0.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-100])
    assert export() == 3
    part.unlink()
    capsys.readouterr()
    assert export() == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "gap (run-gone): 1 run failed before, and the source no longer has: ws/proj/RUN-2" in told
    assert export() == 0
    assert "RUN-2" not in capsys.readouterr().err
    assert execute(["retry", "--failed", "-d", "copy/data", "--engine", "inline", "--no-progress"]) == 0
    part.write_bytes(content)
    assert export() == 0
    assert [run.id for run in ArchiveReader(paths_in(tmp_path / "copy")).runs(RUN.project)] == ["RUN-1", "RUN-2"]


def test_a_run_that_is_no_longer_in_the_archive_fails_to_load_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (RUN, OTHER):
        publish(tmp_path, [floats("m", [1], [2.0])], run)
    load = ["load", "-d", "data", "-f", "files", "--target", "comet", "--target-option", "offline-dir=comet"]
    load += ["--engine", "inline", "--no-progress"]
    assert execute(load) == 0
    (project_folder(tmp_path / "data", RUN.project) / f"{sanitize(OTHER.id)}_part_0.parquet").unlink()
    assert [execute(load), execute(load), execute(load)] == [3, 0, 0]
    assert " ".join(capsys.readouterr().err.split()).count("gap (run-gone): 1 run") == 1
