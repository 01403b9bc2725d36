"""Chunks: what flows out of a read side and into a write side. Frozen, tagged, columnar."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Literal, get_args

import msgspec
import numpy as np

from shardmig.records.columns import Float64s, Histograms, Int64s, Steps, Texts
from shardmig.records.ids import MigrationKey, ProjectId, RunId, TargetRunId

Scope = Literal[
    "runs",
    "models",
    "model_versions",
    "logged_models",
    "registered_models",
    "prompts",
    "traces",
    "datasets",
    "experiments",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
FieldType = Literal[
    "int",
    "float",
    "string",
    "bool",
    "datetime",
    "string_set",
    "float_series",
    "string_series",
    "histogram_series",
    "file",
    "file_series",
    "file_set",
    "artifact",
]
SCALAR_TYPES: frozenset[FieldType] = frozenset({"int", "float", "string", "bool", "datetime", "string_set"})
SERIES_TYPES: frozenset[FieldType] = frozenset({"float_series", "string_series", "histogram_series"})
FILE_TYPES: frozenset[FieldType] = frozenset({"file", "file_series", "file_set", "artifact"})

FindingKind = Literal["loss", "gap", "approximation", "note"]


class Finding(msgspec.Struct, frozen=True):
    """Something that a user must be told about a run.

    loss           a value that the source has and that did not arrive: the run is not whole (exit 3)
    gap            a value that the source itself no longer has (a tail never flushed, a record dropped by rule)
    approximation  a documented change that the target forces; `code` is the reason code of the loss table
    note           good to know, nothing changed
    """

    kind: FindingKind
    code: str
    field: str = ""
    count: int = 1
    detail: str = ""


Entity = tuple[ProjectId, Scope, RunId]


class RunRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which entity, and how its source finds it again.

    `locator` is the source's own handle (a folder, a file prefix); `fingerprint` changes when the content does
    ("" = the source cannot tell); `parent` is the run id of the run it was forked from, or of the run it is nested
    in, and `parent_project` that run's project where it is another one; `weight` estimates the cost of moving it (points, or bytes / 16; 0 = unknown).
    """

    project: ProjectId
    id: RunId
    scope: Scope = "runs"
    created_ms: int | None = None
    archived: bool = False
    parent: RunId | None = None
    parent_project: ProjectId | None = None
    locator: str = ""
    fingerprint: str = ""
    weight: int = 0

    @property
    def parent_ref(self) -> RunRef | None:
        """The parent, as far as this run knows it."""
        if self.parent is None:
            return None
        return RunRef(project=self.parent_project or self.project, id=self.parent, scope=self.scope)

    @property
    def entity(self) -> Entity:
        """What it is, in whichever version."""
        return self.project, self.scope, self.id

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.project}/{self.id}" if self.scope == "runs" else f"{self.project}/{self.scope}/{self.id}"


class Field(msgspec.Struct, frozen=True):
    """One scalar field. datetime = epoch ms (UTC); string_set = sorted unique strings; int fits int64."""

    path: str
    type: FieldType
    value: int | float | str | bool | list[str]


class FileRef(msgspec.Struct, frozen=True, kw_only=True):
    """One file, file set or step of a file series.

    `stored` is the path below the archive's files/<project>, with forward slashes; `name` is the file's own name
    with its extension. A tree (file_set) has the size of all members and, as sha256, the hash of its sorted
    "name\\0sha256\\n" lines. size_bytes -1 and sha256 "" = not known (archives of neptune-exporter).
    """

    path: str
    type: FieldType
    stored: str
    name: str = ""
    size_bytes: int = -1
    sha256: str = ""
    step: Decimal | None = None
    time_ms: int | None = None
    is_tree: bool = False


class Header(msgspec.Struct, frozen=True, tag=True):
    """First chunk of a run."""

    run: RunRef
    source: str = ""
    source_version: str = ""


class Fields(msgspec.Struct, frozen=True, tag=True):
    """Scalar fields."""

    fields: list[Field]


class Files(msgspec.Struct, frozen=True, tag=True):
    """Files, already stored."""

    files: list[FileRef]


class FloatPoints(msgspec.Struct, frozen=True, tag=True):
    """Points of several float series, series after series: series i has the next lengths[i] rows."""

    paths: list[str]
    lengths: Int64s
    steps: Steps
    times_ms: Int64s
    values: Float64s

    def series(self) -> Iterator[tuple[str, FloatPoints]]:
        """Each series alone, as views."""
        for path, part in _spans(self.paths, self.lengths):
            yield path, FloatPoints([path], _length(part), self.steps[part], self.times_ms[part], self.values[part])


class StringPoints(msgspec.Struct, frozen=True, tag=True):
    """Points of several string series; layout as FloatPoints."""

    paths: list[str]
    lengths: Int64s
    steps: Steps
    times_ms: Int64s
    values: Texts

    def series(self) -> Iterator[tuple[str, StringPoints]]:
        """Each series alone."""
        for path, part in _spans(self.paths, self.lengths):
            yield path, StringPoints([path], _length(part), self.steps[part], self.times_ms[part], self.values[part])


class HistogramPoints(msgspec.Struct, frozen=True, tag=True):
    """Points of several histogram series; layout as FloatPoints."""

    paths: list[str]
    lengths: Int64s
    steps: Steps
    times_ms: Int64s
    values: Histograms

    def series(self) -> Iterator[tuple[str, HistogramPoints]]:
        """Each series alone."""
        for path, part in _spans(self.paths, self.lengths):
            yield path, HistogramPoints([path], _length(part), self.steps[part], self.times_ms[part], self.values[part])


class End(msgspec.Struct, frozen=True, tag=True):
    """Last chunk of a run: its absence means that the stream was cut.

    `digest` is the run's content digest where the stream was checked on its way (archives), else "".
    """

    findings: list[Finding] = []
    digest: str = ""


Points = FloatPoints | StringPoints | HistogramPoints
Chunk = Header | Fields | FloatPoints | StringPoints | HistogramPoints | Files | End


class Piece(msgspec.Struct, frozen=True):
    """One chunk of one run. `cursor` is the source's own mark from which reading can go on after this chunk
    (b"" = it cannot resume inside a run)."""

    run: RunRef
    chunk: Chunk
    cursor: bytes = b""


class TargetRun(msgspec.Struct, frozen=True):
    """What a target says of a migrated run. `digest` is the content digest stored with it."""

    id: TargetRunId
    key: MigrationKey
    state: Literal["complete", "partial", "unknown"]
    digest: str = ""
    url: str = ""


def _spans(paths: list[str], lengths: Int64s) -> Iterator[tuple[str, slice]]:
    ends = np.cumsum(lengths)
    start = 0
    for path, end in zip(paths, ends.tolist(), strict=True):
        yield path, slice(start, end)
        start = end


def _length(part: slice) -> Int64s:
    return np.array([part.stop - part.start], dtype=np.int64)
