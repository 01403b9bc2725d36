"""The answers of `ls` and `show`: projects, runs, and fields under their namespaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from shardmig.records import FILE_TYPES, SERIES_TYPES, Field, FieldType, FileRef, RunRef, Scope
from shardmig.report import terminal, words
from shardmig.report.contents import FieldContents

_LONGEST_VALUE: Final = 100

RunState = Literal["whole", "unknown", "damaged"]
_STATES: Final[dict[RunState, str]] = {"whole": "", "unknown": "no receipt", "damaged": "damaged"}


class ProjectLine(msgspec.Struct, frozen=True):
    """One project, how many runs it has, and how many entities of each other scope."""

    project: str
    runs: int
    others: dict[Scope, int] = {}


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run. whole: it has a receipt that agrees with its parts. unknown: it has none. damaged: they disagree."""

    run: str
    project: str
    scope: str
    created_ms: int | None
    archived: bool
    parent: str | None
    state: RunState


class FieldLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of one run. `value` of scalars, if it was read: see `plain`. `size_bytes` of files, if known."""

    path: str
    type: FieldType
    rows: int
    lowest: str = ""
    highest: str = ""
    value: Any = None
    size_bytes: int | None = None


class RunTree(msgspec.Struct, frozen=True):
    """One run with its fields, sorted by path."""

    run: RunLine
    fields: list[FieldLine]


def run_line(run: RunRef, state: RunState) -> RunLine:
    """What `ls` says of a run."""
    return RunLine(
        run=run.id,
        project=run.project,
        scope=run.scope,
        created_ms=run.created_ms,
        archived=run.archived,
        parent=run.parent,
        state=state,
    )


def field_lines(
    contents: Iterable[FieldContents], fields: Sequence[Field] = (), files: Sequence[FileRef] = ()
) -> list[FieldLine]:
    """Fields with the values and files that were read."""
    values = {(field.path, field.type): plain(field) for field in fields}
    sizes: dict[tuple[str, FieldType], int] = {}
    for ref in files:
        if ref.size_bytes >= 0:
            sizes[ref.path, ref.type] = sizes.get((ref.path, ref.type), 0) + ref.size_bytes
    return [
        FieldLine(
            path=one.path,
            type=one.type,
            rows=one.rows,
            lowest=one.lowest,
            highest=one.highest,
            value=values.get((one.path, one.type)),
            size_bytes=sizes.get((one.path, one.type)),
        )
        for one in contents
    ]


def plain(field: Field) -> Any:
    """A scalar as JSON can hold it: a datetime in ISO form, NaN and infinities as text."""
    if field.type == "datetime" and isinstance(field.value, int):
        return words.instant(field.value)
    return plain_number(field.value) if isinstance(field.value, float) else field.value


def plain_number(value: float) -> float | str:
    """JSON has no NaN and no infinities: they are written as Python writes them."""
    return value if math.isfinite(value) else repr(value)


def projects_shown(lines: Sequence[ProjectLine]) -> Iterator[RenderableType]:
    """All projects of an archive."""
    if not lines:
        yield Text("the archive holds no runs")
        return
    listed = terminal.table("project", ">runs", "other scopes")
    for line in lines:
        others = ", ".join(f"{words.count(number)} {scope}" for scope, number in line.others.items())
        terminal.row(listed, line.project, words.count(line.runs), others)
    yield listed


def runs_shown(lines: Iterable[RunLine]) -> Iterator[RenderableType]:
    """The runs of a project."""
    listed = terminal.table("run", "created", "parent", "")
    for line in lines:
        notes = (
            "" if line.scope == "runs" else line.scope,
            "archived" if line.archived else "",
            _STATES[line.state],
        )
        told = ", ".join(note for note in notes if note)
        terminal.row(listed, line.run, words.moment(line.created_ms), line.parent or "", told)
    yield listed


def fields_shown(found: RunTree, namespace: str = "") -> Iterator[RenderableType]:
    """The fields of a run below `namespace` as a tree. A name that is field and namespace is shown as both."""
    below = f"{namespace.strip('/')}/" if namespace else ""
    tree = Tree(terminal.name(f"{found.run.project}/{found.run.run} {namespace}".rstrip(), style="bold"))
    branches: dict[str, Tree] = {"": tree}
    for field in found.fields:
        head, _, leaf = field.path.removeprefix(below).rpartition("/")
        line = Text.assemble(terminal.name(leaf), "  ", (field.type, "cyan"), terminal.name(_told(field)))
        _branch(branches, head).add(line)
    yield tree


def _branch(branches: dict[str, Tree], path: str) -> Tree:
    if path not in branches:
        head, _, leaf = path.rpartition("/")
        branches[path] = _branch(branches, head).add(terminal.name(f"{leaf}/", style="bold"))
    return branches[path]


def _told(field: FieldLine) -> str:
    if field.type in SERIES_TYPES:
        steps = f", steps {field.lowest} to {field.highest}" if field.lowest else ""
        return f"  {words.plural(field.rows, 'point')}{steps}"
    if field.type in FILE_TYPES:
        size = f", {words.size(field.size_bytes)}" if field.size_bytes is not None else ""
        return f"  {words.plural(field.rows, 'file')}{size}"
    return "" if field.value is None else f"  {_cut(str(field.value))}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
