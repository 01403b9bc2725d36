"""The error taxonomy: the class of an error decides what happens next, not the place that catches it.

ShardmigError
├── UsageError                  the command line or configuration is wrong          exit 2
│   ├── UnknownAdapter
│   └── MissingExtra            an optional package is not installed
├── PlanError                   the frozen plan cannot be carried out               exit 4
│   ├── PlanMismatch            plan or source changed since it was frozen
│   ├── JournalCorrupt
│   └── JournalLocked           another coordinator holds the migration             exit 6
├── AdapterError                a source or target refused
│   ├── Transient               the same call may succeed later: retried with back-off
│   │   ├── RateLimited         carries retry_after_s
│   │   ├── Unavailable
│   │   └── TimedOut
│   ├── Permanent               this run (or field) cannot succeed: it fails, the shard goes on
│   │   ├── NotFound
│   │   ├── Denied
│   │   ├── Unsupported
│   │   ├── BadInput            the file, run or field is not what it should be
│   │   │   └── HostilePath     a name that would leave its root
│   │   ├── StepConflict        steps would merge or overflow under the step multiplier
│   │   └── TargetConflict      the target holds another version of this run
│   └── Fatal                   nothing further can succeed: drain and stop, resumable
│       ├── AuthFailed
│       ├── QuotaExceeded
│       └── DiskFull
├── WorkerLost                  a worker process died: costs one attempt of one shard
├── DeadlineExceeded            an attempt took longer than allowed: as WorkerLost
└── Interrupted                 Ctrl-C or SIGTERM                                   exit 130

Anything else is *unclassified*: one retry, then the run fails and is counted as such.
Exceptions never cross a process boundary: `records.Failure` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Element = TypeVar("Element")
Result = TypeVar("Result")

UNREACHED_BEFORE_END: Final = 2
"""So many runs in a row that could not be reached: the other side is down, and who waited for each would wait for hours."""


class ShardmigError(Exception):
    """Base of all errors that shardmig raises on purpose.

    `run` and `field` name what the error is about; `hint` says what the user can do about it.
    Each is empty where it does not apply.
    """

    def __init__(self, message: str, *, run: str = "", field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.run = run
        self.field = field
        self.hint = hint


class UsageError(ShardmigError):
    """The command line, the environment or a configuration file is wrong."""


class UnknownAdapter(UsageError):
    """No source or target has that name."""


class MissingExtra(UsageError):
    """A system's client library is not installed; the hint names the extra."""


class PlanError(ShardmigError):
    """The frozen plan cannot be carried out."""


class PlanMismatch(PlanError):
    """The plan, or the source it was made from, has changed."""


class JournalCorrupt(PlanError):
    """The journal holds something other than what was appended (a torn tail is not corruption)."""


class JournalLocked(PlanError):
    """Another coordinator holds this migration."""


class AdapterError(ShardmigError):
    """A source, a target or the archive refused; the subclass says what to do about it."""


class Transient(AdapterError):
    """The same call may succeed later. `patience_spent`: it was tried again for as long as one attempt waits."""

    patience_spent = False


class RateLimited(Transient):
    """The target asks for a pause of `retry_after_s` seconds (None: it did not say how long)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, run: str = "", field: str = "") -> None:
        super().__init__(message, run=run, field=field)
        self.retry_after_s = retry_after_s


class Unavailable(Transient):
    """The other side cannot be reached or answers 5xx."""


class TimedOut(Transient):
    """The other side did not answer in time."""


class Permanent(AdapterError):
    """This run or field cannot succeed however often it is tried."""


class NotFound(Permanent):
    """The named run, field or file does not exist."""


class Denied(Permanent):
    """No permission for this object (for all objects: AuthFailed)."""


class Unsupported(Permanent):
    """The other side has no way to do this."""


class BadInput(Permanent):
    """A file, run or field is not what it should be."""


class HostilePath(BadInput):
    """A name that would lead outside the root it belongs to."""


class StepConflict(Permanent):
    """Two steps would become one, or a step does not fit, under the step multiplier."""


class TargetConflict(Permanent):
    """The target already holds this run with other content."""


class Fatal(AdapterError):
    """Nothing further can succeed: drain, stop, resume later."""


class AuthFailed(Fatal):
    """The credentials are missing, wrong or expired."""


class QuotaExceeded(Fatal):
    """The target's storage or plan is used up."""


class DiskFull(Fatal):
    """The local disk is full."""


class WorkerLost(ShardmigError):
    """A worker process died under an attempt."""


class DeadlineExceeded(ShardmigError):
    """An attempt took longer than its deadline."""


class Interrupted(ShardmigError):
    """The user interrupted; everything done so far is kept."""


@contextmanager
def about_run(label: str) -> Iterator[None]:
    """An error of this block that names no run is about this one."""
    try:
        yield
    except ShardmigError as error:
        error.run = error.run or label
        raise


def settled(
    call: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result | AdapterError:
    """What a call gives, or what it raises for one run alone: Permanent or Transient."""
    try:
        return call(*arguments, **named)
    except (Permanent, Transient) as error:
        return error


def settled_each(call: Callable[[Element], Result], elements: Iterable[Element]) -> list[Result | AdapterError]:
    """`settled` of each. Behind UNREACHED_BEFORE_END in a row that could not be reached none is tried any more: the other
    side is down, and the error of the last one is that of the others as well."""
    results: list[Result | AdapterError] = []
    for element in elements:
        last = results[-UNREACHED_BEFORE_END:]
        is_down = len(last) == UNREACHED_BEFORE_END and all(isinstance(one, Transient) for one in last)
        results.append(last[-1] if is_down else settled(call, element))
    return results
