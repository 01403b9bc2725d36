"""Verify one shard: every run of it, archive against target."""

from __future__ import annotations

from collections.abc import Callable

from shardmig.adapters.registry import open_target
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import UsageError
from shardmig.records import RunOutcome, RunRef, Task
from shardmig.worker.outcomes import settle_each
from shardmig.worker.tally import ProgressFile
from shardmig.worker.verify import verify_run


def verify_shard(task: Task, progress: ProgressFile, done: Callable[[RunOutcome], None]) -> None:
    """Verify every run of the shard and tell each outcome. A run that cannot be read does not stop the others."""
    if task.target is None:
        raise UsageError("verify needs a target")
    archive = ArchiveReader(task.archive)
    target = open_target(task.target, task.load)
    target.expect(task.shard.runs)

    def verified(run: RunRef) -> RunOutcome:
        outcome = verify_run(run, archive=archive, target=target, selection=task.selection, sample=task.sample)
        progress.add(outcome.counters)
        return outcome

    try:
        settle_each(task.shard.runs, verified, done)
    finally:
        target.close()
