"""Exit codes: the one table of what each means and which error leads to it."""

from __future__ import annotations

from enum import IntEnum

from shardmig.errors import (
    AdapterError,
    DeadlineExceeded,
    Fatal,
    Interrupted,
    JournalLocked,
    PlanError,
    ShardmigError,
    UsageError,
    WorkerLost,
)


class ExitCode(IntEnum):
    """How a command ended. Codes may be added: treat one that you do not know as a failure."""

    COMPLETE = 0
    INTERNAL = 1
    USAGE = 2
    FAILED_RUNS = 3
    PLAN = 4
    DIFFERENCES = 5
    LOCKED = 6
    STOPPED = 7
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.COMPLETE: "complete: every selected run is published, loaded, equal or approximated",
    ExitCode.INTERNAL: "internal error: a defect of shardmig",
    ExitCode.USAGE: "the command line or the configuration is wrong",
    ExitCode.FAILED_RUNS: "some runs failed, or the source or target refused; what is done is kept",
    ExitCode.PLAN: "the plan or the source changed since the migration was planned",
    ExitCode.DIFFERENCES: "verify found differences, or audit something that is missing",
    ExitCode.LOCKED: "another process is executing this migration",
    ExitCode.STOPPED: "stopped, since nothing further could succeed (credentials, quota, disk); resumable",
    ExitCode.INTERRUPTED: "interrupted: the same command again goes on",
}

_COMPLETE: dict[str, str] = {
    "export": "complete: every selected run is in the archive",
    "export-models": "complete: every selected model and version is in the archive",
    "load": "complete: every selected run is in the target",
    "migrate": "complete: every selected run is in the archive and in the target",
    "verify": "complete: every compared run is equal, or differs only as the target forces it to (approximated)",
    "retry": "complete: no run is left over",
    "execute-shard": "complete: every run of the shard is done",
    "collect": "complete: every run of the plan is done",
}

_CODES: tuple[tuple[type[ShardmigError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (JournalLocked, ExitCode.LOCKED),
    (PlanError, ExitCode.PLAN),
    (Interrupted, ExitCode.INTERRUPTED),
    (Fatal, ExitCode.STOPPED),
    (AdapterError, ExitCode.FAILED_RUNS),
    (WorkerLost, ExitCode.FAILED_RUNS),
    (DeadlineExceeded, ExitCode.FAILED_RUNS),
)


def exit_code_of(error: ShardmigError) -> ExitCode:
    """The exit code that an error leads to when it reaches the command line."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL


def meaning_of(code: int, command: str = "") -> str:
    """What an exit code means, for people; of 0, what it means for this command."""
    if code == ExitCode.COMPLETE and command in _COMPLETE:
        return _COMPLETE[command]
    return MEANINGS[ExitCode(code)] if code in set(ExitCode) else f"failed with code {code}"
