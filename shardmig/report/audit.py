"""The answer of `audit`: what is known to be missing in an archive, by the server's own counts or by the archive's own
receipts and neptune-exporter's report of errors.

An audit looks for what is missing. That the archive holds more than a server counts proves nothing: fields may have been
removed there since, and not all that servers count is documented.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Literal

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.adapters.counts import Counting, ServerCounts
from shardmig.adapters.registry import open_counting
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import NotFound, Permanent, UsageError
from shardmig.listing import Listing
from shardmig.planner import Request
from shardmig.records import (
    SCOPES,
    SERIES_TYPES,
    ArchivePaths,
    Failure,
    FieldType,
    ProjectId,
    Receipt,
    RunId,
    RunRef,
    Selection,
)
from shardmig.report import refused, terminal, words
from shardmig.selection import Matcher

Standing = Literal[
    "agrees", "explained", "whole", "unknown", "incomplete", "changed since", "not in the archive", "failed"
]

_THREADS: Final = 8
_RUNS_AT_ONCE: Final = 64
_MOST_RUNS_SHOWN: Final = 20
_MOST_FIELDS_SHOWN: Final = 5
_GOOD: Final[tuple[Standing, ...]] = ("agrees", "whole")
_ABSENCES: Final = frozenset(
    {
        "artifact-list-unknown",
        "file-not-here",
        "file-not-stored",
        "no-file-matched",
        "point-without-value",
        "previews-left-out",
        "uploaded-file-gone",
        "value-not-offered",
    }
)
"""Gaps and notes of one field that say that rows of it are not there. Not `empty-series` and `field-without-value`:
what a server has there by now was written since. Others, as `image-time-unknown` and `step-rounded`, tell of rows that
are."""

_STYLES: Final[dict[Standing, str]] = {"incomplete": "red", "not in the archive": "red", "failed": "red"}


class Lacking(msgspec.Struct, frozen=True):
    """A field of which there are more rows than the archive holds. server: None = it is not said how many.
    explained: the reason that the export, or neptune-exporter, gave for it."""

    path: str
    type: str
    server: int | None
    archive: int
    explained: str = ""


class Total(msgspec.Struct, frozen=True):
    """A sum that the server makes by itself, and the archive's."""

    server: int
    archive: int


class RunAudit(msgspec.Struct, frozen=True, kw_only=True):
    """One run. fields, rows: that the server counts, or that the archive holds if no server is asked. only_in_archive:
    fields that the server does not list.

    agrees              nothing is missing that the server has
    explained           what is missing, the export said: a loss of that field, or a gap or note that names an absence
    whole               no server is asked; the receipt says that nothing is missing
    unknown             no server is asked, and there is no receipt: neptune-exporter wrote it
    incomplete          something is missing
    changed since       something is missing, and the run was written to after its export: --update brings it
    not in the archive  it was never exported, or nothing of it arrived
    failed              it could not be compared, or is damaged
    """

    run: str
    standing: Standing
    fields: int = 0
    rows: int = 0
    lacking: list[Lacking] = []
    only_in_archive: int = 0
    totals: dict[str, Total] = {}
    message: str = ""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """All selected runs: of the server, or of the archive if source is "". refused: projects that could not be listed."""

    source: str
    runs: list[RunAudit]
    refused: dict[ProjectId, Failure]

    def all(self, *standings: Standing) -> list[RunAudit]:
        """The runs that stand so."""
        return [run for run in self.runs if run.standing in standings]


def audit_of(request: Request, observe: Callable[[int], None] = lambda _: None) -> Audit:
    """Compare every selected run, of which `observe` is told how many are done. Raises UsageError for a source without
    counts, Transient and Fatal of the server."""
    reader = ArchiveReader(request.archive)
    listing = Listing(request)
    found: list[RunAudit] = []
    source = open_counting(request.source)
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="audit") as threads:
            listed = iter(listing.runs())
            while batch := list(itertools.islice(listed, _RUNS_AT_ONCE)):
                found += threads.map(partial(_audited, reader, source, request.selection), batch)
                observe(len(found))
    finally:
        source.close()
    return Audit(source=request.source.name, runs=found, refused=listing.refused)


class ExporterError(msgspec.Struct, frozen=True):
    """A line of neptune-exporter's report of errors: what it left out, of a run that it then took for whole."""

    project_id: str | None = None
    run_id: str | None = None
    attribute_path: str | None = None
    attribute_type: str | None = None
    exception: str | None = None


def errors_in(report: bytes) -> list[ExporterError]:
    """The lines of a report. Raises UsageError for one that is none."""
    try:
        return msgspec.json.Decoder(ExporterError).decode_lines(report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"this is no report of errors of neptune-exporter: {error}") from error


def audit_of_archive(archive: ArchivePaths, selection: Selection, errors: Iterable[ExporterError] = ()) -> Audit:
    """What the archive itself, and `errors`, say of every selected run, also of one that only `errors` name. Contents
    are not read: `verify` does."""
    reader = ArchiveReader(archive)
    matcher = Matcher(selection)
    told: dict[tuple[str, str], list[ExporterError]] = {}
    for error in errors:
        told.setdefault((error.project_id or "", error.run_id or ""), []).append(error)
    runs = [run for project in reader.projects() for scope in SCOPES for run in reader.runs(project, scope)]
    found = [_by_itself(reader, run, told.get((run.project, run.id), [])) for run in runs if matcher.wants_run(run)]
    held = {(str(run.project), str(run.id)) for run in runs}
    found += _only_reported({run: told[run] for run in told if run not in held}, matcher)
    return Audit(source="", runs=found, refused=_unlisted(told, matcher))


def _unlisted(told: Mapping[tuple[str, str], list[ExporterError]], matcher: Matcher) -> dict[ProjectId, Failure]:
    """The selected projects that a report has a line of without a run: they could not be listed, or not to the end."""
    return {
        ProjectId(project): Failure("ExporterError", "permanent", errors[0].exception or "an error without a name")
        for (project, run_id), errors in told.items()
        if not run_id and (not project or matcher.wants_project(project))
    }


def _only_reported(told: Mapping[tuple[str, str], list[ExporterError]], matcher: Matcher) -> Iterator[RunAudit]:
    """The selected runs of a report that the archive has nothing of."""
    for (project, run_id), errors in told.items():
        run = RunRef(project=ProjectId(project), id=RunId(run_id))
        if run_id and matcher.wants_run(run):
            lacking = [_left_out(one, {}) for one in errors]
            yield RunAudit(run=run.label, standing="not in the archive", lacking=lacking)


def _by_itself(reader: ArchiveReader, run: RunRef, errors: Iterable[ExporterError]) -> RunAudit:
    try:
        receipt = reader.receipt(run)
        held = reader.fields(run)
    except Permanent as error:
        return RunAudit(run=run.label, standing="failed", message=error.message)
    standing: Standing = "unknown" if receipt is None else "whole"
    if receipt is None:
        lacking = [_left_out(one, held) for one in errors]
    else:
        losses = [one for one in receipt.findings if one.kind == "loss"]
        lacking = [Lacking(one.field, "", None, _rows(held, one.field), one.code) for one in losses]
    return RunAudit(
        run=run.label,
        standing="incomplete" if lacking else standing,
        fields=len(held),
        rows=sum(held.values()),
        lacking=lacking,
        message="" if receipt is not None else "no receipt: whether it is whole, only the server can say",
    )


def _left_out(error: ExporterError, held: Mapping[tuple[str, FieldType], int]) -> Lacking:
    path = error.attribute_path or ""
    return Lacking(path, error.attribute_type or "", None, _rows(held, path), error.exception or "")


def _rows(held: Mapping[tuple[str, FieldType], int], path: str) -> int:
    return sum(rows for (found, _), rows in held.items() if found == path)


def _audited(reader: ArchiveReader, source: Counting, selection: Selection, run: RunRef) -> RunAudit:
    try:
        held = reader.fields(run)
        receipt = reader.receipt(run)
    except NotFound:
        return RunAudit(run=run.label, standing="not in the archive")
    except Permanent as error:
        return RunAudit(run=run.label, standing="failed", message=error.message)
    try:
        told = source.counts_of(run, selection)
    except Permanent as error:
        return RunAudit(run=run.label, standing="failed", message=error.message)
    lacking = list(_lacking(told, held, receipt))
    listed = {(field.path, field.type) for field in told.fields}
    wants = Matcher(selection)
    return RunAudit(
        run=run.label,
        standing=_standing(lacking, receipt is not None and receipt.run.fingerprint != run.fingerprint),
        fields=len(told.fields),
        rows=sum(field.rows or 0 for field in told.fields),
        lacking=lacking,
        only_in_archive=sum(wants.wants_field(*key) for key in held.keys() - listed),
        totals=_totals(told, held) if wants.takes_every_field else {},
    )


def _lacking(
    told: ServerCounts, held: Mapping[tuple[str, FieldType], int], receipt: Receipt | None
) -> Iterator[Lacking]:
    findings = receipt.findings if receipt is not None else []
    reasons = {one.field: one.code for one in findings if one.kind == "loss" or one.code in _ABSENCES}
    for field in told.fields:
        rows = held.get((field.path, field.type), 0)
        if rows < (1 if field.rows is None else field.rows):
            yield Lacking(field.path, field.type, field.rows, rows, reasons.get(field.path, ""))


def _standing(lacking: Iterable[Lacking], has_changed: bool) -> Standing:
    unexplained = [one for one in lacking if not one.explained]
    if unexplained:
        return "changed since" if has_changed else "incomplete"
    return "explained" if lacking else "agrees"


def _totals(told: ServerCounts, held: Mapping[tuple[str, FieldType], int]) -> dict[str, Total]:
    by_type = Counter(str(field_type) for _, field_type in held)
    points = sum(rows for (_, field_type), rows in held.items() if field_type in SERIES_TYPES)
    ours = by_type | {"fields": len(held), "points": points}
    return {name: Total(number, ours.get(name, 0)) for name, number in told.totals.items()}


def shown(audit: Audit, *, verbose: bool = False) -> Iterator[RenderableType]:
    """For people: how many runs stand how, and what is missing; with `verbose` every run and the server's sums."""
    totals = terminal.table("runs", ">count", ">fields", ">rows")
    for standing, number in Counter(run.standing for run in audit.runs).items():
        runs = audit.all(standing)
        terminal.row(
            totals,
            terminal.name(standing, _STYLES.get(standing, "")),
            words.count(number),
            words.count(sum(run.fields for run in runs)),
            words.count(sum(run.rows for run in runs)),
        )
    yield totals
    chosen = audit.runs if verbose else [run for run in audit.runs if run.standing not in _GOOD]
    for run in chosen if verbose else chosen[:_MOST_RUNS_SHOWN]:
        yield from _run_shown(run, verbose=verbose)
    if not verbose and (more := len(chosen) - _MOST_RUNS_SHOWN) > 0:
        yield Text(f"and {words.plural(more, 'more run')}: see -v or --json")
    yield from refused.shown(audit.refused)


def _run_shown(run: RunAudit, *, verbose: bool) -> Iterator[RenderableType]:
    why = f": {run.message}" if run.message else ""
    yield terminal.name(f"{run.run}: {run.standing}{why}", style=_STYLES.get(run.standing, ""))
    for one in run.lacking if verbose else run.lacking[:_MOST_FIELDS_SHOWN]:
        field = " ".join(filter(None, [one.path or "the run", f"({one.type})" if one.type else ""]))
        server = "some" if one.server is None else words.count(one.server)
        explained = f" ({one.explained})" if one.explained else ""
        yield terminal.name(f"  {field}: {server} there, {words.count(one.archive)} here{explained}")
    if not verbose and (more := len(run.lacking) - _MOST_FIELDS_SHOWN) > 0:
        yield Text(f"  and {words.plural(more, 'more field')}")
    if verbose and run.only_in_archive:
        yield Text(f"  {words.plural(run.only_in_archive, 'field')} only in the archive")
    for name, total in run.totals.items() if verbose else ():
        yield terminal.name(f"  {name}: {words.count(total.server)} by the server's own sum, {total.archive:,} here")
