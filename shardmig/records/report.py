"""What the coordinator tells people while and after it executes."""

from __future__ import annotations

import msgspec

from shardmig.records.chunks import RunRef
from shardmig.records.ids import MigrationId, ProjectId, ShardId
from shardmig.records.outcome import RunOutcome
from shardmig.records.plan import Counters, Failure, Phase


class PhaseProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One phase over the whole plan, earlier executions included. weight: estimated cost, see `planner.cost`."""

    phase: Phase
    shards: int = 0
    shards_settled: int = 0
    shards_in_flight: int = 0
    runs: int = 0
    runs_done: int = 0
    runs_skipped: int = 0
    runs_failed: int = 0
    weight: int = 0
    weight_settled: int = 0
    counters: Counters = Counters()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `moved` is what this execution moved so far, in-flight attempts included; eta_s None = unknown.

    Before there is a plan there are no phases: the source is listed, and `listed` is how many runs it gave so far."""

    migration: MigrationId
    phases: list[PhaseProgress]
    elapsed_s: float
    eta_s: float | None
    moved: Counters
    message: str = ""
    listed: int = 0


class FailedRun(msgspec.Struct, frozen=True):
    """A run that did not make it, where its log is, and the exact command that retries it."""

    phase: Phase
    shard: ShardId
    outcome: RunOutcome
    retry_command: str
    log: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution ended. Outcomes are the latest of every run of the plan, by phase. refused: projects whose runs
    the source could not list. gone: runs that failed in the execution before, and that the source no longer has."""

    migration: MigrationId
    exit_code: int
    phases: list[PhaseProgress]
    outcomes: dict[Phase, list[RunOutcome]]
    failed: list[FailedRun]
    step_multiplier: int
    elapsed_s: float
    logs: str
    stopped: str = ""
    refused: dict[ProjectId, Failure] = {}
    gone: list[RunRef] = []


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one shard stands in one phase, and why it will or will not execute. straggles: its attempt lasts much longer
    than its weight suggests."""

    shard: ShardId
    phase: Phase
    runs: int
    runs_done: int
    runs_failed: int
    state: str
    why: str
    attempts: int
    started_ms: int | None = None
    ended_ms: int | None = None
    straggles: bool = False
