"""What one run gives to the archives of its experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from shardmig import steps
from shardmig.adapters.base import FileStore
from shardmig.adapters.comet.fit import MAX_POINTS, CometRules
from shardmig.adapters.comet.histograms import drawn
from shardmig.adapters.comet.lines import HISTOGRAM, Asset, identity_of
from shardmig.adapters.comet.messages import ExperimentFile
from shardmig.adapters.comet.naming import Naming
from shardmig.adapters.comet.writer import ArchiveWriter
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.archive.layout import disk_errors
from shardmig.records import Chunk, FileRef, FloatPoints, HistogramPoints, Steps


class RunInArchives:
    """`RunSink`: the archives of one experiment."""

    def __init__(self, archives: ArchiveWriter) -> None:
        self._archives = archives

    def add_values(self, values: Mapping[str, Value]) -> None:
        """As RunSink."""
        self._archives.add_params(
            {key: value if not isinstance(value, list) else str(value) for key, value in values.items()}
        )

    def add_points(self, metrics: Metrics) -> None:
        """As RunSink."""
        self._archives.add_points(metrics)

    def flush(self) -> None:
        """Archives become durable when they are kept."""


class FilesOfRun:
    """`FileStore` that remembers which field each of its files belongs to."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self.ref_of: dict[Path, FileRef] = {}

    def path(self, ref: FileRef) -> Path:
        """As FileStore."""
        local = self._files.path(ref)
        self.ref_of[local] = ref
        return local

    def members(self, ref: FileRef) -> Iterator[tuple[str, Path]]:
        """As FileStore."""
        return self._files.members(ref)


class AssetsOfRun:
    """`ArtifactSink`: the archives of one experiment. Files of a series carry its steps and times."""

    def __init__(
        self, archives: ArchiveWriter, experiment: ExperimentFile, files: FilesOfRun, *, step_multiplier: int
    ) -> None:
        self._archives = archives
        self._experiment = experiment
        self._files = files
        self._step_multiplier = step_multiplier
        self._drawn: dict[Path, Asset] = {}

    def put(self, file: Path, path: str) -> None:
        """As ArtifactSink."""
        drawing = self._drawn.pop(file, None)
        self._archives.add_file(file, self._asset(file, path) if drawing is None else drawing)

    def drawing(self, chunks: Iterator[Chunk], naming: Naming, uploads: Uploads, staging: Path) -> Iterator[Chunk]:
        """The same chunks; histograms are drawn as they go by, into files in `staging` that `uploads` brings here."""
        seen: Counter[str] = Counter()
        numbers = count()
        for chunk in chunks:
            if isinstance(chunk, HistogramPoints):
                for path, series in chunk.series():
                    for row, content in drawn(series, seen[path]):
                        index = row - seen[path]
                        file = staging / f"drawn-{next(numbers)}"
                        with disk_errors("a drawn histogram"):
                            file.write_bytes(content)
                        self._drawn[file] = self._drawing(naming.key(path), row, series.steps[index : index + 1])
                        uploads.add(file, path, then_delete=True)
                    seen[path] += len(series.values)
            yield chunk

    def _asset(self, file: Path, path: str) -> Asset:
        ref = self._files.ref_of.get(file)
        step = None if ref is None or ref.step is None else steps.shown_step(ref.step, self._step_multiplier)
        time_ms = ref.time_ms if ref is not None and ref.time_ms is not None else self._experiment.start_time
        return Asset(path, self._identity(path), step, time_ms)

    def _drawing(self, name: str, row: int, step: Steps) -> Asset:
        number = steps.shown_step(step.to_decimals()[0], self._step_multiplier)
        return Asset(name, self._identity(f"{name}\0{row}"), number, self._experiment.start_time, HISTOGRAM)

    def _identity(self, name: str) -> str:
        return identity_of(self._experiment.offline_id, name)


def looking_ahead(chunks: Iterator[Chunk], rules: CometRules) -> Iterator[Chunk]:
    """The same points; `rules` is told of each long series before its first point. Memory: the points that a short
    series may have."""
    held: list[FloatPoints] = []  # the beginning of the series at hand, so far a short one
    for chunk in chunks:
        if not isinstance(chunk, FloatPoints) or not chunk.paths:
            yield from (*held, chunk)
            held = []
            continue
        goes_on = bool(held) and chunk.paths[0] == held[0].paths[0]
        if goes_on and sum(len(part.values) for part in held) + int(chunk.lengths[0]) > MAX_POINTS:
            rules.expect_long(chunk.paths[0])
        if not goes_on or len(chunk.paths) > 1 or rules.is_long(chunk.paths[0]):
            yield from held
            held = []
        if int(chunk.lengths[-1]) > MAX_POINTS or rules.is_long(chunk.paths[-1]):
            yield chunk
            continue
        *_, (_, last) = chunk.series()
        if len(chunk.paths) > 1:
            yield _without_last(chunk)
        held.append(last)
    yield from held


def _without_last(points: FloatPoints) -> FloatPoints:
    rows = slice(0, len(points.values) - int(points.lengths[-1]))
    columns = points.steps[rows], points.times_ms[rows], points.values[rows]
    return FloatPoints(points.paths[:-1], points.lengths[:-1], *columns)
