"""What a source gives, in the form of the server's own dump, so that the two can be compared with ==."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from shardmig.adapters.base import FileSink, ReadSide, Want
from shardmig.archive.files import ArchiveFiles
from shardmig.records import (
    ArchivePaths,
    End,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Header,
    HistogramPoints,
    Piece,
    Points,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    StringPoints,
)

EVERYTHING = Selection(include_archived=True)
SERVER_TYPES = {
    "string_set": "stringSet",
    "float_series": "floatSeries",
    "string_series": "stringSeries",
    "histogram_series": "histogramSeries",
    "file": "fileRef",
    "file_series": "fileRefSeries",
}

Contents = dict[tuple[str, str], Any]


class RunContents:
    """Everything that was read of one run."""

    def __init__(self) -> None:
        self.fields: Contents = {}
        self.files: dict[tuple[str, Decimal | None], FileRef] = {}
        self.findings: list[Finding] = []
        self.pieces: list[Piece] = []

    def losses(self) -> list[Finding]:
        """What did not arrive."""
        return [finding for finding in self.findings if finding.kind == "loss"]


def list_all(source: ReadSide, project: str, selection: Selection = EVERYTHING) -> list[RunRef]:
    """All selected runs of a project."""
    return list(source.list_runs(ProjectId(project), selection))


def read_all(
    source: ReadSide,
    runs: Iterable[RunRef],
    folder: Path,
    *,
    selection: Selection = EVERYTHING,
    cursors: Mapping[RunId, bytes] | None = None,
    chunk_points: int = 250_000,
) -> dict[RunId, RunContents]:
    """Runs of one project and what they hold, files in `folder`."""
    runs = list(runs)
    store = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), runs[0].project)
    want = Want(selection=selection, cursors=cursors or {}, chunk_points=chunk_points)
    found: dict[RunId, RunContents] = {}
    for piece in source.read_runs(runs, want, store):
        _take(found.setdefault(piece.run.id, RunContents()), piece, store)
    return found


def same(one: Contents, other: Contents) -> bool:
    """Equal, where NaN equals NaN and -0.0 differs from 0.0."""
    return one.keys() == other.keys() and all(_exact(one[key]) == _exact(other[key]) for key in one)


def _take(contents: RunContents, piece: Piece, store: FileSink) -> None:
    contents.pieces.append(piece)
    match piece.chunk:
        case Fields(fields):
            for field in fields:
                contents.fields[field.path, SERVER_TYPES.get(field.type, field.type)] = field.value
        case Files(files):
            for ref in files:
                assert isinstance(store, ArchiveFiles)
                contents.files[ref.path, ref.step] = ref
                content = store.path(ref).read_bytes()
                key = (ref.path, SERVER_TYPES[ref.type])
                if ref.type == "file":
                    contents.fields[key] = content
                else:
                    contents.fields.setdefault(key, []).append((ref.step, ref.time_ms, content))
        case End(findings):
            contents.findings = findings
        case FloatPoints() | StringPoints() | HistogramPoints() as points:
            for path, rows in _rows(points):
                contents.fields.setdefault(path, []).extend(rows)
        case Header():
            pass


def _rows(points: Points) -> Iterable[tuple[tuple[str, str], list[Any]]]:
    for path, part in points.series():
        match part:
            case FloatPoints():
                kind, values = "floatSeries", part.values.tolist()
            case HistogramPoints():
                kind, values = "histogramSeries", _histograms(part)
            case _:
                kind, values = "stringSeries", part.values.to_list()
        yield (path, kind), list(zip(part.steps.to_decimals(), part.times_ms.tolist(), values, strict=True))


def _histograms(points: HistogramPoints) -> list[Any]:
    found = []
    for row in range(len(points.values)):
        one = points.values[row : row + 1]
        found.append((one.kinds[0], tuple(one.edges.tolist()), tuple(one.values.tolist())))
    return found


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, (list, tuple)):
        return [_exact(one) for one in value]
    return value
