"""What a Ray process executes: it keeps one worker of the local engine, hands it a task and tells how the task ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from shardmig.engines.base import Outcome
from shardmig.engines.local import LocalEngine
from shardmig.errors import DeadlineExceeded


class Ended(NamedTuple):
    """How a task ended on its node: `reply`, or `cause` without one. seconds: that it took there, waiting for a node
    not included."""

    reply: bytes | None
    cause: str
    is_overdue: bool
    seconds: float


class _Kept:
    """A worker that stays for the next task, since importing the libraries of a tracker takes seconds."""

    def __init__(self, work_name: str, deadline_s: float | None) -> None:
        self.purpose = (work_name, deadline_s)
        self._task = b""
        self._engine = LocalEngine(1, deadline_s=deadline_s)
        self._outcomes = self._engine.execute(self._tasks(), work_name)

    def execute(self, task: bytes) -> Outcome:
        """How one task ended."""
        self._task = task
        return next(self._outcomes)

    def close(self) -> None:
        """End the worker."""
        self._engine.close()

    def _tasks(self) -> Iterator[bytes]:
        while True:
            yield self._task


_kept: _Kept | None = None


def supervise(work_name: str, deadline_s: float | None, task: bytes) -> Ended:
    """Execute one task in this node's worker. The worker dies with this process, and its children with it."""
    global _kept  # noqa: PLW0603 - a Ray process executes one task at a time
    if _kept is None or _kept.purpose != (work_name, deadline_s):
        if _kept is not None:
            _kept.close()
        _kept = _Kept(work_name, deadline_s)
    outcome = _kept.execute(task)
    is_overdue = isinstance(outcome.failure, DeadlineExceeded)
    return Ended(outcome.reply, str(outcome.failure or ""), is_overdue, outcome.seconds)
