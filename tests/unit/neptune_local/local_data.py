"""Neptune's local data, written by hand, and what the adapter reads of it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from shardmig.adapters.base import Want
from shardmig.adapters.neptune_local import LocalSource, open_source
from shardmig.adapters.neptune_local.messages3 import messages
from shardmig.archive.files import ArchiveFiles
from shardmig.records import (
    NO_TIME,
    ArchivePaths,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    HistogramPoints,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    StringPoints,
)

SAMPLES = Path(__file__).parents[2] / "samples" / "offline"
UUID = "01234567-89ab-cdef-0123-456789abcdef"
Point = tuple[str, int | None, Any]
"""Step as decimal text, ms, value."""


class RunRead(NamedTuple):
    """One run as the adapter gave it."""

    ref: RunRef
    scalars: dict[str, Any]
    types: dict[str, list[str]]
    series: dict[str, list[Point]]
    files: dict[str, list[FileRef]]
    stored: dict[str, bytes]
    findings: list[Finding]
    pieces: list[Piece]

    def found(self, code: str) -> list[Finding]:
        """The findings with this code."""
        return [finding for finding in self.findings if finding.code == code]

    def logged(self) -> dict[str, Any]:
        """The scalars without what the client and the adapter add."""
        added = ("shardmig/", "sys/creation_time", "sys/custom_run_id", "sys/family")
        return {path: value for path, value in self.scalars.items() if not path.startswith(added)}


def record(version: int, kind: str, path: str, /, *, at: float | None = None, **details: Any) -> str:
    """One line of a log, as the clients write it."""
    line: dict[str, Any] = {"obj": {"type": kind, "path": path.split("/"), **details}, "version": version}
    return json.dumps(line if at is None else {**line, "at": at})


def points(*rows: tuple[Any, Any, Any]) -> list[dict[str, Any]]:
    """(value, step, ts) as values of a log operation."""
    return [{"value": value, "step": step, "ts": ts} for value, step, ts in rows]


def write_folder(
    root: Path,
    lines: Sequence[str],
    *,
    name: str = f"offline/run__{UUID}__7__abcdefgh",
    last_put: int | None = None,
    last_ack: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """A container folder below root/.neptune with one data file."""
    folder = root / ".neptune" / name
    (folder / "upload_path").mkdir(parents=True)
    (folder / "data-1.log").write_text("".join(f"{line}\n" for line in lines))
    (folder / "last_put_version").write_text(str(len(lines) if last_put is None else last_put))
    (folder / "last_ack_version").write_text("" if last_ack is None else str(last_ack))
    if metadata is not None:
        (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def write_operations(root: Path, *operations: tuple[str, str, dict[str, Any]], **details: Any) -> Path:
    """A container folder with these (type, path, details), numbered from 1."""
    lines = [
        record(number, kind, path, at=1_700_000_000.0 + number, **more)
        for number, (kind, path, more) in enumerate(operations, 1)
    ]
    return write_folder(root, lines, **details)


def write_database(
    path: Path,
    operations: Iterable[tuple[int, Any]],
    *,
    project: str = "ws/scale",
    run_id: str = "run-1",
    version: str = "v5",
    uploads: Iterable[tuple[str, str, str, int, int]] = (),
) -> Path:
    """A database of neptune-scale with these (time in ms, message)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    create = messages().Run
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE run_operations (sequence_id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER NOT NULL,"
            " operation_type INTEGER NOT NULL, operation BLOB NOT NULL, operation_size_bytes INTEGER NOT NULL)"
        )
        connection.execute("CREATE TABLE metadata (id INTEGER PRIMARY KEY, version TEXT, project TEXT, run_id TEXT)")
        connection.execute("INSERT INTO metadata VALUES (1, ?, ?, ?)", (version, project, run_id))
        if version != "v1":
            connection.execute(
                "CREATE TABLE file_upload_requests (id INTEGER PRIMARY KEY AUTOINCREMENT, source_path TEXT,"
                " destination TEXT, mime_type TEXT, size_bytes INTEGER, is_temporary INTEGER)"
            )
            connection.executemany("INSERT INTO file_upload_requests VALUES (NULL, ?, ?, ?, ?, ?)", uploads)
        for time_ms, message in operations:
            blob = message if isinstance(message, bytes) else message.SerializeToString()
            kind = 1 if isinstance(message, create) else 0
            connection.execute("INSERT INTO run_operations VALUES (NULL, ?, ?, ?, ?)", (time_ms, kind, blob, len(blob)))
    return path


def created(**details: Any) -> Any:
    """A message that creates a run."""
    return messages().Run(**details)


def snapshot(micro: int | None = None, *, preview: bool = False, ms: int = 1_700_000_000_000, **parts: Any) -> Any:
    """An update; `parts` are the `assign`, `append` and `modify_sets` maps."""
    update = messages().UpdateRunSnapshot()
    update.timestamp.seconds, update.timestamp.nanos = ms // 1000, ms % 1000 * 1_000_000
    if micro is not None:
        update.step.whole, update.step.micro = divmod(micro, 1_000_000)
        update.step.SetInParent()
    if preview:
        update.preview.is_preview = True
    for part, values in parts.items():
        for path, value in values.items():
            getattr(update, part)[path].CopyFrom(value if part == "modify_sets" else _value(value))
    return update


def tags(added: Iterable[str] = (), removed: Iterable[str] = ()) -> Any:
    """A change of a string set."""
    change = messages().ModifySet()
    for one in added:
        change.string.values[one] = messages().ADD
    for one in removed:
        change.string.values[one] = messages().REMOVE
    return change


def open_local(path: Path | str, **options: str) -> LocalSource:
    """The source over a path; 1.x data belongs to ws/project."""
    given = {name.replace("_", "-"): text for name, text in options.items()}
    return open_source({"path": str(path), "project": "ws/project", **given})


def list_all(source: LocalSource, selection: Selection | None = None) -> list[RunRef]:
    """All selected runs of all projects."""
    chosen = selection or Selection()
    return [run for project in source.list_projects(chosen) for run in source.list_runs(project, chosen)]


def read_all(path: Path | str, archive: Path, *, want: Want | None = None, **options: str) -> dict[str, RunRead]:
    """Every run below a path, by id."""
    source = open_local(path, **options)
    try:
        return {run.id: read_run(source, run, archive, want=want) for run in list_all(source)}
    finally:
        source.close()


def read_one(path: Path | str, archive: Path, *, want: Want | None = None, **options: str) -> RunRead:
    """The only run below a path."""
    (only,) = read_all(path, archive, want=want, **options).values()
    return only


def read_run(source: LocalSource, run: RunRef, archive: Path, *, want: Want | None = None) -> RunRead:
    """One run, its files stored in an archive."""
    sink = ArchiveFiles(ArchivePaths(str(archive / "data"), str(archive / "files")), ProjectId(run.project))
    pieces = list(source.read_runs([run], want or Want(), sink))
    read = RunRead(run, {}, {}, {}, {}, {}, [], pieces)
    for piece in pieces:
        _add(read, piece.chunk, sink)
    return read


def beyond_reach(folder: Path) -> None:
    """Folders in each other below `folder`, so deep that the path to the last ones is longer than systems take."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def tree_state(root: Path) -> dict[str, tuple[int, int, str]]:
    """Name, size, time of change and content of everything below root."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_mtime_ns,
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted([root, *root.rglob("*")])
    }


def resumed(source: LocalSource, run: RunRef, archive: Path, cursor: bytes, most: int) -> RunRead:
    """The rest of a run behind a cursor."""
    return read_run(source, run, archive, want=Want(cursors={RunId(run.id): cursor}, chunk_points=most))


def _value(value: Any) -> Any:
    kinds = messages()
    if isinstance(value, kinds.Value):
        return value
    if isinstance(value, bool):
        return kinds.Value(bool=value)
    if isinstance(value, int):
        return kinds.Value(int64=value)
    if isinstance(value, float):
        return kinds.Value(float64=value)
    return kinds.Value(string=value)


def _add(read: RunRead, chunk: Any, sink: ArchiveFiles) -> None:
    match chunk:
        case Fields(fields):
            for field in fields:
                _add_field(read, field)
        case Files(refs):
            for ref in refs:
                read.files.setdefault(ref.path, []).append(ref)
                read.types.setdefault(ref.path, []).append(ref.type)
                read.stored.update((f"{ref.path}: {name}", path.read_bytes()) for name, path in sink.members(ref))
        case FloatPoints() | StringPoints() | HistogramPoints():
            for part in chunk.series():
                _add_points(read, *part)
        case End(findings):
            read.findings.extend(findings)


def _add_field(read: RunRead, field: Field) -> None:
    read.scalars[field.path] = field.value
    read.types.setdefault(field.path, []).append(field.type)


def _add_points(read: RunRead, path: str, part: FloatPoints | StringPoints | HistogramPoints) -> None:
    if isinstance(part, FloatPoints):
        kind, values = "float_series", part.values.tolist()
    elif isinstance(part, StringPoints):
        kind, values = "string_series", list(part.values.to_list())
    else:
        kind, whole = "histogram_series", part.values
        values = [
            (one.kinds[0], one.edges.tolist(), one.values.tolist())
            for one in (whole[row : row + 1] for row in range(len(whole)))
        ]
    if kind not in read.types.setdefault(path, []):
        read.types[path].append(kind)
    steps = [format(_plain(step), "f") for step in part.steps.to_decimals()]
    times = [None if time == NO_TIME else time for time in part.times_ms.tolist()]
    read.series.setdefault(path, []).extend(zip(steps, times, values, strict=True))


def _plain(step: Decimal) -> Decimal:
    return step.normalize() if step else Decimal(0)
