"""What is to be moved: selection, adapters, shards, the frozen plan, the receipt of a published run."""

from __future__ import annotations

from typing import Literal

import msgspec

from shardmig.records.chunks import FieldType, Finding, RunRef, Scope
from shardmig.records.ids import MigrationId, ProjectId, ShardId

FORMAT_VERSION = 1
"""Of everything on disk: plan, journal, spool, receipt. Readers refuse a higher one."""

FieldClass = Literal["parameters", "metrics", "series", "files"]
FIELD_CLASSES: tuple[FieldClass, ...] = ("parameters", "metrics", "series", "files")
Phase = Literal["survey", "export", "load", "verify"]
Disposition = Literal["transient", "permanent", "fatal", "unclassified"]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs and which of their fields. Empty = all. The same for every source and command.

    projects: exact ids. runs: regular expression, searched in the run id. run_ids: exact run ids.
    attributes: one = regular expression (searched), several = exact paths. exclude_attributes: regular expression.
    created_after_ms is inclusive, created_before_ms exclusive. limit: the first N runs in listing order, 0 = all.
    """

    projects: tuple[str, ...] = ()
    runs: str = ""
    run_ids: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    exclude_attributes: str = ""
    classes: tuple[FieldClass, ...] = FIELD_CLASSES
    created_after_ms: int | None = None
    created_before_ms: int | None = None
    include_archived: bool = False
    limit: int = 0


class AdapterSpec(msgspec.Struct, frozen=True):
    """An adapter by name and its options. Never holds a secret: those come from the environment in the worker."""

    name: str
    options: dict[str, str] = {}


class ArchivePaths(msgspec.Struct, frozen=True):
    """Where an archive lies: parquet below `data`, files below `files` (absolute paths)."""

    data: str
    files: str


OnExisting = Literal["skip", "merge", "replace", "fail"]


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is written into a target, the same for every target.

    step_multiplier 0 = not chosen yet ("auto"): the coordinator sets the smallest that keeps every step.
    on_existing: what to do with a run that the target holds completely, but with other content. merge: bring what is new.
    """

    step_multiplier: int = 0
    allow_step_merge: bool = False
    sidecar: bool = True
    on_existing: OnExisting = "fail"


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Explicit runs, never positions. `depth`: how many ancestors in the plan must be loaded first."""

    id: ShardId
    scope: Scope
    runs: tuple[RunRef, ...]
    depth: int = 0
    parent: ShardId | None = None


class Failure(msgspec.Struct, frozen=True):
    """An error as a record: what crosses a process boundary instead of an exception."""

    error: str
    disposition: Disposition
    message: str
    run: str = ""
    field: str = ""
    hint: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The frozen plan. `fingerprint` covers what is asked for, not workers or engine. `refused`: projects that could
    not be listed when it was made."""

    id: MigrationId
    fingerprint: str
    phases: tuple[Phase, ...]
    source: AdapterSpec
    archive: ArchivePaths
    target: AdapterSpec | None
    selection: Selection
    load: LoadOptions
    shards: tuple[Shard, ...]
    created_ms: int
    format_version: int = FORMAT_VERSION
    refused: dict[ProjectId, Failure] = {}

    def phases_until(self, last: Phase | None) -> tuple[Phase, ...]:
        """Its phases up to this one, None = all."""
        return self.phases if last is None else self.phases[: self.phases.index(last) + 1]


class StepNeeds(msgspec.Struct, frozen=True):
    """What the steps of a run ask of a step multiplier.

    denominator: the smallest multiplier that makes every step an integer. lowest, highest: exact decimal texts,
    "" = no steps.
    """

    denominator: int = 1
    lowest: str = ""
    highest: str = ""


class PartInfo(msgspec.Struct, frozen=True):
    """One parquet part. part_0 cannot hold its own size and hash: -1 and ""."""

    name: str
    rows: int
    size_bytes: int = -1
    sha256: str = ""


class FieldDigest(msgspec.Struct, frozen=True):
    """Order-independent digest over the rows of one field (path and type), 32 hex digits."""

    path: str
    type: FieldType
    rows: int
    digest: str


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved. points = float points; texts = string points; bytes = bytes of files."""

    runs: int = 0
    fields: int = 0
    points: int = 0
    texts: int = 0
    histograms: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """In the footer of part_0: a run is whole only if its receipt is there and agrees with what is on disk."""

    format_version: int
    tool_version: str
    run: RunRef
    source: str
    source_version: str
    asked: Selection
    parts: list[PartInfo]
    fields: list[FieldDigest]
    digest: str
    counters: Counters
    steps: StepNeeds
    findings: list[Finding]
    started_ms: int
    ended_ms: int
