"""A million runs on a thousand workers, simulated: how near to the shortest possible time planner, schedule and budget come.

Discrete events around the real planner, the real schedule with its state, and the real arithmetic of a budget; only
workers, clock and target are invented. docs/scale.md has the assumptions.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from typing import Final, NamedTuple

import numpy as np

from benchmarks.workload import PROJECT, parse_arguments, show
from shardmig import planner
from shardmig.adapters.budget.accounts import Account, Allowance
from shardmig.journal import State
from shardmig.planner import Request
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    Extended,
    Failure,
    LoadOptions,
    RunId,
    RunOutcome,
    RunRef,
    TaskResult,
)
from shardmig.schedule import Ready, Schedule

MEDIAN_POINTS: Final = 3_000
POINTS_SIGMA: Final = 1.5
POINTS_PER_S: Final = 50_000
RUN_S: Final = 0.5
NOISE_SIGMA: Final = 0.3
ATTEMPT_S: Final = 0.2
LONGEST_SLEEP_S: Final = 1.0
"""A worker that waits for its turn asks again so often."""


class World(NamedTuple):
    """What is simulated. knows_weights: does the source tell how large its runs are? lost: share of attempts whose worker
    dies. slow: share that takes three times as long. forks: share of runs that have a parent. requests_per_s: of all
    workers together, one for a run; 0 = no limit."""

    name: str
    knows_weights: bool = True
    lost: float = 0.0
    slow: float = 0.0
    forks: float = 0.0
    requests_per_s: float = 0.0


WORLDS: Final = (
    World("as it should be"),
    World("sizes not known before", knows_weights=False),
    World("1 of 1,000 workers dies, 1 of 100 is slow", lost=0.001, slow=0.01),
    World("a budget that holds everybody up", requests_per_s=1.0),
    World("1 of 50 runs is a fork", forks=0.02),
)
"""requests_per_s 1.0 stands for seven tenths of what the workers could do."""


class Result(NamedTuple):
    """How it went: makespan, and what no schedule could beat, in seconds."""

    shards: int
    attempts: int
    makespan_s: float
    ideal_s: float
    planning_s: float

    @property
    def ratio(self) -> float:
        """1 = as short as possible."""
        return self.makespan_s / self.ideal_s


class Fleet:
    """Workers that execute one plan."""

    def __init__(self, world: World, runs: int, workers: int, seed: int = 1) -> None:
        self._world = world
        self._workers = workers
        self._dice = random.Random(seed)
        points = np.random.default_rng(seed).lognormal(np.log(MEDIAN_POINTS), POINTS_SIGMA, runs).astype(int).tolist()
        noise = np.random.default_rng(seed + 1).lognormal(0, NOISE_SIGMA, runs)
        self._seconds = {
            RunId(f"R-{number}"): RUN_S + count / POINTS_PER_S * float(extra)
            for number, (count, extra) in enumerate(zip(points, noise, strict=True))
        }
        work_s = sum(self._seconds.values())
        per_s = world.requests_per_s * 0.7 * runs / (work_s / workers)
        self._account = Account(allowance=Allowance(requests_per_s=per_s)) if per_s else None
        longest_s = max(self._seconds.values())
        self._ideal_s = max(work_s / workers, longest_s, runs / per_s if per_s else 0.0)
        started_s = time.perf_counter()
        self._state = State(planner.freeze(_REQUEST, self._listed(points), created_ms=0))
        self._schedule = Schedule(self._state, max_attempts=3)
        self._planning_s = time.perf_counter() - started_s
        self._events: list[tuple[float, int, _Attempt | None]] = []
        self._numbers = itertools.count()
        self._idle = workers
        self._attempts = 0

    def execute(self) -> Result:
        """From the first attempt to the end of the last."""
        shards = len(self._state.shards)
        now_s = last_s = 0.0
        self._fill(now_s)
        while self._events:
            now_s, _, attempt = heapq.heappop(self._events)
            if attempt is not None and not self._go_on(attempt, now_s):
                last_s = now_s
            self._fill(now_s)
        assert all(self._state.settled("load", run) for run in self._state.runs())
        return Result(shards, self._attempts, last_s, self._ideal_s, self._planning_s)

    def _listed(self, points: list[int]) -> list[RunRef]:
        return [
            RunRef(
                project=PROJECT,
                id=RunId(f"R-{number}"),
                parent=RunId(f"R-{self._dice.randrange(number)}") if number and self._is(self._world.forks) else None,
                weight=count if self._world.knows_weights else 0,
            )
            for number, count in enumerate(points)
        ]

    def _is(self, share: float) -> bool:
        return bool(share) and self._dice.random() < share

    def _fill(self, now_s: float) -> None:
        while self._idle and (ready := self._schedule.next(now_s)) is not None:
            self._idle -= 1
            self._attempts += 1
            self._state.apply(AttemptStarted(0, ready.phase, ready.shard.id, 1))
            attempt = _Attempt(ready, 3.0 if self._is(self._world.slow) else 1.0)
            if self._is(self._world.lost):
                attempt.dies_at = self._dice.randrange(len(ready.shard.runs))
            self._at(now_s + ATTEMPT_S, attempt)
        if self._idle == self._workers and (pause_s := self._schedule.pause_s(now_s)) is not None:
            self._at(now_s + pause_s, None)

    def _at(self, when_s: float, attempt: _Attempt | None) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), attempt))

    def _go_on(self, attempt: _Attempt, now_s: float) -> bool:
        """Begin the next run of an attempt, or ask for its turn again. False: the attempt has ended."""
        runs = attempt.ready.shard.runs
        if attempt.done == len(runs) or attempt.done == attempt.dies_at:
            self._end(attempt, now_s)
            return False
        if self._account is not None:
            self._account.forget(now_s)
            wait_s = self._account.take(0, str(id(attempt)), now_s)
            if wait_s > 0:
                self._at(now_s + min(wait_s, LONGEST_SLEEP_S), attempt)
                return True
        self._at(now_s + self._seconds[runs[attempt.done].id] * attempt.slowness, attempt)
        attempt.done += 1
        return True

    def _end(self, attempt: _Attempt, now_s: float) -> None:
        phase, shard = attempt.ready
        self._idle += 1
        lost = Failure("WorkerLost", "transient", "died") if attempt.done == attempt.dies_at else None
        outcomes = [] if lost else [RunOutcome(run=run, state="done") for run in shard.runs]
        result = None if lost else TaskResult(shard=shard.id, phase=phase, attempt=1, runs=outcomes)
        self._state.apply(AttemptEnded(0, result, phase, shard.id, 1, lost))
        _, children = self._schedule.end(attempt.ready, result, lost, now_s)
        if children:
            self._state.apply(Extended(0, children))
            self._schedule.replaced(children)


class _Attempt:
    """One attempt: how many of its runs are begun, and at which its worker dies (-1: at none)."""

    def __init__(self, ready: Ready, slowness: float) -> None:
        self.ready = ready
        self.slowness = slowness
        self.done = 0
        self.dies_at = -1


_REQUEST: Final = Request(
    phases=("load",),
    source=AdapterSpec("archive"),
    archive=ArchivePaths("/data", "/files"),
    target=AdapterSpec("mlflow"),
    load=LoadOptions(step_multiplier=1),
)


def main() -> None:
    """Simulate every world."""
    arguments = parse_arguments(__doc__ or "")
    runs, workers = (1_000_000, 1_000) if arguments.full else (20_000, 20)
    rows = []
    for world in WORLDS:
        result = Fleet(world, runs, workers).execute()
        rows.append(
            [
                world.name,
                f"{result.shards:,}",
                f"{result.attempts:,}",
                f"{result.ideal_s:,.0f} s",
                f"{result.makespan_s:,.0f} s",
                f"{result.ratio:.3f}",
                f"{result.planning_s:.1f} s",
            ]
        )
    show(
        f"{runs:,} runs on {workers:,} workers, simulated",
        ("world", "shards", "attempts", "ideal", "makespan", "ratio", "planning itself"),
        rows,
    )


if __name__ == "__main__":
    main()
