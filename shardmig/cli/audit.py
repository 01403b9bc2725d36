"""The command that says what an archive lacks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from typer import Option

from shardmig.cli.exits import ExitCode
from shardmig.cli.flags import ArchiveFlags, SelectionFlags, SourceFlags
from shardmig.cli.moving import take_token
from shardmig.cli.speech import Speech
from shardmig.errors import UsageError

if TYPE_CHECKING:
    from shardmig.report.audit import Audit

_SAY_EVERY_S: Final = 10.0


def audit(
    source: SourceFlags,
    archive: ArchiveFlags,
    selection: SelectionFlags,
    speech: Speech,
    exporter_errors: Annotated[
        list[Path] | None,
        Option(metavar="FILE", help="neptune-exporter's report of errors, for an archive that it wrote. Repeatable."),
    ] = None,
) -> int:
    """Say what an archive lacks, by the counts of a Neptune server.

    \b
    shardmig audit --source neptune3 -p ws/name
    shardmig audit

    Asks for every selected run which fields the server has and how many rows it counts in them. Finds runs, fields and
    rows that the archive lacks; also in archives of neptune-exporter. Reads no values: `export` has checked those.
    Without --source it tells what the archive says of itself.
    """
    from shardmig import planner
    from shardmig.cli import asked
    from shardmig.report import audit as answer

    take_token(source.api_token, speech)
    paths, chosen = asked.existing_archive_of(archive), asked.selection_of(selection)
    if source.source is None:
        errors = [error for file in exporter_errors or () for error in answer.errors_in(_content(file))]
        found = answer.audit_of_archive(paths, chosen, errors)
    elif exporter_errors:
        raise UsageError("--exporter-errors is for an audit without --source", hint="a server says itself what it has")
    else:
        server = asked.source_of(source, chosen.projects, paths)
        request = planner.Request(phases=("survey",), source=server, archive=paths, selection=chosen)
        found = answer.audit_of(request, _Progress(speech).tell)
    if not found.runs and not found.refused:
        raise UsageError("no run is selected", hint="`shardmig plan` with fewer filters shows what there is")
    speech.answer(found, answer.shown(found, verbose=speech.is_verbose))
    return _exit_code(found)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"--exporter-errors: {file}: {error.strerror}") from error


def _exit_code(found: Audit) -> ExitCode:
    if found.all("incomplete", "changed since", "not in the archive"):
        return ExitCode.DIFFERENCES
    return ExitCode.FAILED_RUNS if found.refused or found.all("failed") else ExitCode.COMPLETE


class _Progress:
    """Says now and then how far an audit is."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech
        self._said_s = time.monotonic()

    def tell(self, runs: int) -> None:
        if time.monotonic() - self._said_s > _SAY_EVERY_S:
            self._said_s = time.monotonic()
            self._speech.say(f"{runs:,} runs compared")
