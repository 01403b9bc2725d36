"""Writes the content of one run: the same for every target."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from shardmig import __version__
from shardmig.adapters.base import FileStore
from shardmig.adapters.sidecar.exact import SidecarWriter
from shardmig.adapters.sidecar.fitting import Metrics, name_changed
from shardmig.adapters.sidecar.manifest import (
    MANIFEST,
    SIDECAR,
    ArtifactNames,
    FileEntry,
    Manifest,
    ParamEntry,
    SeriesEntry,
    encode_manifest,
    forced_key,
    wanted_path,
)
from shardmig.adapters.sidecar.rules import Rules, Value
from shardmig.adapters.sidecar.series_files import NAMES, SeriesFiles
from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.archive.layout import disk_errors
from shardmig.errors import BadInput, HostilePath, NotFound
from shardmig.records import (
    NO_TIME,
    Chunk,
    End,
    Field,
    Fields,
    FieldType,
    FileRef,
    Files,
    Finding,
    FindingKind,
    FloatPoints,
    Header,
    HistogramPoints,
    Int64s,
    StringPoints,
)

REFUSED: Final = (HostilePath, NotFound, BadInput)


def leading_fields(chunks: Iterator[Chunk]) -> tuple[Header, list[Field], Iterator[Chunk]]:
    """The header, the scalar fields that follow it, and the rest. Raises BadInput for a stream without header."""
    header = next(chunks, None)
    if not isinstance(header, Header):
        raise BadInput("a run's chunks begin with its Header")
    fields: list[Field] = []
    for chunk in chunks:
        if not isinstance(chunk, Fields):
            return header, fields, itertools.chain([chunk], chunks)
        fields += chunk.fields
    return header, fields, iter(())


class Facts(Protocol):
    """Who learns what the scalar fields say of the run itself."""

    def learn(self, fields: Iterable[Field]) -> None:
        """Take the facts out of some scalar fields."""
        ...


class RunSink(Protocol):
    """The run in the target, once it exists. Each call is idempotent and may be buffered until `flush`."""

    def add_values(self, values: Mapping[str, Value]) -> None:
        """Scalars by key."""
        ...

    def add_points(self, metrics: Metrics) -> None:
        """Points; those that are there already stay as they are."""
        ...

    def flush(self) -> None:
        """Make everything added durable, unless what ends the run does it."""
        ...


class RunContent:
    """Everything of one run but its creation and its end. One use.

    `staging`: an empty folder of its own. `is_native`: the run came from a system of the target's own kind.
    """

    def __init__(self, sink: RunSink, uploads: Uploads, staging: Path, rules: Rules, *, is_native: bool) -> None:
        self._sink = sink
        self._uploads = uploads
        self._staging = staging
        self._rules = rules
        self._is_native = is_native
        self._load = rules.load
        self._naming = rules.naming
        self._names = ArtifactNames(rules.naming)
        self._sidecar = SidecarWriter(staging / "exact.parquet")
        self._series: tuple[str, SeriesFiles] | None = None
        self._series_done: set[tuple[str, FieldType]] = set()
        self._param_of: dict[str, Field] = {}
        self._manifest: Manifest
        self._tally: dict[tuple[FindingKind, str, str], Finding] = {}
        self.last_point_ms: int | None = None
        self.is_whole = False

    @property
    def manifest(self) -> Manifest:
        """How it was written, so far."""
        return self._manifest

    @property
    def held(self) -> list[Field]:
        """Scalars that are no params."""
        return self._manifest.held

    @property
    def findings(self) -> list[Finding]:
        """What changed or was lost so far."""
        return list(self._tally.values())

    def write(self, header: Header, chunks: Iterator[Chunk], facts: Facts, files: FileStore) -> None:
        """Write all chunks, then the sidecar and the manifest; afterwards everything is durable that the sink flushes.

        `is_whole` tells whether End came and nothing was lost; a stream without End is a loss.
        """
        self._manifest = Manifest(
            tool_version=__version__,
            run=msgspec.structs.replace(header.run, locator="", fingerprint=""),
            source=header.source,
            source_version=header.source_version,
            step_multiplier=self._load.step_multiplier or 1,
            is_native=self._is_native,
        )
        for chunk in chunks:
            if isinstance(chunk, End):
                self.is_whole = not any(finding.kind == "loss" for finding in [*chunk.findings, *self.findings])
                break
            self._write_chunk(chunk, facts, files)
        else:
            self._note([Finding("loss", "run-cut", detail="its chunks end without End: what was read is not whole")])
        self._finish()

    def close(self) -> None:
        """Close staged files; idempotent."""
        if self._series is not None:
            self._series[1].close()
        self._sidecar.close()

    def _write_chunk(self, chunk: Chunk, facts: Facts, files: FileStore) -> None:
        match chunk:
            case Fields(fields):
                facts.learn(fields)
                self._write_fields(fields)
            case FloatPoints():
                self._see_times(chunk.times_ms)
                self._write_points(chunk)
            case StringPoints() | HistogramPoints():
                self._see_times(chunk.times_ms)
                for path, series in chunk.series():
                    self._write_series(path, series)
            case Files(refs):
                for ref in refs:
                    self._write_file(ref, files)
            case _:
                raise BadInput(f"{type(chunk).__name__} in the middle of a run")

    def _write_fields(self, fields: list[Field]) -> None:
        values: dict[str, Value] = {}
        for field in fields:
            if not self._naming.is_param(field):
                self._manifest.held.append(field)
                continue
            key = self._naming.key(field.path)
            if key in self._param_of and self._param_of[key].type != field.type:
                key = forced_key(self._naming, field.path, field.type)
            self._param_of[key] = field
            fitted = self._rules.fit_field(field)
            values[key] = fitted.value
            self._manifest.params.append(ParamEntry(key, field.path, field.type))
            if not fitted.is_exact and self._load.sidecar:
                self._sidecar.add_field(field)
        self._sink.add_values(values)
        self._note(self._rules.fit(Fields(fields)).findings)

    def _write_points(self, points: FloatPoints) -> None:
        fitted = self._rules.fit_points(points)
        self._sink.add_points(fitted.metrics)
        if fitted.exact is not None and self._load.sidecar:
            self._sidecar.add_points(fitted.exact)
        self._manifest.metrics |= {
            key: path
            for key, path in zip(fitted.metrics.keys, points.paths, strict=True)
            if key != self._naming.wanted_key(path)
        }
        self._note(fitted.findings)

    def _write_series(self, path: str, points: StringPoints | HistogramPoints) -> None:
        field_type: FieldType = "string_series" if isinstance(points, StringPoints) else "histogram_series"
        if self._series is None or (self._series[0], self._series[1].type) != (path, field_type):
            self._end_series()
            if (path, field_type) in self._series_done:
                raise BadInput(f"the points of {path} do not come in one row", field=path)
            number = len(self._series_done)
            self._series_done.add((path, field_type))
            self._series = (path, SeriesFiles(self._staging, number, field_type))
        self._series[1].add(points)

    def _end_series(self) -> None:
        if self._series is None:
            return
        path, series = self._series
        self._series = None
        series.close()
        artifact, shown = (
            self._names.claim(f"{path}/{name}", f"{path}\0{series.type}\0{name}") for name in NAMES[series.type]
        )
        self._manifest.series.append(SeriesEntry(artifact, shown, path, series.type))
        self._uploads.add(series.parquet, artifact, then_delete=True)
        self._uploads.add(series.text, shown, then_delete=True)
        if not artifact.startswith(f"{path}/"):
            self._note([name_changed(path)])

    def _write_file(self, ref: FileRef, files: FileStore) -> None:
        try:
            entry = self._tree_entry(ref, files) if ref.is_tree else self._file_entry(ref, files)
        except REFUSED as error:
            code = "file-missing" if isinstance(error, NotFound) else "file-refused"
            self._note([Finding("loss", code, ref.path, detail=error.message)])
            return
        self._manifest.files.append(entry)

    def _file_entry(self, ref: FileRef, files: FileStore) -> FileEntry:
        local = files.path(ref)
        wanted = wanted_path(ref)
        artifact = self._names.claim(wanted, f"{ref.path}\0{ref.type}\0{ref.step}")
        self._uploads.add(local, artifact)
        if artifact != self._naming.wanted_artifact(wanted):
            self._note([name_changed(ref.path)])
        return FileEntry(
            ref.path, ref.type, ref.name, artifact, None, ref.step, ref.time_ms, ref.size_bytes, ref.sha256
        )

    def _tree_entry(self, ref: FileRef, files: FileStore) -> FileEntry:
        members = []
        for name, local in files.members(ref):
            artifact = self._names.claim(f"{ref.path}/{name}", f"{ref.path}\0{ref.type}\0{name}")
            self._uploads.add(local, artifact)
            members.append((name, artifact))
        return FileEntry(ref.path, ref.type, ref.name, "", members, ref.step, ref.time_ms)

    def _finish(self) -> None:
        self._end_series()
        self._manifest.has_sidecar = self._sidecar.close()
        if self._manifest.has_sidecar:
            self._uploads.add(self._sidecar.path, SIDECAR)
        self._sink.flush()
        self._uploads.wait()
        with disk_errors("the manifest"):
            manifest = self._staging / "manifest.json"
            manifest.write_bytes(encode_manifest(self._manifest))
        self._uploads.add(manifest, MANIFEST)
        self._uploads.wait()

    def _see_times(self, times_ms: Int64s) -> None:
        latest = int(times_ms.max(initial=NO_TIME))
        if latest != NO_TIME:
            self.last_point_ms = latest if self.last_point_ms is None else max(latest, self.last_point_ms)

    def _note(self, findings: list[Finding]) -> None:
        """Count findings of one kind about one field together."""
        for finding in findings:
            key = (finding.kind, finding.code, finding.field)
            held = self._tally.get(key)
            if held is not None:
                finding = msgspec.structs.replace(held, count=held.count + finding.count)
            self._tally[key] = finding
