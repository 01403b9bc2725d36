"""The inline engine: tasks execute one after the other in the calling process, for debuggers and tests.

It cannot outlive a work that kills its process, and it enforces no deadline.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout

from shardmig.engines.base import Outcome, Tick, Work, attempt
from shardmig.errors import WorkerLost


class InlineEngine:
    """One slot, no process. `tick` is called before each task. What a work prints goes to standard error."""

    slots = 1
    host = ""

    def __init__(self) -> None:
        self._stopped = False

    def execute(self, tasks: Iterator[bytes | None], work: Work, tick: Tick | None = None) -> Iterator[Outcome]:
        """Execute each task when its outcome is asked for."""
        while not self._stopped:
            try:
                task = next(tasks)
            except StopIteration:
                return
            if task is None:
                raise ValueError("no task is ready and none is in flight")
            if tick is not None:
                tick()
            started_s, start = time.time(), time.monotonic()
            with redirect_stdout(sys.stderr):
                reply = attempt(work, task)
            lost = reply if isinstance(reply, WorkerLost) else None
            yield Outcome(
                task, None if isinstance(reply, WorkerLost) else reply, lost, started_s, time.monotonic() - start
            )

    def stop(self) -> None:
        """Pull no further task."""
        self._stopped = True

    def close(self) -> None:
        """As `stop`: there is no worker to end."""
        self._stopped = True
