"""structlog set-up: JSON lines, one file per attempt, never overwritten. Event names are in one enum.

structlog's global configuration is left alone: shardmig is also a library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog


class Event(StrEnum):
    """Everything that is logged. Values go into fields, never into the name."""

    ATTEMPT_STARTED = "attempt.started"
    ATTEMPT_ENDED = "attempt.ended"
    RUN_STARTED = "run.started"
    RUN_RESUMED = "run.resumed"
    RUN_MENDED = "run.mended"
    RUN_DAMAGED = "run.damaged"
    RUN_ENDED = "run.ended"
    RUN_FAILED = "run.failed"
    RUN_SKIPPED = "run.skipped"
    CALL_RETRIED = "call.retried"
    PROJECT_SKIPPED = "project.skipped"
    FALLBACK = "adapter.fallback"


_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(ensure_ascii=False),
]


def _logger(sink: Any) -> Any:
    return structlog.wrap_logger(sink, processors=_PROCESSORS, wrapper_class=structlog.BoundLogger)


_silent = structlog.wrap_logger(structlog.ReturnLogger(), processors=[], wrapper_class=structlog.BoundLogger)
_current = _silent


def get_logger() -> Any:
    """The logger of the attempt in progress in this process; outside an attempt, one that says nothing."""
    return _current


@contextmanager
def attempt_log(path: Path, **bound: Any) -> Iterator[Any]:
    """Log to a file while the context lasts, with `bound` in every line. A file of that name (of an attempt that the
    journal has lost) is continued: nothing is overwritten."""
    global _current  # noqa: PLW0603 - one attempt at a time in a worker; threads of the attempt must see it too
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        _current = _logger(structlog.WriteLogger(file)).bind(**bound)
        try:
            yield _current
        finally:
            _current = _silent
