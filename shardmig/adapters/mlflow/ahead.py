"""Runs that are read one after the other: of some of them a server tells in one request.

For the points of a metric MLflow's server takes about 3 ms, however many runs they are of, beside what each point takes
(measured): most runs have short series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Lock
from typing import Final, NamedTuple

from shardmig.adapters.mlflow.histories import History
from shardmig.adapters.mlflow.store import StoredRun
from shardmig.errors import AdapterError
from shardmig.records import TargetRunId

ROWS_AHEAD: Final = 200_000
"""Points that are held of runs whose turn has not come."""
ROWS_TOGETHER: Final = 20_000
"""Points that one request is made for: below what one answer holds, since they are guessed."""


class _Later(NamedTuple):
    """A run whose facts are read already."""

    stored: StoredRun
    steps: dict[str, int]
    """Of each metric that may be asked for before the turn of this run: how many steps it has."""


class RunsAhead:
    """The runs that were announced. Facts of a run are read before its points, so that of one that has ended by then
    nothing is missing. Memory: about ROWS_AHEAD points, and an answer for each thread.

    `run`, `expect` and `close` from one thread; the others from several, each for metrics of its own.
    """

    def __init__(self, read: Callable[[TargetRunId], StoredRun]) -> None:
        """`read`: the facts of one run."""
        self._read = read
        self._coming: list[TargetRunId] = []
        self._steps: dict[str, int] = {}
        """Of the run whose turn it is."""
        self._later: dict[TargetRunId, _Later] = {}
        self._rows_a_step: dict[str, float] = {}
        self._histories: dict[tuple[TargetRunId, str], History] = {}
        self._rows_held = 0
        self._lock = Lock()

    def expect(self, runs: Iterable[TargetRunId]) -> None:
        """These will be asked for, in this order."""
        self.close()
        self._coming = list(runs)

    def run(self, run_id: TargetRunId) -> StoredRun:
        """The facts of a run, whose turn it is now. Raises what `read` raises for this one."""
        if (later := self._later.pop(run_id, None)) is not None:
            self._steps = later.steps
            return later.stored
        self._steps = {}
        is_expected = run_id in self._coming
        self._forget(None if is_expected else run_id)  # points that were read before these facts
        stored = self._read(run_id)
        if is_expected:
            self._coming = self._coming[self._coming.index(run_id) + 1 :]
            self._steps = _steps(stored)
            self._read_ahead(ROWS_AHEAD - self._rows(self._steps))
        return stored

    def others(self, key: str) -> list[TargetRunId]:
        """Later runs whose points of this metric fit into one answer with those of the run whose turn it is."""
        found: list[TargetRunId] = []
        if key not in self._steps or self._rows_held >= ROWS_AHEAD:
            return found
        rows_a_step = self._rows_a_step.get(key, 1)
        room = ROWS_TOGETHER - self._steps[key] * rows_a_step
        for run_id, later in self._later.items():
            if key in later.steps and (run_id, key) not in self._histories:
                room -= later.steps[key] * rows_a_step
                if room < 0:
                    break
                found.append(run_id)
        return found

    def learn(self, key: str, rows: int) -> None:
        """The run whose turn it is has so many points of a metric: others may have as many a step."""
        if key in self._steps:
            self._rows_a_step[key] = rows / self._steps[key]

    def keep(self, run_id: TargetRunId, key: str, history: History) -> None:
        """Until that run's turn."""
        with self._lock:
            self._histories[run_id, key] = history
            self._rows_held += len(history)

    def take(self, run_id: TargetRunId, key: str) -> History | None:
        """What was kept; None: nothing."""
        with self._lock:
            history = self._histories.pop((run_id, key), None)
            self._rows_held -= 0 if history is None else len(history)
        return history

    def close(self) -> None:
        """Forget all of them; idempotent."""
        self._forget()
        self._coming, self._steps = [], {}

    def _forget(self, only: TargetRunId | None = None) -> None:
        for run_id, key in list(self._histories):
            if only in (None, run_id) and (history := self.take(run_id, key)) is not None:
                history.close()
        if only is None:
            self._later = {}

    def _read_ahead(self, room: float) -> None:
        while self._coming and room > 0:
            run_id = self._coming.pop(0)
            with suppress(AdapterError):  # the turn of that run comes, and then it tells
                stored = self._read(run_id)
                steps = _steps(stored)
                room -= self._rows(steps)
                self._later[run_id] = _Later(stored, steps if room > 0 else {})

    def _rows(self, steps: dict[str, int]) -> float:
        return sum(count * self._rows_a_step.get(key, 1) for key, count in steps.items())


def _steps(run: StoredRun) -> dict[str, int]:
    return {latest.key: max(0, latest.step) + 1 for latest in run.latest}
