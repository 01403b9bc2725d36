"""One attempt: bytes in, bytes out. Never raises; knows nothing of plan and journal."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from shardmig import codec, logs
from shardmig.adapters.budget import spending_as
from shardmig.errors import AdapterError, DiskFull, Fatal, Permanent, ShardmigError, Transient
from shardmig.logs import Event
from shardmig.records import Disposition, Failure, Phase, RunOutcome, Task, TaskResult
from shardmig.worker.export import export_shard
from shardmig.worker.load import load_shard
from shardmig.worker.survey import survey_shard
from shardmig.worker.tally import ProgressFile
from shardmig.worker.verify_shard import verify_shard

Execute = Callable[[Task, ProgressFile, Callable[[RunOutcome], None]], None]

_PHASES: Final[dict[Phase, Execute]] = {
    "survey": survey_shard,
    "export": export_shard,
    "load": load_shard,
    "verify": verify_shard,
}


def execute(payload: bytes) -> bytes:
    """Execute one Task and return its TaskResult. Runs that ended before a failure are in the result."""
    asked: Task = codec.decode(payload, Task)
    task = _with_own_folders(asked)
    started_ms = _now_ms()
    outcomes: list[RunOutcome] = []
    failure: Failure | None = None
    try:
        with (
            spending_as(f"{task.phase} of {task.shard.id}", task.lessor),
            logs.attempt_log(Path(task.log), shard=task.shard.id, phase=task.phase, attempt=task.attempt) as log,
        ):
            log.info(Event.ATTEMPT_STARTED, runs=len(task.shard.runs))
            try:
                _PHASES[task.phase](task, ProgressFile(Path(task.progress)), outcomes.append)
            except Exception as error:
                failure = failure_of(error)
                log.exception(Event.ATTEMPT_ENDED, failure=failure.error)
            else:
                log.info(Event.ATTEMPT_ENDED, runs=len(outcomes))
    except Exception as error:  # noqa: BLE001 - a worker never raises
        failure = failure or failure_of(error)
    result = TaskResult(
        shard=task.shard.id,
        phase=task.phase,
        attempt=task.attempt,
        runs=outcomes,
        failure=failure,
        started_ms=started_ms,
        ended_ms=_now_ms(),
        log=b"" if task is asked else _taken(Path(task.log)),
    )
    try:
        return codec.encode(result)
    except UnicodeEncodeError:  # the name of a file that is no text, in what is told of it
        return codec.encode(msgspec.convert(_as_text(msgspec.to_builtins(result, builtin_types=(bytes,))), TaskResult))


def _as_text(told: Any) -> Any:
    """With every text made one that UTF-8 has."""
    match told:
        case str():
            return told.encode("utf-8", "backslashreplace").decode()
        case list():
            return [_as_text(one) for one in told]
        case dict():
            return {key: _as_text(one) for key, one in told.items()}
        case _:
            return told


def _with_own_folders(task: Task) -> Task:
    """The task as it is where this computer shares the coordinator's disk, else with folders of this computer."""
    if Path(task.spool).is_dir():
        return task
    own = Path(tempfile.gettempdir(), f"shardmig-{os.getuid()}", task.migration)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    log, progress = own / Path(task.log).name, own / Path(task.progress).name
    return msgspec.structs.replace(task, spool=str(own), log=str(log), progress=str(progress))


def _taken(log: Path) -> bytes:
    try:
        written = log.read_bytes()
        log.unlink()
    except OSError:  # a full disk has been told of by whoever met it first
        return b""
    return written


def failure_of(error: BaseException) -> Failure:
    """An exception as a record; its class decides the disposition."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        error = DiskFull(f"the disk is full: {error}", hint="free space and give the same command again")
    if isinstance(error, ShardmigError):
        return Failure(type(error).__name__, _disposition(error), error.message, error.run, error.field, error.hint)
    return Failure(type(error).__name__, "unclassified", f"{type(error).__name__}: {error}")


def _disposition(error: ShardmigError) -> Disposition:
    if isinstance(error, Transient):
        return "transient"
    if isinstance(error, Fatal):
        return "fatal"
    if isinstance(error, Permanent):
        return "permanent"
    return "unclassified" if isinstance(error, AdapterError) else "fatal"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
