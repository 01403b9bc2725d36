"""An adapter whose system is a dictionary: the smallest thing that passes both suites.

It may be told to be as limited as real targets are (no infinities, short texts, integer steps), so that everything
above an adapter can be tested with approximations and without a server.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import numpy as np

from shardmig import steps as exact_steps
from shardmig.adapters.base import Capabilities, FileSink, FileStore, Fitted, Want, Written, migration_key
from shardmig.adapters.conformance import fact_fields, last_point_ms
from shardmig.errors import NotFound, StepConflict
from shardmig.records import (
    Chunk,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Header,
    HistogramPoints,
    LoadOptions,
    MigrationKey,
    Piece,
    Points,
    ProjectId,
    RunRef,
    Selection,
    StringPoints,
    TargetRun,
    TargetRunId,
)
from shardmig.selection import Matcher

AnyPoints = TypeVar("AnyPoints", FloatPoints, StringPoints, HistogramPoints)
FileKey = tuple[str, str, Decimal | None]

LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Limits:
    """What the system cannot hold; nothing by default."""

    holds_infinity: bool = True
    longest_text: int | None = None
    decimal_steps: bool = True


@dataclass
class MemoryRun:
    """One run as the system holds it: chunks as they are given back, and the contents of files."""

    id: TargetRunId
    key: MigrationKey
    run: RunRef
    state: str = "partial"
    digest: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    contents: dict[FileKey, list[tuple[str, bytes]]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class MemorySystem:
    """Runs by key, in the order of their creation."""

    runs: dict[MigrationKey, MemoryRun] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=itertools.count)


class MemorySource:
    """Reads a MemorySystem. Resumes inside a run, by the number of the chunk, unless told that it cannot."""

    def __init__(self, system: MemorySystem, *, resumes: bool = True) -> None:
        self._system = system
        self._resumes = resumes

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        matcher = Matcher(selection)
        projects = dict.fromkeys(held.run.project for held in self._system.runs.values())
        return (project for project in projects if matcher.wants_project(project))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        matcher = Matcher(selection)
        runs = (held.run for held in self._system.runs.values() if held.run.project == project)
        return (run for run in runs if matcher.wants_run(run))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        for run in runs:
            held = self._system.runs.get(migration_key(run))
            if held is None:
                raise NotFound("there is no such run", run=run.label)
            cursor = want.cursors.get(run.id)
            done = int(cursor) if cursor else 0
            for number, chunk in enumerate(_reading(held, want, files)):
                if number == 0 or number > done:
                    yield Piece(held.run, chunk, b"%d" % max(number, done) if self._resumes else b"")

    def close(self) -> None:
        pass


class MemoryTarget:
    """Writes a MemorySystem and reads it back."""

    def __init__(self, system: MemorySystem, load: LoadOptions, limits: Limits = Limits()) -> None:
        self._system = system
        self._load = load
        self._limits = limits
        self.caps = Capabilities(
            name="memory",
            step_type="decimal" if limits.decimal_steps else "int64",
            holds_nan=True,
            holds_infinity=limits.holds_infinity,
            keeps_point_times=True,
            keeps_run_times=True,
            replay_is_idempotent=True,
            max_key_length=1 << 30,
        )

    def fit(self, chunk: Chunk) -> Fitted:
        match chunk:
            case FloatPoints():
                return self._fit_floats(chunk)
            case Fields():
                return self._fit_fields(chunk)
            case StringPoints() | HistogramPoints():
                self._whole_steps(chunk)
        return Fitted(chunk, None, [])

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        held = self._system.runs.get(key)
        if held is None:
            return None
        return TargetRun(held.id, key, "complete" if held.state == "complete" else "partial", held.digest)

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        header = next(chunks, None)
        assert isinstance(header, Header)
        earlier = self._system.runs.get(key)
        number = earlier.id if earlier is not None else TargetRunId(f"m{next(self._system.ids)}")
        held = self._system.runs[key] = MemoryRun(number, key, header.run, chunks=[header])
        findings: list[Finding] = []
        is_whole = False
        for chunk in chunks:
            if isinstance(chunk, End):
                is_whole = not any(finding.kind == "loss" for finding in chunk.findings)
                break
            fitted = self.fit(chunk)
            findings += fitted.findings
            kept = chunk if self._load.sidecar else fitted.native
            if kept is not None:
                held.chunks.append(kept)
            if isinstance(chunk, Files):
                for ref in chunk.files:
                    held.contents[_file_key(ref)] = [(name, path.read_bytes()) for name, path in files.members(ref)]
        held.facts = self.expected_facts(header.run, fact_fields(held.chunks), parent, last_point_ms(held.chunks))
        held.state = "complete" if is_whole else "partial"
        held.digest = digest if is_whole else ""
        return Written(held.id, findings)

    def discard_run(self, run: TargetRun) -> None:
        self._system.runs.pop(run.key, None)

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        held = self._system.runs[run.key]
        return (Piece(held.run, chunk) for chunk in _reading(held, want, files))

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        values = {each.path: each.value for each in fields}
        facts = {
            "status": "failed" if values.get("sys/failed") else "finished",
            "name": str(values.get("sys/name", "")),
        }
        if run.created_ms is not None:
            facts["start_time"] = str(run.created_ms)
        if last_point_ms is not None:
            facts["end_time"] = str(last_point_ms)
        if parent is not None:
            facts["parent"] = parent
        tags = values.get("sys/tags", [])
        return facts | {f"tag:{tag}": "" for tag in (tags if isinstance(tags, list) else [])}

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        return dict(self._system.runs[run.key].facts)

    def close(self) -> None:
        pass

    def _fit_floats(self, chunk: FloatPoints) -> Fitted:
        steps, findings = self._fit_steps(chunk)
        endless = np.isinf(chunk.values) & (not self._limits.holds_infinity)
        values = np.where(endless, np.copysign(LARGEST, chunk.values), chunk.values)
        ends = np.cumsum(chunk.lengths)
        for path, length, end in zip(chunk.paths, chunk.lengths.tolist(), ends.tolist(), strict=True):
            if count := int(endless[end - length : end].sum()):
                findings.append(Finding("approximation", "infinity-clipped", path, count))
        native = msgspec.structs.replace(chunk, steps=steps, values=values)
        return Fitted(native, chunk, findings) if findings else Fitted(chunk, None, [])

    def _fit_steps(self, chunk: Points) -> tuple[Any, list[Finding]]:
        rounded = self._whole_steps(chunk)
        if rounded is None:
            return chunk.steps, []
        numbers, changed = rounded
        ends = np.cumsum(chunk.lengths)
        findings = [
            Finding("approximation", "step-merged", path, count)
            for path, length, end in zip(chunk.paths, chunk.lengths.tolist(), ends.tolist(), strict=True)
            if (count := int(changed[end - length : end].sum()))
        ]
        return exact_steps.divide(numbers, self._load.step_multiplier), findings

    def _whole_steps(self, chunk: Points) -> tuple[Any, Any] | None:
        if self._limits.decimal_steps:
            return None
        numbers, changed = exact_steps.multiply(chunk.steps, self._load.step_multiplier)
        if changed.any() and not self._load.allow_step_merge:
            raise StepConflict("a step is no integer under the multiplier")
        return numbers, changed

    def _fit_fields(self, chunk: Fields) -> Fitted:
        native = [self._fit_field(each) for each in chunk.fields]
        pairs = list(zip(chunk.fields, native, strict=True))
        findings = [Finding("approximation", "text-cut", one.path) for one, other in pairs if one is not other]
        exact = Fields([one for one, other in pairs if one is not other])
        return Fitted(Fields(native), exact, findings) if findings else Fitted(chunk, None, [])

    def _fit_field(self, each: Field) -> Field:
        limit = self._limits.longest_text
        if limit is None or not isinstance(each.value, str) or len(each.value) <= limit:
            return each
        return msgspec.structs.replace(each, value=each.value[:limit])


def fill(system: MemorySystem, runs: Iterable[list[Chunk]], files: Callable[[ProjectId], FileStore]) -> None:
    """Put whole runs into the system."""
    target = MemoryTarget(system, LoadOptions(step_multiplier=1))
    for chunks in runs:
        header = chunks[0]
        assert isinstance(header, Header)
        target.write_run(migration_key(header.run), "", iter(chunks), files(header.run.project), None)


def _reading(held: MemoryRun, want: Want, files: FileSink) -> Iterator[Chunk]:
    matcher = Matcher(want.selection)
    for chunk in held.chunks:
        match chunk:
            case Fields(fields):
                chosen = [each for each in fields if matcher.wants_field(each.path, each.type)]
                if chosen:
                    yield Fields(chosen)
            case Files(refs):
                wanted = [ref for ref in refs if matcher.wants_field(ref.path, ref.type)]
                if wanted:
                    yield Files([_put(held, ref, files) for ref in wanted])
            case FloatPoints():
                yield from _cut(chunk, matcher, want.chunk_points, "float_series")
            case StringPoints():
                yield from _cut(chunk, matcher, want.chunk_points, "string_series")
            case HistogramPoints():
                yield from _cut(chunk, matcher, want.chunk_points, "histogram_series")
            case Header() | End():
                yield chunk
    yield End()


def _cut(chunk: AnyPoints, matcher: Matcher, chunk_points: int, kind: Any) -> Iterator[AnyPoints]:
    for path, part in chunk.series():
        if matcher.wants_field(path, kind):
            for start in range(0, len(part.values), chunk_points):
                rows = slice(start, start + chunk_points)
                steps = part.steps[rows]
                lengths = np.array([len(steps)], dtype=np.int64)
                yield type(part)([path], lengths, steps, part.times_ms[rows], part.values[rows])


def _put(held: MemoryRun, ref: FileRef, files: FileSink) -> FileRef:
    members = held.contents[_file_key(ref)]
    if ref.is_tree:
        return files.put_tree(held.run, ref.path, ref.type, [(name, io.BytesIO(content)) for name, content in members])
    content = io.BytesIO(members[0][1])
    return files.put(held.run, ref.path, ref.type, content, name=ref.name, step=ref.step, time_ms=ref.time_ms)


def _file_key(ref: FileRef) -> FileKey:
    return ref.path, ref.type, ref.step
