"""Watching an execution: what is settled over the whole plan, how fast it goes, how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from shardmig.journal import State, run_key
from shardmig.migration import MigrationFolder
from shardmig.records import Counters, Phase, PhaseProgress, Progress, Shard
from shardmig.schedule import Ready
from shardmig.worker.tally import read_progress


class Watch:
    """Tells `observe` snapshots. Recomputes the plan's totals only after something was committed."""

    def __init__(self, folder: MigrationFolder, state: State, observe: Callable[[Progress], None] | None) -> None:
        self._folder = folder
        self._state = state
        self._observe = observe
        self._started_s = time.monotonic()
        self._in_flight: set[tuple[Phase, str]] = set()
        self._totals = phase_totals(state)
        self._settled_before = sum(total.weight_settled for total in self._totals)
        self._moved_before = _moved(self._totals)
        self._message = ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since this execution began."""
        return time.monotonic() - self._started_s

    def started(self, ready: Ready) -> None:
        """An attempt was handed to the engine."""
        self._folder.progress_file(ready.phase, ready.shard.id).unlink(missing_ok=True)
        self._in_flight.add((ready.phase, ready.shard.id))

    def ended(self, ready: Ready) -> None:
        """An attempt ended and is in the state."""
        self._folder.progress_file(ready.phase, ready.shard.id).unlink(missing_ok=True)
        self._in_flight.discard((ready.phase, ready.shard.id))

    def committed(self) -> None:
        """The state changed: recompute and tell."""
        if self._observe is not None:
            self._totals = phase_totals(self._state, self._in_flight)
            self.tick()

    def say(self, message: str) -> None:
        """A message for the user, told with the next snapshot."""
        self._message = message

    def tick(self) -> None:
        """Tell a snapshot."""
        if self._observe is None:
            return
        message, self._message = self._message, ""
        self._observe(
            Progress(
                migration=self._folder.id,
                phases=self._totals,
                elapsed_s=self.elapsed_s,
                eta_s=self._eta_s(),
                moved=self._moved(),
                message=message,
            )
        )

    def _moved(self) -> Counters:
        now = _moved(self._totals)
        before = self._moved_before
        moved = Counters(**{name: getattr(now, name) - getattr(before, name) for name in Counters.__struct_fields__})
        for phase, shard in self._in_flight:
            moved += read_progress(self._folder.spool / f"{phase}-{shard}.progress")
        return moved

    def _eta_s(self) -> float | None:
        """Remaining weight at the speed of this execution."""
        settled = sum(total.weight_settled for total in self._totals)
        here = settled - self._settled_before
        left = sum(total.weight for total in self._totals) - settled
        return left * self.elapsed_s / here if here > 0 else None


def phase_totals(state: State, in_flight: set[tuple[Phase, str]] | None = None) -> list[PhaseProgress]:
    """Every phase of the plan, over all its runs."""
    return [_totals(state, phase, in_flight or set()) for phase in state.plan.phases]


def _totals(state: State, phase: Phase, in_flight: set[tuple[Phase, str]]) -> PhaseProgress:
    done = skipped = failed = weight_settled = 0
    counters = Counters()
    for run in state.runs():
        outcome = state.outcomes[phase].get(run_key(run))
        if outcome is None:
            continue
        counters += outcome.counters
        done += outcome.state == "done"
        skipped += outcome.state == "skipped"
        failed += outcome.state == "failed"
        weight_settled += run.weight + 1
    shards = list(state.shards.values())
    return PhaseProgress(
        phase=phase,
        shards=len(shards),
        shards_settled=sum(_is_settled(state, phase, shard) for shard in shards),
        shards_in_flight=sum(1 for known, _ in in_flight if known == phase),
        runs=sum(len(shard.runs) for shard in shards),
        runs_done=done,
        runs_skipped=skipped,
        runs_failed=failed,
        weight=sum(run.weight + 1 for run in state.runs()),
        weight_settled=weight_settled,
        counters=counters,
    )


def _is_settled(state: State, phase: Phase, shard: Shard) -> bool:
    return all(run_key(run) in state.outcomes[phase] for run in shard.runs)


def _moved(totals: list[PhaseProgress]) -> Counters:
    moved = Counters()
    for total in totals:
        moved += total.counters
    return moved
