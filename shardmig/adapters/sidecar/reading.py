"""Reads a migrated run back under its own project, id, field names, types and exact steps: the same for every target.

What write_run added by itself (shown texts, manifest, sidecar, tags) is left out. What the target holds beyond the
manifest (values and points logged by others) is given under its own key, so that a comparison sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardmig import steps
from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar.exact import Sidecar
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.manifest import MANIFEST, SIDECAR, FileEntry, Manifest, SeriesEntry, decode_manifest
from shardmig.adapters.sidecar.overlay import Overlay
from shardmig.adapters.sidecar.rules import Rules, Value
from shardmig.adapters.sidecar.scalars import field_of
from shardmig.adapters.sidecar.tables import points_of_table
from shardmig.adapters.sidecar.uploads import ArtifactStore
from shardmig.archive.digest import RunDigest
from shardmig.errors import NotFound
from shardmig.records import (
    Chunk,
    End,
    Entity,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Header,
    Piece,
    RunId,
    RunRef,
)
from shardmig.selection import Matcher

FILES_IN_CHUNK: Final = 1000


def beside_original(run: RunRef, held_as: str, originals: Container[Entity]) -> RunRef:
    """A run that shardmig wrote, under its original id, or where the run is here too that it is a copy of, under one of its
    own. `held_as`: what the system calls the copy."""
    if run.entity not in originals:
        return run
    return msgspec.structs.replace(run, id=RunId(f"{run.id}~{digest_of(held_as)}"))


def brought(pieces: Iterable[Piece], run: RunRef, digest: str, want: Want) -> Iterator[Piece]:
    """The pieces of a run that shardmig wrote, as a source gives them: under the original `run`, and with a gap at its end
    where they are not what was loaded then, whose digest was noted ("" = none was)."""
    content = RunDigest() if digest and Matcher(want.selection).takes_every_field else None
    notes: list[Finding] = []
    for piece in pieces:
        chunk = piece.chunk
        if isinstance(chunk, Header):
            if chunk.run.id != run.id:
                notes.append(
                    Finding("note", "copy-beside-original", detail=f"a copy of {chunk.run.label}, which is here too")
                )
            chunk = msgspec.structs.replace(chunk, run=run)
        elif isinstance(chunk, End):
            if content is not None and content.digest() != digest:
                notes.append(_CHANGED)
            chunk = msgspec.structs.replace(chunk, findings=[*chunk.findings, *notes])
        elif content is not None:
            content.add(chunk)
        yield Piece(run, chunk)


def then_added(
    pieces: Iterable[Piece],
    added: Callable[[], Iterable[Chunk]],
    findings: Callable[[], Iterable[Finding]],
    learn: Callable[[Chunk], None] | None = None,
) -> Iterator[Piece]:
    """The pieces of a run that shardmig wrote, and before their end what people added to it. `learn` is given every chunk of
    the run before `added` is asked; `findings` is asked when all of that was taken."""
    for piece in pieces:
        if learn is not None:
            learn(piece.chunk)
        if isinstance(piece.chunk, End):
            yield from (Piece(piece.run, chunk) for chunk in added())
            piece = Piece(piece.run, End([*piece.chunk.findings, *findings()]))
        yield piece


_CHANGED: Final = Finding(
    "gap", "content-changed", detail="not what was loaded: changed or damaged since, or loaded without the sidecar"
)


class HeldRun(Protocol):
    """A run as the target holds it."""

    @property
    def id(self) -> str:
        """How messages name it."""
        ...

    def values(self) -> Mapping[str, Value]:
        """Every scalar by its key, but those that shardmig or the target added by itself."""
        ...

    def series_keys(self) -> Iterable[str]:
        """The keys of all float series, but those that the target added by itself."""
        ...

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """All points of these keys, in the order of `keys`, about `rows` points at a time; each series ordered by (step,
        time, value), NaN last. A series is split between two answers at the end of a step only."""
        ...

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:
        """The scalars that the manifest holds, as the target has them now."""
        ...


class Folders(NamedTuple):
    """Below which a native run has what the manifest does not know."""

    values: str = ""
    series: str = ""


NOWHERE: Final = Folders()


class RunReader:
    """Reads one run. One use. `staging`: an empty folder. `folders`: where a native run's unknown fields lie.
    Raises NotFound when the manifest is gone."""

    def __init__(
        self,
        held: HeldRun,
        artifacts: ArtifactStore,
        want: Want,
        staging: Path,
        rules: Rules,
        folders: Folders = NOWHERE,
    ) -> None:
        self._held = held
        self._artifacts = artifacts
        self._want = want
        self._staging = staging
        self._rules = rules
        self._matcher = Matcher(want.selection)
        self._numbers = count()
        self._findings: list[Finding] = []
        self.manifest = self._read_manifest()
        self._listed = self.manifest.run
        self._folders = folders if self.manifest.is_native else NOWHERE
        self._sidecar = self._read_sidecar()
        self._overlay: tuple[str, Overlay] | None = None

    def pieces(self, files: FileSink, run: RunRef | None = None) -> Iterator[Piece]:
        """Everything wanted, in canonical order. `run`: as a source lists it. Its files are put as those of that run, which
        may be called otherwise, and of which another version may be there."""
        self._listed = run or self.manifest.run
        return (Piece(self.manifest.run, chunk) for chunk in self._chunks(files))

    def _chunks(self, files: FileSink) -> Iterator[Chunk]:
        manifest = self.manifest
        yield Header(manifest.run, manifest.source, manifest.source_version)
        if fields := sorted(self._fields(), key=lambda field: (field.path, field.type)):
            yield Fields(fields)
        yield from self._files(files)
        yield from self._series()
        yield End(self._findings)

    def _read_manifest(self) -> Manifest:
        try:
            return decode_manifest(self._fetched(MANIFEST).read_bytes(), self._held.id)
        except NotFound as error:
            hint = "it was deleted, or the run was never loaded to its end: load it again"
            raise NotFound(f"run {self._held.id} has no {MANIFEST}", hint=hint) from error

    def _read_sidecar(self) -> Sidecar:
        if not self.manifest.has_sidecar:
            return Sidecar(None)
        try:
            return Sidecar(self._fetched(SIDECAR))
        except NotFound:
            self._findings.append(Finding("loss", "sidecar-missing", detail=f"{SIDECAR} is gone"))
        except (pa.ArrowInvalid, OSError) as error:
            self._findings.append(Finding("loss", "sidecar-unreadable", detail=f"{SIDECAR}: {error}"))
        return Sidecar(None)

    def _fields(self) -> Iterator[Field]:
        values = dict(self._held.values())
        exact = self._sidecar.scalars()
        for entry in self.manifest.params:
            value = values.pop(entry.key, None)
            if value is None or not self._matcher.wants_field(entry.path, entry.type):
                continue
            field = self._rules.field_of(entry.path, entry.type, value)
            if (whole := exact.get((entry.path, entry.type))) is not None:
                original = field_of(entry.path, entry.type, whole)
                field = original if repr(self._rules.fit_field(original).value) == repr(value) else field
            yield field
        others = [self._rules.other_field(self._folders.values + key, value) for key, value in values.items()]
        others += self._held.held_fields(self.manifest)
        yield from (field for field in others if self._matcher.wants_field(field.path, field.type))

    def _files(self, sink: FileSink) -> Iterator[Chunk]:
        refs: list[FileRef] = []
        for entry in sorted(self.manifest.files, key=lambda entry: (entry.path, entry.step or 0)):
            if not self._matcher.wants_field(entry.path, entry.type):
                continue
            try:
                refs.append(self._file(entry, sink))
            except NotFound as error:
                self._findings.append(Finding("loss", "file-missing", entry.path, detail=error.message))
            if len(refs) == FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def _file(self, entry: FileEntry, sink: FileSink) -> FileRef:
        run = self._listed
        if entry.members is not None:
            return sink.put_tree(run, entry.path, entry.type, self._members(entry.members))
        local = self._fetched(entry.artifact)
        ref = sink.put(run, entry.path, entry.type, local, name=entry.name, step=entry.step, time_ms=entry.time_ms)
        local.unlink(missing_ok=True)
        return ref

    def _members(self, members: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Path]]:
        for name, artifact in members:
            local = self._fetched(artifact)
            yield name, local
            local.unlink(missing_ok=True)

    def _series(self) -> Iterator[Chunk]:
        keys = {self._path_of(key): key for key in self._held.series_keys()}
        series: list[tuple[str, str, SeriesEntry | None]] = [(path, "float_series", None) for path in keys]
        series += [(entry.path, entry.type, entry) for entry in self.manifest.series]
        if self._rules.holds_only_finite:
            left_out = (path for path in self._sidecar.series() if path not in keys)
            series += [(path, "float_series", SeriesEntry("", "", path, "float_series")) for path in left_out]
        wanted = sorted(
            (one for one in series if self._matcher.wants_field(one[0], one[2].type if one[2] else "float_series")),
            key=lambda one: one[:2],
        )
        for entry, group in groupby(wanted, key=lambda one: one[2]):
            if entry is None:
                yield from self._floats([keys[path] for path, _, _ in group])
            elif not entry.artifact:
                yield from self._overlay_of(entry.path).rest()
            else:
                yield from self._artifact_series(entry)

    def _floats(self, keys: list[str]) -> Iterator[Chunk]:
        for metrics in self._held.points(keys, self._want.chunk_points):
            paths = [self._path_of(key) for key in metrics.keys]
            if any(self._sidecar.holds(path) for path in paths):
                for path, (_, rows) in zip(paths, metrics.spans(), strict=True):
                    yield from self._restored(path, metrics.points().part(rows))
            elif len(metrics):
                yield from self._rest()
                exact_steps = steps.divide(metrics.steps, self.manifest.step_multiplier)
                yield FloatPoints(paths, metrics.lengths, exact_steps, metrics.times_ms, metrics.values)
        yield from self._rest()

    def _restored(self, path: str, native: NativePoints) -> Iterator[Chunk]:
        if self._overlay is None or self._overlay[0] != path:
            yield from self._rest()
            self._overlay = (path, self._overlay_of(path))
        yield from self._overlay[1].restored(native)

    def _rest(self) -> Iterator[Chunk]:
        """What the last series that was restored has behind its last native point."""
        if self._overlay is not None:
            yield from self._overlay[1].rest()
            self._overlay = None

    def _overlay_of(self, path: str) -> Overlay:
        exact, only_finite = self._sidecar.points(path), self._rules.holds_only_finite
        return Overlay(path, exact, self.manifest.step_multiplier, holds_only_finite=only_finite)

    def _artifact_series(self, entry: SeriesEntry) -> Iterator[Chunk]:
        try:
            local = self._fetched(entry.artifact)
            yield from self._points_of(entry.path, local)
        except NotFound as error:
            self._findings.append(Finding("loss", "series-missing", entry.path, detail=error.message))
        except (pa.ArrowInvalid, OSError) as error:
            self._findings.append(Finding("loss", "series-unreadable", entry.path, detail=f"{entry.artifact}: {error}"))

    def _points_of(self, path: str, local: Path) -> Iterator[Chunk]:
        with pq.ParquetFile(local) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                for start in range(0, len(table), self._want.chunk_points):
                    part = table.slice(start, self._want.chunk_points)
                    yield from points_of_table([path], np.array([len(part)], dtype=np.int64), part)
        local.unlink()

    def _path_of(self, key: str) -> str:
        """The field of a float series."""
        known = self.manifest.metrics.get(key)
        return self._folders.series + key if known is None else known  # "" is a path too

    def _fetched(self, artifact: str) -> Path:
        local = self._staging / str(next(self._numbers))
        self._artifacts.get(artifact, local)
        return local
