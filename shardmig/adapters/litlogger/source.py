"""The read side: teamspaces are projects, experiments are runs.

A run that shardmig itself wrote is given as what it was before: under its original project and id, its fields restored.
Any other is given by the map of `reading`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from shardmig import logs
from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.litlogger import facts
from shardmig.adapters.litlogger.added import Added
from shardmig.adapters.litlogger.answers import Stream, Teamspace
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.options import SourceOptions
from shardmig.adapters.litlogger.reading import Reading, time_of
from shardmig.adapters.litlogger.run import run_reader
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.reading import beside_original, brought, then_added
from shardmig.errors import BadInput, Permanent, about_run
from shardmig.records import End, Entity, Header, Piece, ProjectId, RunId, RunRef, Scope, Selection
from shardmig.selection import Matcher


class LightningSource:
    """Read side of Lightning. The teamspaces' experiments are listed once."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._refused: dict[str, Permanent] = {}

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """Teamspaces by name (and id, where two have one name), and the projects of the runs that were brought here."""
        matcher = Matcher(selection)
        names = set(self._teamspaces.values())
        names |= {project for project, runs in self._brought.items() if any(map(matcher.wants_run, runs))}
        yield from (name for name in sorted(names) if matcher.wants_project(name))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """Experiments of the teamspace of that name, the earliest first; then those brought here from a project so named."""
        matcher = Matcher(selection)
        streams = self._streams
        originals: set[Entity] = set()
        for teamspace_id, name in self._teamspaces.items():
            if name == project:
                if (refused := self._refused.get(teamspace_id)) is not None:
                    raise refused
                own = [stream for stream in streams[teamspace_id] if not facts.was_brought(stream)]
                names = Counter(stream.name for stream in own)
                runs = [self._own(project, stream, is_only=names[stream.name] == 1) for stream in own]
                originals |= {run.entity for run in runs}
                yield from filter(matcher.wants_run, runs)
        copies = (beside_original(run, run.locator, originals) for run in self._brought.get(project, []))
        yield from filter(matcher.wants_run, copies)

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run; none can be resumed inside."""
        for run in runs:
            with about_run(run.label):
                teamspace_id, _, stream_id = run.locator.partition("/")
                stream = self._cloud.stream(teamspace_id, stream_id)
                drive = Drive(self._cloud, stream, stream.cluster_id)
                if facts.was_brought(stream):
                    yield from self._restored(run, stream, drive, want, files)
                else:
                    yield from self._read(run, stream, drive, want, files)

    def close(self) -> None:
        """As ReadSide."""
        if "_cloud" in self.__dict__:
            self._cloud.close()

    @cached_property
    def _cloud(self) -> Cloud:
        return Cloud(self._options)

    @cached_property
    def _teamspaces(self) -> dict[str, ProjectId]:
        """The project that each teamspace is, by its id."""
        found: list[Teamspace] = sorted(self._cloud.teamspaces(), key=lambda one: (one.name, one.project_id))
        names = Counter(one.name for one in found)
        return {
            one.project_id: ProjectId(one.name if names[one.name] == 1 else f"{one.name}~{one.project_id}")
            for one in found
        }

    @cached_property
    def _streams(self) -> dict[str, list[Stream]]:
        """The experiments of each teamspace, the earliest first. One that cannot be listed says so when it is asked for
        itself, and stops no other."""
        found: dict[str, list[Stream]] = {}
        for teamspace_id, name in self._teamspaces.items():
            try:
                streams = list(self._cloud.streams(teamspace_id, surely=True))
            except Permanent as error:
                self._refused[teamspace_id] = error
                logs.get_logger().info(logs.Event.PROJECT_SKIPPED, project=name, reason=error.message)
                streams = []
            found[teamspace_id] = sorted(streams, key=lambda stream: (stream.created_at or "", stream.id))
        return found

    @cached_property
    def _brought(self) -> dict[ProjectId, list[RunRef]]:
        """The runs that shardmig wrote, by their original projects; of several copies of one the one that is whole."""
        chosen: dict[tuple[str, str, str], Stream] = {}
        for stream in (stream for streams in self._streams.values() for stream in streams):
            if facts.was_brought(stream):
                identity = _identity(stream)
                held = chosen.get(identity)
                if held is None or facts.is_complete(stream) >= facts.is_complete(held):
                    chosen[identity] = stream
        by_place = {f"{stream.project_id}/{stream.id}": stream for stream in chosen.values()}
        by_project: dict[ProjectId, list[RunRef]] = {}
        for stream in chosen.values():
            parent = by_place.get(stream.metadata.get(facts.PARENT, ""))
            run = self._original(stream, parent)
            by_project.setdefault(run.project, []).append(run)
        return by_project

    def _own(self, project: ProjectId, stream: Stream, *, is_only: bool) -> RunRef:
        return RunRef(
            project=project,
            id=RunId(stream.name if is_only else f"{stream.name}~{stream.id}"),
            created_ms=time_of(stream.created_at),
            locator=f"{stream.project_id}/{stream.id}",
            fingerprint=_fingerprint(stream),
        )

    def _original(self, stream: Stream, parent: Stream | None) -> RunRef:
        held = stream.metadata
        project = ProjectId(held[provenance.PROJECT])
        parent_id, parent_project = held.get("sys/forking/parent"), None
        if parent is not None:
            of_parent = parent.metadata
            parent_id = of_parent[provenance.RUN_ID]
            parent_project = of_parent[provenance.PROJECT] if of_parent[provenance.PROJECT] != project else None
        return RunRef(
            project=project,
            id=RunId(held[provenance.RUN_ID]),
            scope=_scope(held.get(provenance.SCOPE, "runs")),
            created_ms=_creation_ms(held.get("sys/creation_time", "")),
            parent=RunId(parent_id) if parent_id else None,
            parent_project=ProjectId(parent_project) if parent_project else None,
            locator=f"{stream.project_id}/{stream.id}",
            fingerprint=_fingerprint(stream),
        )

    def _read(self, run: RunRef, stream: Stream, drive: Drive, want: Want, files: FileSink) -> Iterator[Piece]:
        with TemporaryDirectory(prefix="shardmig-") as staging:
            reading = Reading(self._cloud, run, stream, drive, want)
            yield Piece(run, Header(run, "litlogger", version("litlogger")))
            yield from (Piece(run, chunk) for chunk in reading.fields())
            yield from (Piece(run, chunk) for chunk in reading.files(files, Path(staging)))
            yield from (Piece(run, chunk) for chunk in reading.points())
            yield Piece(run, End(reading.findings))

    def _restored(self, run: RunRef, stream: Stream, drive: Drive, want: Want, files: FileSink) -> Iterator[Piece]:
        if not facts.is_complete(stream):
            raise BadInput(
                f"experiment {stream.name} was never loaded to its end",
                hint="finish that load, or delete the experiment",
            )
        digest = stream.metadata.get(provenance.DIGEST, "")
        with run_reader(self._cloud, stream, drive, want) as reader, TemporaryDirectory(prefix="shardmig-") as staging:
            added = Added(self._cloud, run, stream, drive, want)
            added.pass_over(reader.manifest)
            pieces = brought(reader.pieces(files, run), run, digest, want)
            yield from then_added(pieces, lambda: added.files(files, Path(staging)), lambda: added.findings)


def _identity(stream: Stream) -> tuple[str, str, str]:
    held = stream.metadata
    return held[provenance.PROJECT], held.get(provenance.SCOPE, "runs"), held[provenance.RUN_ID]


def _scope(text: str) -> Scope:
    """Metadata can be changed by hand: that stops no listing, and reading the run tells."""
    try:
        scope: Scope = msgspec.convert(text, Scope)
    except msgspec.ValidationError:
        return "runs"
    return scope


def _creation_ms(text: str) -> int | None:
    """The field may have been any text."""
    try:
        return time_of(text)
    except BadInput:
        return None


def _fingerprint(stream: Stream) -> str:
    """Changes when the experiment does: by its metadata, phase and the server's own count of updates."""
    content = (
        stream.name,
        stream.phase,
        stream.updated_at,
        str(stream.updates_counter),
        sorted(stream.metadata.items()),
    )
    return blake2b(repr(content).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
