"""Reports as the coordinator makes them, with names that are out to do harm."""

from __future__ import annotations

from shardmig.records import (
    Counters,
    FailedRun,
    Failure,
    Finding,
    MigrationId,
    PhaseProgress,
    ProjectId,
    Report,
    RunId,
    RunOutcome,
    RunRef,
    ShardId,
    StepNeeds,
    TargetRunId,
)

HOSTILE = "\x1b[31m</td><script>alert('1')</script>\n\u202emetrics"


def run(name: str) -> RunRef:
    return RunRef(project=ProjectId("ws/proj"), id=RunId(name), created_ms=1_700_000_000_000)


def failed_load() -> Report:
    """A load of three runs: one whole with approximations, one with a lost file, one not reached."""
    moved = Counters(runs=1, fields=3, points=1_234_567, files=2, bytes=5_000_000)
    whole = RunOutcome(
        run=run("RUN-1"),
        state="done",
        target_id=TargetRunId("a1b2"),
        counters=moved,
        steps=StepNeeds(2, "0", "99.5"),
        findings=[
            Finding("approximation", "infinity", "metrics/a", 3),
            Finding("approximation", "infinity", HOSTILE, 1),
        ],
        name_changes=1,
    )
    lost = RunOutcome(
        run=run(HOSTILE),
        state="failed",
        findings=[Finding("loss", "file-missing", HOSTILE, 2, "it is gone")],
        failure=Failure(
            "LostValues", "permanent", "file-missing: it is gone (and 1 more)", field=HOSTILE, hint="bring it back"
        ),
    )
    failed = FailedRun("load", ShardId("00001"), lost, "shardmig retry --shard 00001", "/logs/load-00001-1.jsonl")
    phase = PhaseProgress(
        phase="load",
        shards=2,
        shards_settled=2,
        runs=3,
        runs_done=1,
        runs_failed=1,
        weight=100,
        weight_settled=50,
        counters=moved,
    )
    return Report(
        migration=MigrationId("survey-load-0123456789ab"),
        exit_code=3,
        phases=[phase],
        outcomes={"load": [whole, lost]},
        failed=[failed],
        step_multiplier=2,
        elapsed_s=12.3,
        logs="/logs",
    )
