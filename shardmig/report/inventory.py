"""The answer of `summary`: what an archive holds, by project and type."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.archive.layout import project_folder
from shardmig.archive.places import Place, root_of
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.store import ObjectPath
from shardmig.errors import BadInput
from shardmig.records import FILE_TYPES, SCOPES, ArchivePaths, FieldType, ProjectId, RunRef, Scope
from shardmig.report import terminal, words
from shardmig.report.contents import FieldContents, contents_of


class ProjectInventory(msgspec.Struct, frozen=True, kw_only=True):
    """One scope of one project. fields: number of fields by type, over all runs. rows: points, texts, histograms and
    files by type. with_receipt: runs that are known to be whole. unreadable: what could not be read, by run."""

    project: str
    scope: Scope
    runs: int
    with_receipt: int
    archived: int
    created_first_ms: int | None
    created_last_ms: int | None
    fields: dict[str, int]
    rows: dict[str, int]
    lowest_step: str
    highest_step: str
    parquet_bytes: int
    unreadable: dict[str, str]


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """A whole archive. file_bytes: what lies below its files folder, by project."""

    data_path: str
    files_path: str
    projects: list[ProjectInventory]
    file_bytes: dict[str, int]


def inventory_of(archive: ArchivePaths) -> Inventory:
    """Count everything. Reads receipts, and of runs without one only the columns that are needed."""
    reader = ArchiveReader(archive)
    projects = list(reader.projects())
    found = [_project(reader, project, scope) for project in projects for scope in SCOPES]
    return Inventory(
        data_path=archive.data,
        files_path=archive.files,
        projects=[one for one in found if one.runs or one.unreadable],
        file_bytes={project: _size(project_folder(root_of(archive.files), project)) for project in projects},
    )


def all_shown(inventories: Iterable[Inventory]) -> Iterator[RenderableType]:
    """Several inventories for people."""
    for number, inventory in enumerate(inventories):
        if number:
            yield Text()
        yield from shown(inventory)


def shown(inventory: Inventory) -> Iterator[RenderableType]:
    """The inventory for people."""
    yield terminal.name(f"archive {inventory.data_path}, files {inventory.files_path}")
    if not inventory.projects:
        yield Text("the archive holds no runs")
        return
    listed = terminal.table(
        "project",
        ">runs",
        ">whole",
        ">fields",
        ">points",
        ">texts",
        ">histograms",
        ">files",
        "steps",
        ">parquet",
        ">file bytes",
    )
    for one in inventory.projects:
        terminal.row(
            listed,
            one.project if one.scope == "runs" else f"{one.project} {one.scope}",
            words.count(one.runs),
            words.count(one.with_receipt),
            words.count(sum(one.fields.values())),
            words.count(one.rows.get("float_series", 0)),
            words.count(one.rows.get("string_series", 0)),
            words.count(one.rows.get("histogram_series", 0)),
            words.count(sum(one.rows.get(kind, 0) for kind in FILE_TYPES)),
            f"{one.lowest_step} to {one.highest_step}" if one.lowest_step else "",
            words.size(one.parquet_bytes),
            words.size(inventory.file_bytes[one.project]) if one.scope == "runs" else "",
        )
    yield listed
    yield Text()
    yield _types(inventory.projects)
    yield from _warnings(inventory.projects)


def _types(projects: list[ProjectInventory]) -> RenderableType:
    fields: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for one in projects:
        fields.update(one.fields)
        rows.update(one.rows)
    listed = terminal.table("type", ">fields", ">rows")
    for kind in sorted(fields):
        terminal.row(listed, kind, words.count(fields[kind]), words.count(rows[kind]))
    return listed


def _warnings(projects: list[ProjectInventory]) -> Iterator[RenderableType]:
    if unknown := sum(one.runs - one.with_receipt for one in projects):
        yield Text()
        yield Text(
            f"{words.plural(unknown, 'run')} without receipt: whether they are whole is not known", style="yellow"
        )
    for one in projects:
        for run, why in one.unreadable.items():
            yield terminal.name(f"cannot be read: {run}: {why}", style="red")


def _project(reader: ArchiveReader, project: ProjectId, scope: Scope) -> ProjectInventory:
    runs: list[RunRef] = []
    fields: Counter[FieldType] = Counter()
    rows: Counter[FieldType] = Counter()
    steps: list[Decimal] = []
    unreadable: dict[str, str] = {}
    receipts = parquet_bytes = 0
    for run in reader.runs(project, scope):
        try:
            receipt, contents = contents_of(reader, run)
        except BadInput as error:
            unreadable[run.label] = error.message
            continue
        runs.append(run)
        receipts += receipt is not None
        parquet_bytes += sum(part.stat().st_size for part in reader.published(run).parts)
        for field in contents:
            fields[field.type] += 1
            rows[field.type] += field.rows
        steps += _bounds(contents) if receipt is None else _decimals(receipt.steps.lowest, receipt.steps.highest)
    created = [run.created_ms for run in runs if run.created_ms is not None]
    return ProjectInventory(
        project=project,
        scope=scope,
        runs=len(runs),
        with_receipt=receipts,
        archived=sum(run.archived for run in runs),
        created_first_ms=min(created, default=None),
        created_last_ms=max(created, default=None),
        fields=dict(sorted(fields.items())),
        rows=dict(sorted(rows.items())),
        lowest_step=format(min(steps), "f") if steps else "",
        highest_step=format(max(steps), "f") if steps else "",
        parquet_bytes=parquet_bytes,
        unreadable=unreadable,
    )


def _bounds(contents: Iterable[FieldContents]) -> list[Decimal]:
    return [bound for field in contents for bound in _decimals(field.lowest, field.highest)]


def _decimals(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts if text]


def _size(folder: Place) -> int:
    """Bytes below a folder. Links are not followed."""
    if isinstance(folder, ObjectPath):
        return sum(file.stat().st_size for file in folder.below())
    total = 0
    for at, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(at, name)).st_size for name in names)
    return total
