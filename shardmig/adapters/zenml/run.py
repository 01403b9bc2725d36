"""One run in ZenML: what is collected of it before it is registered, and what is read back."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa

from shardmig.adapters.base import FileSink, FileStore, Want
from shardmig.adapters.names import unlike
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.reading import RunReader
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.adapters.sidecar.writing import Facts, RunContent
from shardmig.adapters.zenml import facts
from shardmig.adapters.zenml.artifacts import Folder
from shardmig.adapters.zenml.entities import Version
from shardmig.adapters.zenml.fit import ZenmlRules, flattened
from shardmig.adapters.zenml.naming import Naming
from shardmig.adapters.zenml.series import SERIES, PointsWriter, read_points
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.errors import NotFound
from shardmig.records import (
    NO_TIME,
    Chunk,
    End,
    Field,
    Finding,
    FloatPoints,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    Points,
    RunRef,
)
from shardmig.selection import Matcher

ENTRY: Final = "shardmig-run"
"""The artifact whose versions are the folders of all runs, each under its migration key."""

_RULES: Final = ZenmlRules(LoadOptions(), Naming())
"""For reading: no names are fitted."""


class Collected:
    """Everything of one run: its files in the artifact store, its scalars and cards in memory. One use.

    Nothing is in ZenML's database yet: what a crash leaves behind are files that the next attempt replaces.
    """

    def __init__(self, rules: ZenmlRules, folder: Folder, workers: int) -> None:
        self._rules = rules
        self.folder = folder
        self._workers = workers
        self.values: dict[str, Value] = {}
        self.cards: dict[str, Any] = {}
        self.last_point_ms: int | None = None
        self.is_whole = False
        self.findings: list[Finding] = []
        self.files: list[tuple[str, str]] = []

    def write(self, header: Header, chunks: Iterator[Chunk], learning: Facts, files: FileStore) -> None:
        """Take all chunks in; afterwards the files have arrived."""
        with TemporaryDirectory(prefix="shardmig-") as name:
            staging = Path(name)
            uploads = Uploads(self.folder, self._workers)
            points = PointsWriter(staging / "series.parquet")
            contents = staging / "contents"
            contents.mkdir()
            content = RunContent(self, uploads, contents, self._rules, is_native=False)
            try:
                content.write(header, self._without_points(chunks, points), learning, files)
                if points.close():
                    uploads.add(points.path, SERIES)
                    uploads.wait()
            finally:
                uploads.close()
                content.close()
                points.close()
        self.cards = points.cards.shown()
        self._see_time(content.last_point_ms)
        self.is_whole, self.findings = content.is_whole, content.findings
        self.files = sorted(_places(content.manifest, has_series=bool(self.cards)))

    def add_values(self, values: Mapping[str, Value]) -> None:
        """As RunSink."""
        self.values |= values

    def add_points(self, metrics: Metrics) -> None:
        """As RunSink: the points of float series go another way, with their decimal steps."""
        raise AssertionError(metrics.keys)

    def flush(self) -> None:
        """As RunSink: values are registered with the run."""

    def _without_points(self, chunks: Iterator[Chunk], writer: PointsWriter) -> Iterator[Chunk]:
        for chunk in chunks:
            if isinstance(chunk, FloatPoints):
                writer.add(chunk)
                latest = int(chunk.times_ms.max(initial=NO_TIME))
                self._see_time(None if latest == NO_TIME else latest)
            else:
                yield chunk

    def _see_time(self, time_ms: int | None) -> None:
        self.last_point_ms = max((one for one in (self.last_point_ms, time_ms) if one is not None), default=None)


def read_run(
    store: ZenmlStore, version: Version, key: MigrationKey, want: Want, files: FileSink, run: RunRef | None = None
) -> Iterator[Piece]:
    """The pieces of one run that shardmig wrote. `run`: as a source lists it. Raises NotFound when its folder or its
    manifest is gone."""
    entry = store.artifact(ENTRY, key)
    if entry is None:
        raise NotFound(f"the artifact {ENTRY} {key} is gone", hint="load the run again")
    folder = store.folder(entry.uri, entry.store_id)
    with TemporaryDirectory(prefix="shardmig-") as name:
        staging = Path(name)
        contents = staging / "contents"
        contents.mkdir()
        reader = RunReader(_Held(version), folder, want, contents, _RULES)
        points = _Points(version, folder, want, staging)
        for piece in reader.pieces(files, run):
            if isinstance(piece.chunk, Points | End):
                yield from (Piece(piece.run, chunk) for chunk in points.chunks())
            if isinstance(piece.chunk, End):
                piece = Piece(piece.run, End([*points.findings, *piece.chunk.findings]))
            yield piece


class _Points:
    """The float series of a run, given once."""

    def __init__(self, version: Version, folder: Folder, want: Want, staging: Path) -> None:
        self._is_due = bool(version.metadata.get(facts.SHARDMIG, {}).get(facts.SERIES_COUNT, 0))
        self._folder = folder
        self._want = want
        self._matcher = Matcher(want.selection)
        self._file = staging / "series.parquet"
        self.findings: list[Finding] = []

    def chunks(self) -> Iterator[Points]:
        if not self._is_due:
            return
        self._is_due = False
        if "metrics" not in self._want.selection.classes:
            return
        try:
            self._folder.get(SERIES, self._file)
            yield from read_points(
                self._file, lambda path: self._matcher.wants_field(path, "float_series"), self._want.chunk_points
            )
        except NotFound as error:
            self.findings.append(Finding("loss", "series-missing", detail=error.message))
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            self.findings.append(Finding("loss", "series-unreadable", detail=f"{SERIES}: {error}"))


class _Held:
    """`HeldRun` of a model version. Metadata that others logged beside ours comes under its own names."""

    def __init__(self, version: Version) -> None:
        self._metadata = version.metadata
        self.id = version.id

    def values(self) -> Mapping[str, Value]:
        others = {key: value for key, value in self._metadata.items() if key not in facts.OWN_KEYS}
        values = {flat.key: flat.value for flat in flattened(self._metadata.get(facts.FIELDS, {}))}
        for flat in flattened(others):
            values[unlike(flat.key, values)] = flat.value
        return values

    def series_keys(self) -> Iterable[str]:
        return ()

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:  # noqa: ARG002 (there are none)
        return iter(())

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:  # noqa: ARG002
        return ()


def _places(manifest: Manifest, *, has_series: bool) -> Iterator[tuple[str, str]]:
    """(name, path in the run's folder) of each file field and each series: the path of its only file, else of the folder that
    all of its files have in common, else (strange names lie at the top) of each file."""
    files: dict[str, list[str]] = {}
    for entry in manifest.files:
        members = [entry.artifact] if entry.members is None else [artifact for _, artifact in entry.members]
        files.setdefault(entry.path, []).extend(members)
    for series in manifest.series:
        files.setdefault(series.path, []).extend((series.artifact, series.shown))
    if has_series:
        files[SERIES] = [SERIES]
    for path, artifacts in files.items():
        folder = posixpath.commonpath([posixpath.dirname(artifact) for artifact in artifacts]) if artifacts else ""
        if len(artifacts) == 1:
            yield path, artifacts[0]
        elif folder:
            yield path, folder
        else:
            yield from ((artifact, artifact) for artifact in artifacts)
