"""What crosses between coordinator and worker, and what the journal keeps."""

from __future__ import annotations

from typing import Literal

import msgspec

from shardmig.records.chunks import Finding, RunRef
from shardmig.records.ids import MigrationId, ProjectId, RunId, ShardId, TargetRunId
from shardmig.records.plan import (
    FORMAT_VERSION,
    AdapterSpec,
    ArchivePaths,
    Counters,
    Failure,
    LoadOptions,
    Phase,
    Selection,
    Shard,
    StepNeeds,
)

Verdict = Literal["equal", "approximated", "differs", "missing"]


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended in one attempt.

    done     published (export), complete (load), equal or approximated (verify)
    skipped  it was already done; nothing was moved
    failed   `failure` says why, or `findings` hold losses, or the verdict is differs or missing
    """

    run: RunRef
    state: Literal["done", "skipped", "failed"]
    target_id: TargetRunId | None = None
    digest: str = ""
    counters: Counters = Counters()
    steps: StepNeeds = StepNeeds()
    findings: list[Finding] = []
    failure: Failure | None = None
    verdict: Verdict | None = None
    differences: list[Finding] = []
    name_changes: int = 0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one phase of one shard: all that a worker may know.

    spool: folder for staging. log: file of this attempt, appended to. progress: file that the worker rewrites
    while it works. parents: target ids of runs that runs of this shard name as parent; "" for one of this plan
    that did not arrive. sample: 0 = everything,
    else verify reads about one in `sample` series fields and files. predict: a survey also says what the target would
    change. lessor: where workers on other computers lease from the rate budgets; a secret is in it.
    """

    migration: MigrationId
    phase: Phase
    shard: Shard
    attempt: int
    source: AdapterSpec
    archive: ArchivePaths
    target: AdapterSpec | None
    selection: Selection
    load: LoadOptions
    spool: str
    log: str
    progress: str
    chunk_points: int = 250_000
    part_bytes: int = 50 * 1024 * 1024
    compression: Literal["zstd", "snappy", "none"] = "zstd"
    parents: dict[RunId, TargetRunId] = {}
    sample: int = 0
    predict: bool = False
    lessor: str = ""


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker returns. `failure`: why the attempt ended before all runs were reached; those are not in `runs`.

    log: of the attempt, where the worker could not write it to the coordinator's disk; never in the journal.
    """

    shard: ShardId
    phase: Phase
    attempt: int
    runs: list[RunOutcome]
    failure: Failure | None = None
    started_ms: int = 0
    ended_ms: int = 0
    log: bytes = b""


class ShardOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a process that executed one shard of a plan file leaves behind. `plan`: digest of the file. results: what
    is known of the shard's runs, phase by phase."""

    plan: str
    shard: ShardId
    exit_code: int
    results: list[TaskResult]
    format_version: int = FORMAT_VERSION


class Started(msgspec.Struct, frozen=True, tag=True):
    """Journal: a coordinator began (again). `looks_again`: what was brought is asked for in the archive and the target
    once more, since the command had been carried out to its end before."""

    at_ms: int
    fingerprint: str
    workers: int
    engine: str
    looks_again: bool = False


class Extended(msgspec.Struct, frozen=True, tag=True):
    """Journal: shards were added to the plan (new runs in the source, or a retry). `refused`: the source was listed,
    but for these projects; None = it was not, and what was refused before still is. `gone`: runs that failed, and that
    the source no longer lists; they are of the plan no more."""

    at_ms: int
    shards: list[Shard]
    refused: dict[ProjectId, Failure] | None = None
    gone: list[RunRef] = []


class MultiplierChosen(msgspec.Struct, frozen=True, tag=True):
    """Journal: the step multiplier of the whole load; never changes afterwards."""

    at_ms: int
    step_multiplier: int


class AttemptStarted(msgspec.Struct, frozen=True, tag=True):
    """Journal: intent. For a load: runs of this shard may now exist in the target, half written."""

    at_ms: int
    phase: Phase
    shard: ShardId
    attempt: int


class AttemptEnded(msgspec.Struct, frozen=True, tag=True):
    """Journal: an attempt ended with a result, or was lost (`failure`, no result)."""

    at_ms: int
    result: TaskResult | None
    phase: Phase
    shard: ShardId
    attempt: int
    failure: Failure | None = None


class Compacted(msgspec.Struct, frozen=True, tag=True):
    """Journal: what the lines that a shorter journal no longer has had counted. `gone`: shards of the plan that were cut
    into others, or whose runs the source no longer has."""

    executions: int
    shards_made: int
    attempts: list[tuple[Phase, ShardId, int]]
    gone: list[ShardId] = []


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Journal: a coordinator ended on its own terms."""

    at_ms: int
    exit_code: int


JournalLine = Started | Extended | MultiplierChosen | AttemptStarted | AttemptEnded | Compacted | Finished
