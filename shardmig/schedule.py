"""What executes next, and what becomes of a failure. Pure: time is handed in, nothing is started or written here."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from shardmig.journal import RunKey, State, run_key
from shardmig.planner import cost, halves
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


class _Turn(NamedTuple):
    """What executes first: parents before forks, what was not tried before what failed, heavy before light: what takes
    long must not come last."""

    depth: int
    tries: int
    lightness: int
    shard: ShardId


class _Queue:
    """Shards that wait in one phase. Those that wait for nothing but a free worker and for time are also in a heap;
    what a heap still holds of a shard that no longer waits is passed over."""

    def __init__(self) -> None:
        self.waiting: set[ShardId] = set()
        self._ready: list[_Turn] = []
        self._delayed: list[tuple[float, _Turn]] = []

    def add(self, turn: _Turn) -> None:
        """It waits for nothing but a free worker."""
        heapq.heappush(self._ready, turn)

    def add_delayed(self, turn: _Turn, until_s: float) -> None:
        """It waits for this time as well."""
        heapq.heappush(self._delayed, (until_s, turn))

    def first(self, now_s: float) -> _Turn | None:
        """The next one, which stays in the queue until it is taken."""
        while self._delayed and self._delayed[0][0] <= now_s:
            heapq.heappush(self._ready, heapq.heappop(self._delayed)[1])
        while self._ready and self._ready[0].shard not in self.waiting:
            heapq.heappop(self._ready)
        return self._ready[0] if self._ready else None

    def take(self) -> None:
        """Take the first one out."""
        self.waiting.remove(heapq.heappop(self._ready).shard)

    def due_s(self, now_s: float) -> float | None:
        """When the next one that waits may be ready; None when nothing waits."""
        if not self.waiting:
            return None
        return self._delayed[0][0] if self._delayed and not self._ready else now_s


class Schedule:
    """One execution of a plan. `only`: these shards and their children alone (retry). `until`: no phase behind it."""

    def __init__(
        self, state: State, *, max_attempts: int, only: Iterable[ShardId] = (), until: Phase | None = None
    ) -> None:
        self._state = state
        self._max_attempts = max_attempts
        self._phases = state.plan.phases_until(until)
        self._tries: dict[tuple[Phase, ShardId], int] = {}
        self._given_up: set[tuple[Phase, RunKey]] = set()
        self.in_flight: set[tuple[Phase, ShardId]] = set()
        self.futile = 0
        """Attempts since the last one that brought a run or failed for a reason of its own."""
        self._queues: dict[Phase, _Queue] = {phase: _Queue() for phase in self._phases}
        self._load_depths: Counter[int] = Counter()
        """Of the shards whose load is not settled."""
        chosen = set(only) or set(state.shards)
        self._enqueue([shard for shard in state.shards.values() if shard.id in chosen])

    def next(self, now_s: float) -> Ready | None:
        """The next attempt, or None when nothing is ready now. What is furthest along goes first, so that a run
        is loaded as soon as it is exported."""
        for phase in reversed(self._phases):
            queue = self._queues[phase]
            while (turn := queue.first(now_s)) is not None:
                if phase == "load" and (self._state.step_multiplier == 0 or turn.depth > self._lowest_load_depth()):
                    break
                queue.take()
                shard = self._state.shards[turn.shard]
                if runs := self._runs(phase, shard):
                    self.in_flight.add((phase, shard.id))
                    return Ready(phase, msgspec.structs.replace(shard, runs=runs))
                self._leave(phase, shard)
        return None

    def pause_s(self, now_s: float) -> float | None:
        """How long until something waiting may be ready; None when nothing waits. Meant for when nothing is in
        flight: then only time can make something ready."""
        due_s = [due for queue in self._queues.values() if (due := queue.due_s(now_s)) is not None]
        return max(0.01, min(due_s) - now_s) if due_s else None

    def multiplier_can_be_chosen(self) -> bool:
        """Are the steps of all runs known, as far as they ever will be?"""
        first = self._phases[0]
        return not self._queues[first].waiting and not any(phase == first for phase, _ in self.in_flight)

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
        given_up: list[RunOutcome] = []
        children: list[Shard] = []
        if runs := self._runs(ready.phase, shard):
            if failure is None:
                return self._retry(key, now_s, result)
            culprit_unknown = lost is not None or failure.disposition not in ("transient", "fatal")
            if culprit_unknown and len(shard.runs) > 1:
                if self._tries[key] < _LOST_BEFORE_SPLIT:
                    return self._retry(key, now_s, result)
                children = halves(shard, first=self._state.shards_made + 1)
            elif failure.disposition != "fatal":
                if self._tries[key] < self._limit(failure):
                    return self._retry(key, now_s, result)
                given_up = self._give_up(ready.phase, runs, failure)
        self._leave(ready.phase, shard)
        return given_up, children

    def replaced(self, children: list[Shard]) -> None:
        """Children have taken the place of their parent in the state: enqueue them in every phase."""
        parent = children[0].parent or children[0].id
        for phase in self._phases:
            if parent in self._queues[phase].waiting:
                self._queues[phase].waiting.remove(parent)
                if phase == "load":
                    self._load_depths[children[0].depth] -= 1
        self._enqueue(children)

    def why(self, phase: Phase, shard: Shard) -> str:
        """Why a waiting shard does not execute yet; "" when it only waits for a free worker."""
        if (before := self._before(phase)) is not None and self._unsettled(before, shard.id):
            return f"waits for its {before}"
        if phase == "load" and self._state.step_multiplier == 0:
            return "waits for the step multiplier, which needs the steps of all runs"
        if phase == "load" and shard.depth > self._lowest_load_depth():
            return "waits for the runs that its runs were forked from"
        return ""

    def _retry(
        self, key: tuple[Phase, ShardId], now_s: float, result: TaskResult | None
    ) -> tuple[list[RunOutcome], list[Shard]]:
        first_s = _FIRST_PAUSE_UNREACHABLE_S if result is not None and _is_futile(result) else _FIRST_PAUSE_S
        until_s = now_s + min(_LONGEST_PAUSE_S, first_s * 2.0 ** (self._tries[key] - 1))
        phase, shard = key[0], self._state.shards[key[1]]
        self._queues[phase].waiting.add(shard.id)
        self._queues[phase].add_delayed(self._turn(phase, shard), until_s)
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

    def _enqueue(self, shards: list[Shard]) -> None:
        """Let shards wait in every phase that has not brought all their runs."""
        for phase in self._phases:
            for shard in shards:
                if not self._state.remaining(phase, shard):
                    continue
                self._queues[phase].waiting.add(shard.id)
                if phase == "load":
                    self._load_depths[shard.depth] += 1
                if (before := self._before(phase)) is None or not self._unsettled(before, shard.id):
                    self._queues[phase].add(self._turn(phase, shard))

    def _leave(self, phase: Phase, shard: Shard) -> None:
        """The phase has done for this shard what it will do in this execution: the next one may begin."""
        if phase == "load":
            self._load_depths[shard.depth] -= 1
        after = self._phases[self._phases.index(phase) + 1 :][:1]
        if after and shard.id in self._queues[after[0]].waiting:
            self._queues[after[0]].add(self._turn(after[0], shard))

    def _turn(self, phase: Phase, shard: Shard) -> _Turn:
        return _Turn(shard.depth, self._tries.get((phase, shard.id), 0), -self._weight(phase, shard), shard.id)

    def _weight(self, phase: Phase, shard: Shard) -> int:
        """What the phase before has found in the runs counts as well as what the source told of them."""
        if (before := self._before(phase)) is None:
            return sum(map(cost, shard.runs))
        known = self._state.outcomes[before]
        found = ((run, known.get(run_key(run))) for run in shard.runs)
        return sum(cost(run, outcome.counters) if outcome else cost(run) for run, outcome in found)

    def _before(self, phase: Phase) -> Phase | None:
        position = self._phases.index(phase)
        return self._phases[position - 1] if position else None

    def _unsettled(self, phase: Phase, shard_id: ShardId) -> bool:
        return shard_id in self._queues[phase].waiting or (phase, shard_id) in self.in_flight

    def _lowest_load_depth(self) -> int:
        """No shard of more depth is loaded: it may hold forks of runs that are not."""
        return min((depth for depth, shards in self._load_depths.items() if shards), default=0)


def _is_futile(result: TaskResult) -> bool:
    failures = [outcome.failure for outcome in result.runs] + [result.failure] * (result.failure is not None)
    return bool(failures) and all(failure is not None and failure.disposition == "transient" for failure in failures)
