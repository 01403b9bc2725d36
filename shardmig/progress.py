"""Watching an execution: what is settled over the whole plan, how fast it goes, how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from shardmig.journal import State, run_key
from shardmig.migration import MigrationFolder
from shardmig.records import Counters, Phase, PhaseProgress, Progress, Shard, ShardId
from shardmig.schedule import Ready
from shardmig.worker.tally import read_progress


class Watch:
    """Tells `observe` snapshots. Recomputes the plan's totals only after something was committed."""

    def __init__(self, folder: MigrationFolder, state: State, observe: Callable[[Progress], None] | None) -> None:
        self._folder = folder
        self._state = state
        self._observe = observe
        self._started_s = time.monotonic()
        self._in_flight: set[tuple[Phase, ShardId]] = set()
        self._totals = phase_totals(state)
        self._settled_before = {total.phase: total.weight_settled for total in self._totals}
        self._begun_s: dict[Phase, float] = {}
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
        self._begun_s.setdefault(ready.phase, time.monotonic())

    def ended(self, ready: Ready) -> None:
        """An attempt ended and is in the state."""
        self._folder.progress_file(ready.phase, ready.shard.id).unlink(missing_ok=True)
        self._in_flight.discard((ready.phase, ready.shard.id))

    def committed(self) -> None:
        """The state changed: recompute and tell."""
        if self._observe is not None:
            self._totals = phase_totals(self._state)
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
                phases=[self._with_in_flight(total) for total in self._totals],
                elapsed_s=self.elapsed_s,
                eta_s=self._eta_s(),
                moved=self._moved(),
                message=message,
            )
        )

    def _with_in_flight(self, total: PhaseProgress) -> PhaseProgress:
        count = sum(1 for phase, _ in self._in_flight if phase == total.phase)
        return msgspec.structs.replace(total, shards_in_flight=count)

    def _moved(self) -> Counters:
        now = _moved(self._totals)
        before = self._moved_before
        moved = Counters(**{name: getattr(now, name) - getattr(before, name) for name in Counters.__struct_fields__})
        for phase, shard in self._in_flight:
            if _moves(phase, self._totals):
                moved += read_progress(self._folder.progress_file(phase, shard))
        return moved

    def _eta_s(self) -> float | None:
        """What is left of each phase at its own speed in this execution; phases overlap, so the longest counts. None as
        long as one of them has nothing to show."""
        left_s = 0.0
        for total in self._totals:
            if not (left := total.weight - total.weight_settled):
                continue
            here = total.weight_settled - self._settled_before[total.phase]
            if here <= 0 or total.phase not in self._begun_s:
                return None
            left_s = max(left_s, left * (time.monotonic() - self._begun_s[total.phase]) / here)
        return left_s


def phase_totals(state: State) -> list[PhaseProgress]:
    """Every phase of the plan, over all its runs."""
    return [_totals(state, phase) for phase in state.plan.phases]


def _totals(state: State, phase: Phase) -> PhaseProgress:
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
        if _moves(total.phase, totals):
            moved += total.counters
    return moved


def _moves(phase: Phase, totals: list[PhaseProgress]) -> bool:
    """A survey before a load moves nothing; alone, it is all there is to tell of."""
    return phase != "survey" or len(totals) == 1
