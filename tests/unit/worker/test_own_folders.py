"""A worker on a computer that does not see the coordinator's disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from shardmig import codec
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    LoadOptions,
    MigrationId,
    Selection,
    Shard,
    ShardId,
    Task,
    TaskResult,
)
from shardmig.worker.task import execute


def executed(coordinator: Path, archive: Path) -> TaskResult:
    (archive / "data").mkdir(parents=True)
    paths = ArchivePaths(str(archive / "data"), str(archive / "files"))
    task = Task(
        migration=MigrationId("m1"),
        phase="survey",
        shard=Shard(id=ShardId("s1"), scope="runs", runs=()),
        attempt=1,
        source=AdapterSpec("archive", {"data": paths.data, "files": paths.files}),
        archive=paths,
        target=None,
        selection=Selection(),
        load=LoadOptions(),
        spool=str(coordinator / "spool"),
        log=str(coordinator / "logs" / "survey-s1-1.jsonl"),
        progress=str(coordinator / "spool" / "survey-s1.progress"),
    )
    result: TaskResult = codec.decode(execute(codec.encode(task)), TaskResult)
    assert result.failure is None
    return result


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_log_comes_back_with_the_result_and_nothing_is_written_where_the_disk_would_be(tmp_path: Path) -> None:
    result = executed(tmp_path / "elsewhere", tmp_path)
    assert b"attempt.ended" in result.log
    assert not (tmp_path / "elsewhere").exists()
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_log_on_a_shared_disk_stays_there(tmp_path: Path) -> None:
    (tmp_path / "shared" / "spool").mkdir(parents=True)
    result = executed(tmp_path / "shared", tmp_path)
    assert result.log == b""
    assert "attempt.ended" in (tmp_path / "shared" / "logs" / "survey-s1-1.jsonl").read_text()
