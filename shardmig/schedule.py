"""What executes next, and what becomes of a failure. Pure: time is handed in, nothing is started or written here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from shardmig.journal import RunKey, State, run_key
from shardmig.planner import halves
from shardmig.records import Failure, Phase, RunOutcome, RunRef, Shard, ShardId, TaskResult

_LOST_BEFORE_SPLIT: Final = 2
_UNCLASSIFIED_ATTEMPTS: Final = 2
_FIRST_PAUSE_S: Final = 0.5
_FIRST_PAUSE_UNREACHABLE_S: Final = 8.0
_LONGEST_PAUSE_S: Final = 30.0
FUTILE_ATTEMPTS: Final = 6
"""So many attempts in a row that brought nothing, for transient reasons alone, mean that the other side is down. With
the patience inside each attempt that is over a minute and a half."""


class Ready(NamedTuple):
    """One attempt that may start now: `shard` holds only the runs that are still to be brought."""

    phase: Phase
    shard: Shard


class Schedule:
    """One execution of a plan. `only`: these shards and their children alone (retry)."""

    def __init__(self, state: State, *, max_attempts: int, only: Iterable[ShardId] = ()) -> None:
        self._state = state
        self._max_attempts = max_attempts
        self._phases = state.plan.phases
        self._tries: dict[tuple[Phase, ShardId], int] = {}
        self._not_before_s: dict[tuple[Phase, ShardId], float] = {}
        self._given_up: set[tuple[Phase, RunKey]] = set()
        self.in_flight: set[tuple[Phase, ShardId]] = set()
        self.futile = 0
        """Attempts since the last one that brought a run or failed for a reason of its own."""
        chosen = set(only) or set(state.shards)
        self._waiting: dict[Phase, dict[ShardId, None]] = {phase: {} for phase in self._phases}
        for phase in self._phases:
            self._enqueue(phase, (shard for shard in state.shards.values() if shard.id in chosen))

    def next(self, now_s: float) -> Ready | None:
        """The next attempt, or None when nothing is ready now. What is furthest along goes first, so that a run
        is loaded as soon as it is exported."""
        for phase in reversed(self._phases):
            for shard_id in list(self._waiting[phase]):
                shard = self._state.shards[shard_id]
                if self._blocked(phase, shard, now_s):
                    continue
                del self._waiting[phase][shard_id]
                if runs := self._runs(phase, shard):
                    self.in_flight.add((phase, shard_id))
                    return Ready(phase, msgspec.structs.replace(shard, runs=runs))
        return None

    def pause_s(self, now_s: float) -> float | None:
        """How long until something waiting may be ready; None when nothing waits. Meant for when nothing is in
        flight: then only time can make something ready."""
        waiting = [(phase, shard) for phase in self._phases for shard in self._waiting[phase]]
        if not waiting:
            return None
        return max(0.01, min(self._not_before_s.get(key, now_s) for key in waiting) - now_s)

    def multiplier_can_be_chosen(self) -> bool:
        """Are the steps of all runs known, as far as they ever will be?"""
        first = self._phases[0]
        return not self._waiting[first] and not any(phase == first for phase, _ in self.in_flight)

    def end(
        self, ready: Ready, result: TaskResult | None, lost: Failure | None, now_s: float
    ) -> tuple[list[RunOutcome], list[Shard]]:
        """Take the end of an attempt into account, after its outcomes are in the state.

        Returns outcomes of runs that are given up without having been reached, and children that replace the shard:
        the caller journals both.
        """
        key = (ready.phase, ready.shard.id)
        self.in_flight.discard(key)
        self._tries[key] = self._tries.get(key, 0) + 1
        for outcome in result.runs if result else []:
            self._judge(ready.phase, outcome, self._tries[key])
        failure = lost or (result.failure if result else None)
        self.futile = self.futile + 1 if result is not None and _is_futile(result) else 0
        shard = self._state.shards[ready.shard.id]
        if not (runs := self._runs(ready.phase, shard)):
            return [], []
        if failure is None:
            return self._retry(key, now_s, result)
        if failure.disposition == "fatal":
            return [], []
        culprit_unknown = lost is not None or failure.disposition != "transient"
        if culprit_unknown and len(shard.runs) > 1:
            if self._tries[key] >= _LOST_BEFORE_SPLIT:
                return [], halves(shard, first=self._state.shards_made + 1)
        elif self._tries[key] >= self._limit(failure):
            return self._give_up(ready.phase, runs, failure), []
        return self._retry(key, now_s, result)

    def replaced(self, children: list[Shard]) -> None:
        """Children have taken the place of their parent in the state: enqueue them in every phase."""
        for phase in self._phases:
            self._waiting[phase].pop(children[0].parent or children[0].id, None)
            self._enqueue(phase, children)

    def why(self, phase: Phase, shard: Shard) -> str:
        """Why a waiting shard does not execute yet; "" when it only waits for a free worker."""
        if (before := self._before(phase)) is not None and self._unsettled(before, shard.id):
            return f"waits for its {before}"
        if phase == "load" and self._state.step_multiplier == 0:
            return "waits for the step multiplier, which needs the steps of all runs"
        if phase == "load" and self._ancestors_unsettled(shard):
            return "waits for the runs that its runs were forked from"
        return ""

    def _retry(
        self, key: tuple[Phase, ShardId], now_s: float, result: TaskResult | None
    ) -> tuple[list[RunOutcome], list[Shard]]:
        first_s = _FIRST_PAUSE_UNREACHABLE_S if result is not None and _is_futile(result) else _FIRST_PAUSE_S
        self._not_before_s[key] = now_s + min(_LONGEST_PAUSE_S, first_s * 2.0 ** (self._tries[key] - 1))
        self._waiting[key[0]][key[1]] = None
        return [], []

    def _judge(self, phase: Phase, outcome: RunOutcome, tries: int) -> None:
        """Give a failed run up when its disposition says so."""
        if outcome.state != "failed":
            return
        if outcome.failure is None or tries >= self._limit(outcome.failure):
            self._given_up.add((phase, run_key(outcome.run)))

    def _limit(self, failure: Failure) -> int:
        """Attempts that a failure is worth."""
        return {"transient": self._max_attempts, "unclassified": _UNCLASSIFIED_ATTEMPTS}.get(failure.disposition, 1)

    def _give_up(self, phase: Phase, runs: Iterable[RunRef], failure: Failure) -> list[RunOutcome]:
        outcomes = []
        for run in runs:
            self._given_up.add((phase, run_key(run)))
            known = self._state.outcomes[phase].get(run_key(run))
            if known is None or known.state != "failed":
                reason = msgspec.structs.replace(failure, run=run.label)
                outcomes.append(RunOutcome(run=run, state="failed", failure=reason))
        return outcomes

    def _runs(self, phase: Phase, shard: Shard) -> tuple[RunRef, ...]:
        """Runs that the phase has still to bring: through the phase before, and not given up."""
        before = self._before(phase)
        return tuple(
            run
            for run in self._state.remaining(phase, shard)
            if (phase, run_key(run)) not in self._given_up and (before is None or self._state.settled(before, run))
        )

    def _blocked(self, phase: Phase, shard: Shard, now_s: float) -> bool:
        return self._not_before_s.get((phase, shard.id), 0.0) > now_s or bool(self.why(phase, shard))

    def _before(self, phase: Phase) -> Phase | None:
        position = self._phases.index(phase)
        return self._phases[position - 1] if position else None

    def _unsettled(self, phase: Phase, shard_id: ShardId) -> bool:
        return shard_id in self._waiting[phase] or (phase, shard_id) in self.in_flight

    def _ancestors_unsettled(self, shard: Shard) -> bool:
        if shard.depth == 0:
            return False
        return any(self._state.shards[other].depth < shard.depth for other in self._load_unsettled())

    def _load_unsettled(self) -> Iterator[ShardId]:
        yield from self._waiting["load"]
        yield from (shard for phase, shard in self.in_flight if phase == "load")

    def _enqueue(self, phase: Phase, shards: Iterable[Shard]) -> None:
        for shard in shards:
            if self._state.remaining(phase, shard):
                self._waiting[phase][shard.id] = None


def _is_futile(result: TaskResult) -> bool:
    failures = [outcome.failure for outcome in result.runs] + [result.failure] * (result.failure is not None)
    return bool(failures) and all(failure is not None and failure.disposition == "transient" for failure in failures)
