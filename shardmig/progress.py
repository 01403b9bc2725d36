"""Watching an execution: what is settled over the whole plan, how fast it goes, how long it will take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Final

import msgspec

from shardmig.journal import State, run_key
from shardmig.migration import MigrationFolder
from shardmig.planner import cost
from shardmig.records import Counters, Phase, PhaseProgress, Progress, RunOutcome, ShardId
from shardmig.schedule import Ready
from shardmig.worker.tally import read_progress

_QUICK_S: Final = 0.01
_SHARE_OF_TIME: Final = 0.05
"""Totals of 100,000 runs take a second and are not worth more of the time than this."""
_START_UP_S: Final = 30.0
"""What a phase has settled so soon took mostly the imports of an SDK, which are not made again."""
_ENOUGH: Final = 0.01
"""No end is foretold from less than this share of what was left."""


class Watch:
    """Tells `observe` snapshots. Recomputes the plan's totals only after something was committed, and where that takes
    long, seldom."""

    def __init__(self, folder: MigrationFolder, state: State, observe: Callable[[Progress], None] | None) -> None:
        self._folder = folder
        self._state = state
        self._observe = observe
        self._started_s = time.monotonic()
        self._in_flight: set[tuple[Phase, ShardId]] = set()
        self._recompute()
        self._paces = {total.phase: _Pace(total) for total in self._totals}
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
        self._paces[ready.phase].begin()

    def ended(self, ready: Ready) -> None:
        """An attempt ended. Before that is noted: who is killed in between repeats the attempt, and leaves no file behind."""
        self._folder.progress_file(ready.phase, ready.shard.id).unlink(missing_ok=True)
        self._in_flight.discard((ready.phase, ready.shard.id))

    def committed(self) -> None:
        """The state changed: recompute and tell."""
        if self._observe is not None:
            if time.monotonic() >= self._recompute_at_s:
                self._recompute()
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

    def _recompute(self) -> None:
        started_s = time.monotonic()
        self._totals = phase_totals(self._state)
        took_s = time.monotonic() - started_s
        self._recompute_at_s = started_s + (took_s / _SHARE_OF_TIME if took_s > _QUICK_S else 0.0)

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
        long as one of them has too little to show."""
        longest_s = 0.0
        for total in self._totals:
            left_s = self._paces[total.phase].left_s(total)
            if left_s is None:
                return None
            longest_s = max(longest_s, left_s)
        return longest_s


class _Pace:
    """How fast a phase goes in this execution."""

    def __init__(self, before: PhaseProgress) -> None:
        self._left_before = before.weight - before.weight_settled
        self._settled = before.weight_settled
        self._since_s: float | None = None
        self._is_measured = False

    def begin(self) -> None:
        """An attempt was handed over. The first one begins the phase."""
        if self._since_s is None:
            self._since_s = time.monotonic()

    def left_s(self, now: PhaseProgress) -> float | None:
        """Seconds until the rest is settled; None = it cannot be told yet. Asked again and again, in order of time."""
        left = now.weight - now.weight_settled
        if not left:
            return 0.0
        if self._since_s is None:
            return None
        took_s = time.monotonic() - self._since_s
        here = now.weight_settled - self._settled
        if here and not self._is_measured:
            self._is_measured = True
            if took_s < _START_UP_S:  # measured from here on
                self._since_s, self._settled = time.monotonic(), now.weight_settled
                return None
        return left * took_s / here if here > self._left_before * _ENOUGH else None


def phase_totals(state: State) -> list[PhaseProgress]:
    """Every phase of the plan, over all its runs."""
    return [_totals(state, phase) for phase in state.plan.phases]


def _totals(state: State, phase: Phase) -> PhaseProgress:
    outcomes = state.outcomes[phase]
    shards_settled = runs = weight = weight_settled = 0
    settled: list[RunOutcome] = []
    for shard in state.shards.values():
        runs += len(shard.runs)
        weight += sum(map(cost, shard.runs))
        known = [outcome for run in shard.runs if (outcome := outcomes.get(run_key(run))) is not None]
        shards_settled += len(known) == len(shard.runs)
        weight_settled += sum(cost(outcome.run) for outcome in known)
        settled += known
    states = Counter(outcome.state for outcome in settled)
    counted = [outcome.counters for outcome in settled]
    return PhaseProgress(
        phase=phase,
        shards=len(state.shards),
        shards_settled=shards_settled,
        runs=runs,
        runs_done=states["done"],
        runs_skipped=states["skipped"],
        runs_failed=states["failed"],
        weight=weight,
        weight_settled=weight_settled,
        counters=Counters(**{name: sum(map(attrgetter(name), counted)) for name in Counters.__struct_fields__}),
    )


def _moved(totals: list[PhaseProgress]) -> Counters:
    moved = Counters()
    for total in totals:
        if _moves(total.phase, totals):
            moved += total.counters
    return moved


def _moves(phase: Phase, totals: list[PhaseProgress]) -> bool:
    """A survey before a load moves nothing; alone, it is all there is to tell of."""
    return phase != "survey" or len(totals) == 1
