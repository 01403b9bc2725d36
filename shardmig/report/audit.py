"""The answer of `audit`: what the server counts itself, against what the archive holds.

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
from shardmig.errors import NotFound, Permanent
from shardmig.listing import Listing
from shardmig.planner import Request
from shardmig.records import SERIES_TYPES, Failure, FieldType, ProjectId, Receipt, RunRef, Selection
from shardmig.report import refused, terminal, words
from shardmig.selection import Matcher

Standing = Literal["agrees", "explained", "incomplete", "not in the archive", "changed since", "failed"]

_THREADS: Final = 8
_RUNS_AT_ONCE: Final = 64
_MOST_RUNS_SHOWN: Final = 20
_MOST_FIELDS_SHOWN: Final = 5
_STYLES: Final[dict[Standing, str]] = {"incomplete": "red", "not in the archive": "red", "failed": "red"}


class Lacking(msgspec.Struct, frozen=True):
    """A field of which the server has more rows than the archive. server: None = some, it does not say how many.
    explained: the reason code that the export gave for it."""

    path: str
    type: FieldType
    server: int | None
    archive: int
    explained: str = ""


class Total(msgspec.Struct, frozen=True):
    """A sum that the server makes by itself, and the archive's."""

    server: int
    archive: int


class RunAudit(msgspec.Struct, frozen=True, kw_only=True):
    """One run. fields, rows: that the server counts. only_in_archive: fields that the server does not list.

    agrees              nothing is missing
    explained           what is missing, the export said: a gap or a loss of that field
    incomplete          something else is missing
    changed since       something is missing, and the run was written to after its export: --update brings it
    not in the archive  it was never exported
    failed              it could not be compared
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
    """All selected runs of the server. refused: projects that could not be listed."""

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
    reasons = {finding.field: finding.code for finding in receipt.findings} if receipt is not None else {}
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
    totals = terminal.table("runs", ">count", ">fields on the server", ">rows")
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
    chosen = audit.runs if verbose else [run for run in audit.runs if run.standing != "agrees"]
    for run in chosen if verbose else chosen[:_MOST_RUNS_SHOWN]:
        yield from _run_shown(run, verbose=verbose)
    if not verbose and (more := len(chosen) - _MOST_RUNS_SHOWN) > 0:
        yield Text(f"and {words.plural(more, 'more run')}: see -v or --json")
    yield from refused.shown(audit.refused)


def _run_shown(run: RunAudit, *, verbose: bool) -> Iterator[RenderableType]:
    why = f": {run.message}" if run.message else ""
    yield terminal.name(f"{run.run}: {run.standing}{why}", style=_STYLES.get(run.standing, ""))
    for one in run.lacking if verbose else run.lacking[:_MOST_FIELDS_SHOWN]:
        server = "some" if one.server is None else words.count(one.server)
        explained = f" ({one.explained})" if one.explained else ""
        yield terminal.name(f"  {one.path} ({one.type}): {server} there, {words.count(one.archive)} here{explained}")
    if not verbose and (more := len(run.lacking) - _MOST_FIELDS_SHOWN) > 0:
        yield Text(f"  and {words.plural(more, 'more field')}")
    if verbose and run.only_in_archive:
        yield Text(f"  {words.plural(run.only_in_archive, 'field')} only in the archive")
    for name, total in run.totals.items() if verbose else ():
        yield terminal.name(f"  {name}: {words.count(total.server)} by the server's own sum, {total.archive:,} here")
