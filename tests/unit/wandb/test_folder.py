"""Run folders on a disk: what a killed worker left there, and what lies where."""

from __future__ import annotations

from pathlib import Path

from shardmig.adapters.base import migration_key
from shardmig.adapters.conformance import plain_run
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.folder import FolderRun
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Chunk, Header, LoadOptions, TargetRunId


def write(root: Path, chunks: list[Chunk], parent: str | None = None) -> str:
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(root)}, LoadOptions(step_multiplier=1))
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), header.run.project)
    parent_id = None if parent is None else TargetRunId(parent)
    return target.write_run(migration_key(header.run), "d", iter(chunks), nowhere, parent_id).id


def test_what_a_killed_worker_left_is_gone_after_the_next_load(tmp_path: Path) -> None:
    header = plain_run()[0]
    assert isinstance(header, Header)
    left = tmp_path / f".writing-{migration_key(header.run)}"
    (left / "files").mkdir(parents=True)
    (left / "files" / "half").write_bytes(b"half")
    run_id = write(tmp_path, plain_run())
    assert [path.name for path in tmp_path.iterdir()] == [f"offline-run-{run_id}"]


def test_a_run_that_is_not_whole_lies_where_wandb_sync_does_not_look(tmp_path: Path) -> None:
    run_id = write(tmp_path, plain_run()[:-1])
    assert [path.name for path in tmp_path.iterdir()] == [f"partial-run-{run_id}"]
    write(tmp_path, plain_run())
    assert [path.name for path in tmp_path.iterdir()] == [f"offline-run-{run_id}"]


def test_a_parent_that_came_later_is_noted_and_nothing_else_changes(tmp_path: Path) -> None:
    child = plain_run(run_id="RUN-2", parent="RUN-1")
    run_id = write(tmp_path, child)
    held = FolderRun(tmp_path / f"offline-run-{run_id}", TargetRunId(run_id))
    before = list(held.log.records())
    write(tmp_path, child, parent="f" * 32)
    again = FolderRun(tmp_path / f"offline-run-{run_id}", TargetRunId(run_id))
    assert again.block is not None
    assert again.block.parent == "f" * 32
    assert [one == other for one, other in zip(again.log.records(), before, strict=True)].count(False) == 1
