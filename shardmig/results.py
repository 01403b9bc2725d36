"""How an execution ended: exit code, report, and the command that retries each failure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from statistics import median
from typing import Final

import msgspec

from shardmig.journal import LastEnd, State, run_key
from shardmig.migration import MigrationFolder
from shardmig.planner import cost
from shardmig.progress import Watch, phase_totals
from shardmig.records import (
    ArchivePaths,
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

_ENOUGH_ATTEMPTS: Final = 5
_STRAGGLES_TIMES: Final = 4
_STRAGGLES_MS: Final = 60_000


def exit_code_of(
    state: State,
    *,
    interrupted: bool,
    fatal: Failure | None = None,
    until: Phase | None = None,
) -> int:
    """0 only when every run of the plan made it through every phase (of those up to `until`), and every project was
    listed."""
    if fatal is not None:
        return STOPPED
    phases = state.plan.phases_until(until)
    missing = [phase for phase in phases if any(not state.settled(phase, run) for run in state.runs())]
    if not missing:
        return FAILED_RUNS if state.refused else COMPLETE
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
        refused=state.refused,
        gone=state.gone,
        stopped=f"{fatal.message}" + (f" ({fatal.hint})" if fatal.hint else "") if fatal else "",
    )


def retry_command(migration: MigrationId, archive: ArchivePaths, shard: ShardId | None = None) -> str:
    """What to type to execute unfinished runs again: those of a shard, or all."""
    which = ["--failed"] if shard is None else ["--shard", shard]
    return shlex.join(["shardmig", "retry", *which, "--migration", migration, "-d", archive.data])


def statuses(state: State, *, is_executing: bool, now_ms: int) -> Iterator[ShardStatus]:
    """Every shard in every phase: its state, and why it will or will not execute. `is_executing`: by a live process."""
    for phase in state.plan.phases:
        pace_ms = _pace_ms(state, phase) if is_executing else None
        for shard in state.shards.values():
            status = _status(state, phase, shard, is_executing)
            if pace_ms is not None and status.state == "executing" and status.started_ms is not None:
                status = _marked(status, now_ms - status.started_ms, pace_ms * sum(map(cost, shard.runs)))
            yield status


def _pace_ms(state: State, phase: Phase) -> float | None:
    """What a unit of weight takes in this phase, by the attempts that ended well; None while they are few."""
    paces = [
        (ended.ended_ms - ended.started_ms) / sum(map(cost, state.shards[shard].runs))
        for (ended_phase, shard), ended in state.last_ended.items()
        if ended_phase == phase and ended.started_ms is not None and ended.failure is None and shard in state.shards
    ]
    return median(paces) if len(paces) >= _ENOUGH_ATTEMPTS else None


def _marked(status: ShardStatus, lasts_ms: int, expected_ms: float) -> ShardStatus:
    if lasts_ms < max(_STRAGGLES_MS, _STRAGGLES_TIMES * expected_ms):
        return status
    why = f"{status.why}, lasts {lasts_ms / max(expected_ms, 1.0):.0f} times as long as its weight suggests"
    return msgspec.structs.replace(status, straggles=True, why=why)


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
        ended_ms=ended.ended_ms if ended and started is None else None,
    )


def _started_ms(started: AttemptStarted | None, ended: LastEnd | None) -> int | None:
    if started is not None:
        return started.at_ms
    return ended.started_ms if ended is not None else None


def _reason(failed: RunOutcome) -> str:
    return failed.failure.message if failed.failure is not None else str(failed.verdict or "failed")


def _waits_for(state: State, phase: Phase, shard: Shard, is_executing: bool) -> str:
    before = _phase_before(state, phase)
    if before is not None and all(not state.settled(before, run) for run in shard.runs):
        why = f"needs its {before}, which failed" if _has_failed(state, before, shard) else f"waits for its {before}"
    elif (phase, shard.id) in state.open and not is_executing:
        why = "its attempt was cut off"
    elif (ended := state.last_ended.get((phase, shard.id))) is not None and ended.failure is not None:
        why = f"after an attempt that failed: {ended.failure.message}"
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


def _outcomes(state: State, phase: Phase) -> list[RunOutcome]:
    return [outcome for run in state.runs() if (outcome := state.outcomes[phase].get(run_key(run)))]


def _failures(state: State) -> Iterator[tuple[Phase, RunOutcome]]:
    for phase in state.plan.phases:
        for outcome in _outcomes(state, phase):
            if outcome.state == "failed":
                yield phase, outcome
