"""How an execution ended: exit code, report, and the command that retries each failure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from shardmig.journal import State, run_key
from shardmig.migration import MigrationFolder
from shardmig.progress import Watch, phase_totals
from shardmig.records import (
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    FailedRun,
    Failure,
    MigrationId,
    Phase,
    Report,
    RunOutcome,
    Shard,
    ShardId,
    ShardStatus,
)

COMPLETE: Final = 0
FAILED_RUNS: Final = 3
DIFFERENCES: Final = 5
STOPPED: Final = 7
INTERRUPTED: Final = 130


def exit_code_of(state: State, *, interrupted: bool, fatal: Failure | None, refused: bool = False) -> int:
    """0 only when every run of the plan made it through every phase, and no project was `refused`."""
    if fatal is not None:
        return STOPPED
    missing = [phase for phase in state.plan.phases if any(not state.settled(phase, run) for run in state.runs())]
    if not missing:
        return FAILED_RUNS if refused else COMPLETE
    if interrupted:
        return INTERRUPTED
    if missing == ["verify"] and all(outcome.failure is None for _, outcome in _failures(state)):
        return DIFFERENCES
    return FAILED_RUNS


def was_carried_out(state: State) -> bool:
    """Did the last execution come to its end, whatever became of the runs?"""
    return state.finished is not None and state.finished.exit_code not in (STOPPED, INTERRUPTED)


def report_of(folder: MigrationFolder, state: State, code: int, watch: Watch, fatal: Failure | None) -> Report:
    """Everything the user is told at the end."""
    failed = [
        FailedRun(
            phase=phase,
            shard=shard.id,
            outcome=outcome,
            retry_command=retry_command(folder.id, state.plan.archive, shard.id),
            log=str(folder.log_file(phase, shard.id, state.attempts.get((phase, shard.id), 1))),
        )
        for phase in state.plan.phases
        for shard in state.shards.values()
        for run in shard.runs
        if (outcome := state.outcomes[phase].get(run_key(run))) is not None and outcome.state == "failed"
    ]
    return Report(
        migration=folder.id,
        exit_code=code,
        phases=phase_totals(state),
        outcomes={phase: _outcomes(state, phase) for phase in state.plan.phases},
        failed=failed,
        step_multiplier=state.step_multiplier,
        elapsed_s=watch.elapsed_s,
        logs=str(folder.logs),
        stopped=f"{fatal.message}" + (f" ({fatal.hint})" if fatal.hint else "") if fatal else "",
    )


def retry_command(migration: MigrationId, archive: ArchivePaths, shard: ShardId | None = None) -> str:
    """What to type to execute unfinished runs again: those of a shard, or all."""
    which = ["--failed"] if shard is None else ["--shard", shard]
    return shlex.join(["shardmig", "retry", *which, "--migration", migration, "-d", archive.data])


def statuses(state: State, *, is_executing: bool) -> Iterator[ShardStatus]:
    """Every shard in every phase: its state, and why it will or will not execute. `is_executing`: by a live process."""
    for phase in state.plan.phases:
        for shard in state.shards.values():
            yield _status(state, phase, shard, is_executing)


def _status(state: State, phase: Phase, shard: Shard, is_executing: bool) -> ShardStatus:
    outcomes = [outcome for run in shard.runs if (outcome := state.outcomes[phase].get(run_key(run)))]
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    started = state.open.get((phase, shard.id))
    ended = state.last_ended.get((phase, shard.id))
    if len(outcomes) == len(shard.runs) and not failures:
        word, why = "done", ""
    elif started is not None and is_executing:
        word, why = "executing", f"attempt {started.attempt}"
    elif failures:
        word, why = "failed", f"{len(failures)} of {len(shard.runs)} runs: {_reason(failures[0])}"
    else:
        word, why = "waiting", _waits_for(state, phase, shard, is_executing)
    is_cut = started is not None and not is_executing
    return ShardStatus(
        shard=shard.id,
        phase=phase,
        runs=len(shard.runs),
        runs_done=len(outcomes) - len(failures),
        runs_failed=len(failures),
        state=word,
        why=why,
        attempts=state.attempts.get((phase, shard.id), 0),
        started_ms=_started_ms(started, ended) if not is_cut else None,
        ended_ms=ended.at_ms if ended and started is None else None,
    )


def _started_ms(started: AttemptStarted | None, ended: AttemptEnded | None) -> int | None:
    if started is not None:
        return started.at_ms
    return ended.result.started_ms if ended is not None and ended.result is not None else None


def _reason(failed: RunOutcome) -> str:
    return failed.failure.message if failed.failure is not None else str(failed.verdict or "failed")


def _waits_for(state: State, phase: Phase, shard: Shard, is_executing: bool) -> str:
    before = _phase_before(state, phase)
    if before is not None and all(not state.settled(before, run) for run in shard.runs):
        why = f"needs its {before}, which failed" if _has_failed(state, before, shard) else f"waits for its {before}"
    elif (phase, shard.id) in state.open and not is_executing:
        why = "its attempt was cut off"
    elif failure := _attempt_failure(state, phase, shard):
        why = f"after an attempt that failed: {failure.message}"
    elif phase == "load" and state.step_multiplier == 0:
        why = "waits for the step multiplier, which needs the steps of all runs"
    else:
        why = "waits for a worker" if is_executing else "not reached"
    return why if is_executing else f"{why}; the same command again goes on"


def _phase_before(state: State, phase: Phase) -> Phase | None:
    position = state.plan.phases.index(phase)
    return state.plan.phases[position - 1] if position else None


def _has_failed(state: State, phase: Phase, shard: Shard) -> bool:
    outcomes = (state.outcomes[phase].get(run_key(run)) for run in shard.runs)
    return any(outcome is not None and outcome.state == "failed" for outcome in outcomes)


def _attempt_failure(state: State, phase: Phase, shard: Shard) -> Failure | None:
    """Why the last attempt ended before it reached the runs."""
    ended = state.last_ended.get((phase, shard.id))
    if ended is None:
        return None
    return ended.failure or (ended.result.failure if ended.result is not None else None)


def _outcomes(state: State, phase: Phase) -> list[RunOutcome]:
    return [outcome for run in state.runs() if (outcome := state.outcomes[phase].get(run_key(run)))]


def _failures(state: State) -> Iterator[tuple[Phase, RunOutcome]]:
    for phase in state.plan.phases:
        for outcome in _outcomes(state, phase):
            if outcome.state == "failed":
                yield phase, outcome
