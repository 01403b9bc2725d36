"""The read side: lists runs and streams each as Header, Fields, Files, points, End.

A cursor names a stage, how much of it is done and, among the points, the state from which the current window was
read. The first pass over a run is repeated when reading is resumed; the second goes on in the log where the window
began, so at most one window is read twice, and none of its finished chunks is handed out again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.neptune_local import discover
from shardmig.adapters.neptune_local.database3 import Identity, identify, opened
from shardmig.adapters.neptune_local.discover import Found, Locator
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.options import LocalOptions
from shardmig.adapters.neptune_local.recording import Recording
from shardmig.adapters.neptune_local.run2 import open_run2
from shardmig.adapters.neptune_local.run3 import open_run3, require_paths
from shardmig.adapters.neptune_local.survey3 import milliseconds
from shardmig.errors import BadInput, Denied, NotFound, Permanent, UsageError
from shardmig.records import (
    Chunk,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    Header,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Selection,
)
from shardmig.selection import Matcher

_FIELDS_PER_CHUNK: Final = 5_000
_CHARACTERS_PER_CHUNK: Final = 8_000_000
_FILES_PER_CHUNK: Final = 50
_FIELDS, _FILES, _POINTS = range(3)


class _Cursor(msgspec.Struct, array_like=True):
    """How far a run was read. `state`: of the window that is being read; `done`: chunks of this stage or window."""

    stage: int
    done: int
    state: bytes
    most: int
    findings: list[Finding]


class LocalSource:
    """Neptune's local data as a source (see `adapters.base.ReadSide`)."""

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self._stack = ExitStack()

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """The projects of the databases, and the one that was named for the folders."""
        matcher = Matcher(selection)
        projects = {ProjectId(project) for project, _ in self._databases}
        if self._unreadable:
            projects.add(self._project_of_unreadable(selection))
        if self._found.containers:
            projects.add(self._project_of_folders(selection))
        yield from (project for project in sorted(projects) if matcher.wants_project(project))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """Runs of 1.x clients by uuid, then those of neptune-scale by run id. A database or folder that cannot be read
        is a run under its name, so that it fails when it is read and the others do not."""
        matcher = Matcher(selection)
        if self._found.containers and project == self._project_of_folders(selection):
            yield from filter(matcher.wants_run, self._runs_of_folders(project))
        for owner, run_id in self._databases:
            if owner == project and matcher.wants_run(ref := self._run_of_databases(owner, run_id)):
                yield ref
        if self._unreadable and project == self._project_of_unreadable(selection):
            yield from filter(matcher.wants_run, (_run_of_unreadable(project, path) for path in self._unreadable))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run, see `adapters.base.ReadSide`."""
        matcher = Matcher(want.selection)
        for run in runs:
            try:
                yield from self._read_run(run, matcher, want, files)
            except sqlite3.Error as error:
                hint = "move it out of the path, or repair it"
                where = ", ".join(msgspec.json.decode(run.locator, type=Locator).paths)
                raise BadInput(f"{where} cannot be read: {error}", run=run.label, hint=hint) from error
            except FileNotFoundError as error:
                raise NotFound(f"{error.filename} is gone", run=run.label) from error
            except PermissionError as error:
                raise Denied(f"{error.filename} may not be read", run=run.label) from error

    def close(self) -> None:
        """Remove the scratch folder; idempotent."""
        self._stack.close()

    @cached_property
    def _scratch(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="shardmig-neptune-")))

    @cached_property
    def _found(self) -> Found:
        found = discover.search(self.options.paths)
        if not any(found):
            raise UsageError(
                f"there is nothing of Neptune's clients below {', '.join(map(str, self.options.paths))}",
                hint="name the .neptune folder, or one that holds it",
            )
        return found

    @cached_property
    def _identified(self) -> tuple[dict[tuple[str, str], list[tuple[Path, Identity]]], list[Path]]:
        databases: dict[tuple[str, str], list[tuple[Path, Identity]]] = {}
        unreadable = list(self._found.unreadable)
        for path in self._found.databases:
            try:
                with opened(path, self._scratch) as connection:
                    identity = identify(connection)
            except (sqlite3.Error, FileNotFoundError, PermissionError):
                unreadable.append(path)
                continue
            if identity is not None:
                databases.setdefault((identity.project, identity.run_id), []).append((path, identity))
        for found in databases.values():
            found.sort(key=lambda one: (one[1].first_ms or 0, one[0]))
        return dict(sorted(databases.items())), unreadable

    @property
    def _databases(self) -> dict[tuple[str, str], list[tuple[Path, Identity]]]:
        """By (project, run id), sorted; those of one run in the order of their beginnings."""
        return self._identified[0]

    @property
    def _unreadable(self) -> list[Path]:
        """Databases of which nothing can be read, not even whose they are, and folders that cannot be looked into."""
        return self._identified[1]

    def _project_of_unreadable(self, selection: Selection) -> ProjectId:
        """A project that is selected, else the first of the databases beside, else that of the folders of 1.x."""
        beside = next((project for project, _ in self._databases), "")
        known = next(iter(selection.projects), "") or beside or self.options.project
        return ProjectId(known or self._unreadable[0].parent.name)

    def _project_of_folders(self, selection: Selection) -> ProjectId:
        if self.options.project is not None:
            return self.options.project
        if len(selection.projects) == 1:
            return ProjectId(selection.projects[0])
        folder = next(iter(self._found.containers.values()))[0]
        raise UsageError(
            f"folders of Neptune 1.x such as {folder} do not say which project they belong to",
            hint="name it with --project WORKSPACE/NAME, or, to read databases of other projects too, with "
            "--source-option project=WORKSPACE/NAME",
        )

    def _runs_of_folders(self, project: ProjectId) -> Iterator[RunRef]:
        containers = self._found.containers
        short = discover.short_ids([container_id for _, container_id in containers])
        for (_, container_id), folders in containers.items():
            locator = Locator("1.x", tuple(str(folder) for folder in folders))
            metadata = [discover.read_metadata(folder) for folder in folders]
            begun = [one.created_ms for one in metadata if one.created_ms is not None]
            begun = begun or [first for one in folders if (first := discover.first_time_ms(one)) is not None]
            fingerprint, weight = discover.fingerprint_and_weight(locator)
            yield RunRef(
                project=project,
                id=RunId(self.options.run_id_prefix + short[container_id]),
                scope=metadata[0].scope,
                created_ms=min(begun, default=None),
                locator=msgspec.json.encode(locator).decode(),
                fingerprint=fingerprint,
                weight=weight,
            )

    def _run_of_databases(self, project: str, run_id: str) -> RunRef:
        found = self._databases[project, run_id]
        locator = Locator("scale", tuple(str(path) for path, _ in found))
        created = next((one.created for _, one in found if one.created is not None), None)
        created_ms = min((one.first_ms for _, one in found if one.first_ms is not None), default=None)
        parent = None
        if created is not None:
            if created.HasField("creation_time"):
                created_ms = milliseconds(created.creation_time)
            if created.HasField("fork_point") and created.fork_point.parent_project in ("", project):
                parent = RunId(created.fork_point.parent_run_id)
        fingerprint, weight = discover.fingerprint_and_weight(locator)
        return RunRef(
            project=ProjectId(project),
            id=RunId(run_id),
            created_ms=created_ms,
            parent=parent,
            locator=msgspec.json.encode(locator).decode(),
            fingerprint=fingerprint,
            weight=weight,
        )

    def _find_databases(self, project: str, run_id: str) -> Sequence[Path]:
        return [path for path, _ in self._databases.get((project, run_id), [])]

    def _read_run(self, run: RunRef, matcher: Matcher, want: Want, sink: FileSink) -> Iterator[Piece]:
        given = want.cursors.get(run.id)
        cursor = _Cursor(_FIELDS, 0, b"", want.chunk_points, [])
        if given:
            cursor = msgspec.msgpack.decode(given, type=_Cursor)
        locator = msgspec.json.decode(run.locator, type=Locator)
        require_paths(locator, run)
        late = FindingLog(cursor.findings)
        with ExitStack() as stack:
            recording: Recording
            if locator.generation == "1.x":
                keep = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._scratch)))
                recording = open_run2(run, locator, self.options, matcher, keep, late)
            else:
                recording, opened_databases = open_run3(
                    run, locator, self.options, matcher, self._scratch, self._find_databases
                )
                stack.enter_context(opened_databases)
            header = Header(run, "neptune-local", recording.source_version)
            yield Piece(run, header, msgspec.msgpack.encode(cursor))
            for chunk in _chunks(run, recording, matcher, cursor, sink, late):
                yield Piece(run, chunk, msgspec.msgpack.encode(cursor))
            yield Piece(run, End(recording.findings.findings() + late.findings()))


def _run_of_unreadable(project: ProjectId, path: Path) -> RunRef:
    locator = Locator("scale", (str(path),))
    fingerprint, weight = discover.fingerprint_and_weight(locator)
    name = path.parent.name if path.stem == "run_operations" else path.stem
    return RunRef(
        project=project,
        id=RunId(f"{name} (unreadable)"),
        locator=msgspec.json.encode(locator).decode(),
        fingerprint=fingerprint,
        weight=weight,
    )


def _chunks(
    run: RunRef, recording: Recording, matcher: Matcher, cursor: _Cursor, sink: FileSink, late: FindingLog
) -> Iterator[Chunk]:
    """What is left behind `cursor`, which is moved on before each chunk is handed out."""
    if cursor.stage == _FIELDS:
        wanted = [field for field in recording.fields if matcher.wants_field(field.path, field.type)]
        batches = _field_batches(sorted(wanted, key=lambda field: (field.path, field.type)))
        for batch in batches[cursor.done :]:
            cursor.done += 1
            yield Fields(batch)
        cursor.stage, cursor.done = _FILES, 0
    if cursor.stage == _FILES:
        while planned := recording.files[cursor.done : cursor.done + _FILES_PER_CHUNK]:
            stored: list[FileRef] = []
            for one in planned:
                try:
                    stored.append(one.put(sink, run))
                except Permanent as error:
                    late.add("loss", "file-refused", field=one.path, detail=error.message)
            cursor.done += len(planned)
            cursor.findings = late.findings()
            if stored:
                yield Files(stored)
        cursor.stage, cursor.done = _POINTS, 0
    for window in recording.windows(cursor.state, cursor.most, sink, late):
        last = len(window.chunks) - 1
        for number in range(cursor.done, last):
            cursor.done = number + 1
            yield window.chunks[number]
        # Findings of a window are counted again when it is read again: they join the cursor with its last chunk.
        cursor.state, cursor.done, cursor.findings = window.state, 0, late.findings()
        yield window.chunks[last]


def _field_batches(fields: list[Field]) -> list[list[Field]]:
    batches: list[list[Field]] = []
    characters = 0
    for field in fields:
        characters += len(field.value) if isinstance(field.value, str) else 8
        if not batches or characters > _CHARACTERS_PER_CHUNK or len(batches[-1]) == _FIELDS_PER_CHUNK:
            batches.append([])
            characters = 0
        batches[-1].append(field)
    return batches
