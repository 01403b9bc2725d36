"""How an execution ended: exit code, report, and the command that retries each failure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from shardmig.journal import State, run_key
from shardmig.migration import MigrationFolder
from shardmig.progress import Watch, phase_totals
from shardmig.records import FailedRun, Failure, Phase, Report, RunOutcome, Shard, ShardStatus

COMPLETE: Final = 0
FAILED_RUNS: Final = 3
DIFFERENCES: Final = 5
STOPPED: Final = 7
INTERRUPTED: Final = 130


def exit_code_of(state: State, *, interrupted: bool, fatal: Failure | None) -> int:
    """0 only when every run of the plan made it through every phase."""
    if fatal is not None:
        return STOPPED
    missing = [phase for phase in state.plan.phases if any(not state.settled(phase, run) for run in state.runs())]
    if not missing:
        return COMPLETE
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
            retry_command=retry_command(folder, state, shard),
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


def retry_command(folder: MigrationFolder, state: State, shard: Shard) -> str:
    """What to type to execute the unfinished runs of a shard again."""
    words = ["shardmig", "retry", "--shard", shard.id, "--migration", folder.id, "-d", state.plan.archive.data]
    return shlex.join(words)


def statuses(state: State) -> Iterator[ShardStatus]:
    """Every shard in every phase: its state, and why it will or will not execute."""
    for phase in state.plan.phases:
        for shard in state.shards.values():
            yield _status(state, phase, shard)


def _status(state: State, phase: Phase, shard: Shard) -> ShardStatus:
    outcomes = [outcome for run in shard.runs if (outcome := state.outcomes[phase].get(run_key(run)))]
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    started = state.open.get((phase, shard.id))
    ended = state.last_ended.get((phase, shard.id))
    if started is not None:
        word, why = "executing", f"attempt {started.attempt}"
    elif len(outcomes) == len(shard.runs) and not failures:
        word, why = "done", ""
    elif failures:
        first = failures[0].failure
        reason = first.message if first else f"{failures[0].verdict}"
        word, why = "failed", f"{len(failures)} of {len(shard.runs)} runs: {reason}"
    elif lost := state.lost.get((phase, shard.id)):
        word, why = "waiting", f"after a lost attempt: {lost[-1].message}"
    else:
        word, why = "waiting", _waits_for(state, phase)
    return ShardStatus(
        shard=shard.id,
        phase=phase,
        runs=len(shard.runs),
        runs_done=len(outcomes) - len(failures),
        runs_failed=len(failures),
        state=word,
        why=why,
        attempts=state.attempts.get((phase, shard.id), 0),
        started_ms=started.at_ms if started else (ended.result.started_ms if ended and ended.result else None),
        ended_ms=ended.at_ms if ended and started is None else None,
    )


def _waits_for(state: State, phase: Phase) -> str:
    if state.finished is not None:
        return "the last execution ended before it; give the same command again"
    if phase == "load" and state.step_multiplier == 0:
        return "waits for the step multiplier, which needs the steps of all runs"
    position = state.plan.phases.index(phase)
    return f"waits for its {state.plan.phases[position - 1]}, or for a worker" if position else "waits for a worker"


def _outcomes(state: State, phase: Phase) -> list[RunOutcome]:
    return [outcome for run in state.runs() if (outcome := state.outcomes[phase].get(run_key(run)))]


def _failures(state: State) -> Iterator[tuple[Phase, RunOutcome]]:
    for phase in state.plan.phases:
        for outcome in _outcomes(state, phase):
            if outcome.state == "failed":
                yield phase, outcome
