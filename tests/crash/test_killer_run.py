"""A run that kills whichever worker touches it: it alone fails, and everything beside it arrives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.many_runs import write_many
from shardmig import coordinator, planner
from shardmig.archive.layout import sanitize
from shardmig.archive.reader import ArchiveReader
from shardmig.config import Settings
from shardmig.journal import read
from shardmig.listing import Listing
from shardmig.migration import MigrationFolder, home_of
from shardmig.planner import Request
from shardmig.records import AdapterSpec, ArchivePaths, AttemptEnded

KILLER = "RUN-0000002"
_DIES = f"""
import os, signal, sys

def dies(event, arguments):
    if event == "open" and {sanitize(KILLER)!r} in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(dies)
"""


def test_a_shard_that_kills_its_workers_is_cut_until_the_run_that_does_it_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_many(tmp_path / "source", 4)
    archive = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    asked = Request(
        phases=("export",), source=AdapterSpec("archive", {"data": source.data, "files": source.files}), archive=archive
    )
    plan = planner.freeze(asked, Listing(asked).runs(), created_ms=0)
    runs = tuple(run for shard in plan.shards for run in shard.runs)
    folder = MigrationFolder(home_of(archive), plan.id)
    folder.create()
    folder.write_plan(msgspec.structs.replace(plan, shards=(msgspec.structs.replace(plan.shards[0], runs=runs),)))
    (tmp_path / "killer").mkdir()
    (tmp_path / "killer" / "sitecustomize.py").write_text(_DIES)  # every worker imports it, this process does not
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "killer"))

    report = coordinator.execute(asked, Settings(workers=1, max_attempts=2))

    assert report.exit_code == 3
    (failed,) = report.failed
    assert failed.outcome.failure is not None
    assert (failed.outcome.run.id, failed.outcome.failure.error) == (KILLER, "WorkerLost")
    assert "signal 9" in failed.outcome.failure.message
    reader = ArchiveReader(archive)
    assert sorted(run.id for project in reader.projects() for run in reader.runs(project)) == sorted(
        run.id for run in runs if run.id != KILLER
    )
    lines = [line for line, _ in read(folder.journal_file)]
    assert sum(isinstance(line, AttemptEnded) and line.failure is not None for line in lines) == 6  # of 4, 2 and 1 runs
    monkeypatch.delenv("PYTHONPATH")
    assert coordinator.retry(archive, Settings(workers=1), shards=[failed.shard]).exit_code == 0
