"""The error report of neptune-exporter: failed runs and lost values as JSON lines, for scripts that read its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from shardmig.records import FailedRun, Report


class ErrorLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One failure. The first five keys are neptune-exporter's; the others say what it leaves out."""

    project_id: str
    run_id: str
    attribute_path: str | None
    attribute_type: str | None
    exception: str
    phase: str = ""
    message: str = ""
    hint: str = ""


def append(report: Report, file: Path) -> None:
    """Append a line for each failed run, one for each kind of value that it lost, and one for each project that could
    not be listed."""
    with open(file, "ab") as lines:
        for project, failure in report.refused.items():
            line = ErrorLine(project, "", None, None, failure.error, "listing", failure.message, failure.hint)
            lines.write(msgspec.json.encode(line) + b"\n")
        for one in report.failed:
            lines.writelines(msgspec.json.encode(line) + b"\n" for line in _lines(one))


def _lines(one: FailedRun) -> Iterator[ErrorLine]:
    run, failure = one.outcome.run, one.outcome.failure
    losses = [finding for finding in (*one.outcome.findings, *one.outcome.differences) if finding.kind == "loss"]
    if failure is not None and not losses:
        field = failure.field or None
        yield ErrorLine(run.project, run.id, field, None, failure.error, one.phase, failure.message, failure.hint)
    for loss in losses:
        yield ErrorLine(run.project, run.id, loss.field or None, None, loss.code, one.phase, loss.detail)
