"""The contract of an engine: where tasks execute, and what is owed to whoever hands them over.

An engine is handed bytes and a function; it knows neither shards nor adapters nor the journal. tests/contract/test_engines.py
is the contract as one suite, executed over every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from shardmig.errors import DeadlineExceeded, WorkerLost

Work = Callable[[bytes], bytes]
"""What a worker does with a task. A function of an importable module (no lambda, no closure, not of `__main__`). It never raises:
an engine that sees it raise counts the attempt as lost."""


class Ahead(NamedTuple):
    """What may be done before there is a task, while the coordinator makes its plan. `imports`: modules that workers will need,
    which take seconds; one that is missing is the work's to tell of."""

    work: Work
    imports: Sequence[str]


Tick = Callable[[], None]

TICK_S = 0.5
"""`tick` is called at least this often, in seconds, while an engine waits."""


class Outcome(NamedTuple):
    """How one task ended: `reply` or `failure`, exactly one of them is not None.

    task: the very object that was pulled. started_s: Unix time at which it was handed to a worker.
    seconds: from then until its end was seen.
    """

    task: bytes
    reply: bytes | None
    failure: WorkerLost | DeadlineExceeded | None
    started_s: float
    seconds: float


class Engine(Protocol):
    """Executes tasks on `slots` workers at once.

    Exactly one outcome per task, in order of completion. A task's failure is an outcome, never raised: a worker that
    is killed or overdue costs one attempt of one task and nothing else. An engine retries nothing.
    """

    slots: int
    host: str
    """The address by which workers on other computers reach this one; "": there are none."""

    def execute(self, tasks: Iterator[bytes | None], work: Work, tick: Tick | None = None) -> Iterator[Outcome]:
        """Execute `work` on each task.

        A task is pulled only when a slot is free and the consumer asks for an outcome: never more than `slots` tasks
        have been pulled whose outcome has not been delivered. None from `tasks` means that nothing is ready: it is
        asked again after the next outcome. Raises ValueError when it says so with nothing in flight, since then
        nothing would ever become ready; and for a work that cannot be named.
        `tick` is called at least every TICK_S while waiting. Whatever `tasks` or `tick` raise, closing the iterator
        early included, ends the workers in flight and leaves no child process.
        """
        ...

    def stop(self) -> None:
        """Pull no further task, now or later: `execute` ends when the tasks in flight have ended. Callable from
        `tick`, from a signal handler and from another thread."""
        ...

    def close(self) -> None:
        """Stop, and kill the workers in flight; their tasks are lost. Leaves no child process; idempotent."""
        ...


def attempt(work: Work, task: bytes) -> bytes | WorkerLost:
    """The reply of a work, or what it broke its promise with. A KeyboardInterrupt is the user's and passes."""
    try:
        return work(task)
    except (Exception, SystemExit) as error:  # noqa: BLE001 — "a task's failure never raises" has to be held somewhere
        return WorkerLost(f"the work raised {type(error).__name__}: {error}")
