"""Survey one shard: what its runs hold, what their steps need, and what a target would change. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shardmig.adapters.base import STEP_CODES, ReadSide, Want, WriteSide
from shardmig.adapters.registry import open_source, open_target
from shardmig.archive.digest import RunDigest
from shardmig.archive.files import DigestSink
from shardmig.archive.reader import ArchiveReader
from shardmig.records import End, Finding, LoadOptions, RunOutcome, RunRef, Task
from shardmig.selection import Matcher
from shardmig.worker.outcomes import merged, settle_each
from shardmig.worker.tally import ProgressFile, count


def survey_shard(task: Task, progress: ProgressFile, done: Callable[[RunOutcome], None]) -> None:
    """Survey every run of the shard. A receipt answers without reading, unless predictions are asked for."""
    source = open_source(task.source)
    target = open_target(task.target, _load_options(task)) if task.predict and task.target is not None else None

    def surveyed(run: RunRef) -> RunOutcome:
        known = None if task.predict else _from_receipt(run, task)
        return known or _by_reading(run, task, source, target, progress)

    try:
        settle_each(task.shard.runs, surveyed, done)
    finally:
        source.close()
        if target is not None:
            target.close()


def _load_options(task: Task) -> LoadOptions:
    """Under "auto" the multiplier will keep every step, whatever it becomes: predict everything but steps."""
    if task.load.step_multiplier:
        return task.load
    return msgspec.structs.replace(task.load, step_multiplier=1, allow_step_merge=True)


def _from_receipt(run: RunRef, task: Task) -> RunOutcome | None:
    if task.source.name != "archive" or not Matcher(task.selection).takes_every_field:
        return None
    receipt = ArchiveReader(task.archive).receipt(run)
    if receipt is None:
        return None
    return RunOutcome(
        run=run,
        state="done",
        digest=receipt.digest,
        counters=receipt.counters,
        steps=receipt.steps,
        findings=[finding for finding in receipt.findings if finding.kind != "loss"],
    )


def _by_reading(
    run: RunRef, task: Task, source: ReadSide, target: WriteSide | None, progress: ProgressFile
) -> RunOutcome:
    whole = RunDigest()
    findings: list[Finding] = []
    want = Want(selection=task.selection, chunk_points=task.chunk_points)
    for piece in source.read_runs([run], want, DigestSink()):
        whole.add(piece.chunk)
        progress.add(count(piece.chunk))
        if isinstance(piece.chunk, End):
            findings += piece.chunk.findings
        elif target is not None:
            findings += [
                finding
                for finding in target.fit(piece.chunk).findings
                if task.load.step_multiplier or finding.code not in STEP_CODES
            ]
    return RunOutcome(
        run=run,
        state="done",
        digest=whole.digest(),
        counters=whole.counters(),
        steps=whole.steps(),
        findings=merged(findings),
        name_changes=sum(finding.count for finding in findings if finding.code == "name-changed"),
    )
