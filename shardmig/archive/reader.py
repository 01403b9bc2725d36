"""Reading archives, ours and neptune-exporter's, into chunks in canonical order.

A run with a receipt is checked against it while it is read, and lies in canonical order already. A run without one is
put in order on the way, in bounded memory; its completeness is unknown, and the note `no-receipt` says so.
"""

from __future__ import annotations

import tempfile
from bisect import insort
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, Protocol

import msgspec

from shardmig.archive.bucket_files import files_of
from shardmig.archive.digest import RunDigest
from shardmig.archive.facts import FACT_PATHS, is_fact, with_facts
from shardmig.archive.files import ArchiveFiles, described
from shardmig.archive.layout import parse_part, project_folder, sanitize
from shardmig.archive.parsing import Findings, WantsField, rows_by_type, wanted_rows
from shardmig.archive.places import Place, each_with, folders_in, names_in, root_of
from shardmig.archive.published import PublishedRun, every_group
from shardmig.archive.remembered import ListingMemory, marks_of
from shardmig.archive.store import ObjectPath
from shardmig.archive.streams import (
    Wanted,
    canonical_chunks,
    field_rows,
    holds_any,
    ordered_chunks,
    row_count,
    rows_from,
)
from shardmig.codec import decode, encode
from shardmig.errors import BadInput, HostilePath, NotFound
from shardmig.records import (
    SCOPES,
    ArchivePaths,
    Chunk,
    End,
    Field,
    FieldType,
    FileRef,
    Files,
    Header,
    Piece,
    ProjectId,
    Receipt,
    RunId,
    RunRef,
    Scope,
    Selection,
)
from shardmig.selection import Matcher

_EXPORTER: Final = "neptune-exporter"


class Want(Protocol):
    """What the archive needs of adapters.base.Want."""

    @property
    def selection(self) -> Selection:
        """Which fields."""

    @property
    def cursors(self) -> Mapping[RunId, bytes]:
        """Where to go on, by run."""

    @property
    def chunk_points(self) -> int:
        """Most points of a chunk."""


class _Cursor(msgspec.Struct, frozen=True):
    fingerprint: str
    rows: int


class _Place(NamedTuple):
    """Where the parts of a run lie, and which run it is if its receipt says so."""

    folder: Place
    prefix: str
    ref: RunRef | None


class ArchiveReader:
    """Lists and reads the runs of an archive. Keeps no file open between calls; writes nothing into the archive.

    What it lists is the archive as it was when it was first asked for a list.
    `scratch`: a folder on disk for putting large unordered runs in order (default: the system's temporary folder).
    `memory`: of an earlier listing; whoever gives it saves it.
    """

    def __init__(
        self, archive: ArchivePaths, *, scratch: Path | None = None, memory: ListingMemory | None = None
    ) -> None:
        self._archive = archive
        self._data = root_of(archive.data)
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._memory = memory or ListingMemory()
        self._places: dict[Scope, dict[ProjectId, list[_Place]]] = {}

    def projects(self) -> Iterator[ProjectId]:
        """All project ids, sorted, as the parquet columns hold them. A folder of which nothing can be read is a project
        under the folder's name."""
        yield from sorted({project for scope in SCOPES for project in self._placed(scope)})

    def runs(self, project: ProjectId, scope: Scope = "runs") -> Iterator[RunRef]:
        """All runs of a project, sorted by name on disk, each once. A run whose part_0 is missing or cannot be read is
        listed under the name of its file, so that it fails when it is read and the others do not. Raises BadInput, after
        all others, if two files claim to be one run."""
        seen: dict[RunId, str] = {}
        twins: list[BadInput] = []
        for place in self._placed(scope).get(project, []):
            ref = place.ref or self._listed(PublishedRun(place.folder, place.prefix), project, scope)
            if ref.id in seen:
                what = f"{seen[ref.id]} and {place.prefix} in {place.folder} are both run {ref.id!r}"
                twins.append(BadInput(what, run=ref.label, hint="move one of them away"))
                continue
            seen[ref.id] = place.prefix
            yield ref
        if twins:
            raise twins[0]

    def receipt(self, run: RunRef) -> Receipt | None:
        """The run's receipt; None if the run is not there or has none. Raises BadInput if it does not agree with the
        parts on disk (which, how long, how many rows; contents are checked by `read`)."""
        published = self._expected(run)
        if published is None:
            return None
        published.check(hashes=False)
        return published.receipt

    def read(
        self, run: RunRef, want: Want, *, hash_files: bool = True, proven: ArchiveFiles | None = None
    ) -> Iterator[Piece]:
        """Everything wanted of a run in canonical order: Header, Fields, Files, points, End.

        Raises BadInput if the run is damaged: a part is missing or unreadable, or content and receipt disagree. A
        file that is missing, or whose name leads out of the archive, is a loss in End.findings and the rest goes on.
        `End.digest` covers what was yielded, and what came before the cursor. Files of unknown hash are digested
        unless `hash_files` is off. `proven`: the store that files will be taken from; the bytes of each are compared with
        its digest there, and one that differs is a loss too.
        """
        published = self.published(run)
        ref = self._listed(published, run.project, run.scope)
        reading = _Reading(published, ref, want, self._files(ref, hash_files, proven))
        yield Piece(ref, reading.header(), reading.cursor())
        for chunk in reading.chunks(self._scratch):
            yield Piece(ref, chunk, reading.cursor())
        yield Piece(ref, reading.end(), reading.cursor())

    def described(self, published: PublishedRun, run: RunRef) -> RunRef:
        """All that the archive knows of a published run."""
        return self._listed(published, run.project, run.scope)

    def fields(self, run: RunRef) -> dict[tuple[str, FieldType], int]:
        """Rows by path and type, sorted: from the receipt, else from the columns that tell whether a field is absent."""
        published = self.published(run)
        if published.receipt is not None:
            published.check(hashes=False)
            return {(field.path, field.type): field.rows for field in published.receipt.fields}
        return field_rows(published)

    def published(self, run: RunRef) -> PublishedRun:
        """The run on disk. Raises NotFound, naming runs of similar id."""
        expected = self._expected(run)
        if expected is not None:
            return expected
        names: list[str] = []
        for project_dir in self._folders():
            for found in _runs_in(project_dir if run.scope == "runs" else project_dir / run.scope):
                if found.prefix == run.id or (_is_readable(found) and found.identity == (run.project, run.id)):
                    return found
                names.append(found.identity[1] if _is_readable(found) else found.prefix)
        similar = get_close_matches(run.id, names, n=3)
        raise NotFound(
            f"the archive {self._data} has no run {run.label}",
            run=run.label,
            hint=f"similar: {', '.join(similar)}" if similar else "",
        )

    def _expected(self, run: RunRef) -> PublishedRun | None:
        """The run where its names, or its locator, say that it lies; looks nowhere else."""
        named = PublishedRun(project_folder(self._data, run.project, run.scope), sanitize(run.id))
        if named.exists():
            return named
        locator = PurePosixPath(run.locator)  # of any source: followed only if it leads to this very run
        if len(locator.parts) > 1 and not locator.is_absolute() and ".." not in locator.parts:
            located = PublishedRun(self._data / str(locator.parent), locator.name)
            if located.exists() and (not _is_readable(located) or located.identity == (run.project, run.id)):
                return located
        return None

    def _placed(self, scope: Scope) -> dict[ProjectId, list[_Place]]:
        """Every run of the archive, by project and place. What cannot be read belongs to the project of the runs beside
        it."""
        if scope not in self._places:
            placed: dict[ProjectId, list[_Place]] = {}
            for folder in self._folders():
                strays, owners = [], []
                runs = _runs_in(folder if scope == "runs" else folder / scope)
                for run, (owner, ref) in each_with(lambda run: self._recognized(run, scope), runs, self._data):
                    if owner is None:
                        strays.append(run)
                    else:
                        owners.append(owner)
                        placed.setdefault(owner, []).append(_Place(run.folder, run.prefix, ref))
                beside = min(owners, default=ProjectId(folder.name))
                for run in strays:
                    insort(placed.setdefault(beside, []), _Place(run.folder, run.prefix, None), key=_place_of)
            self._places[scope] = placed
        return self._places[scope]

    def _recognized(self, run: PublishedRun, scope: Scope) -> tuple[ProjectId | None, RunRef | None]:
        """Whose it is (None: it cannot be read), and which run, if its receipt says so."""
        marks = marks_of(run.first)
        if (known := self._memory.recall(self._locator(run), marks)) is not None:
            return known.project, known
        if not _is_readable(run):
            return None, None
        if run.receipt is None:
            return run.identity[0], None
        ref = self._listed(run, run.identity[0], scope)
        if run.identity == (ref.project, ref.id):
            self._memory.keep(ref, marks)
        return run.identity[0], ref

    def _locator(self, run: PublishedRun) -> str:
        below = run.folder.name if run.folder.parent == self._data else f"{run.folder.parent.name}/{run.folder.name}"
        return f"{below}/{run.prefix}"

    def _folders(self) -> list[Place]:
        if not self._data.is_dir():
            raise NotFound(
                f"there is no archive at {self._data}", hint="name the folder that holds the project folders"
            )
        return [self._data / name for name in folders_in(self._data) if not name.startswith(".")]

    def _listed(self, run: PublishedRun, project: ProjectId, scope: Scope) -> RunRef:
        locator = self._locator(run)
        if not _is_readable(run):
            return RunRef(project=project, id=RunId(run.prefix), scope=scope, locator=locator)
        if run.receipt is not None:
            return msgspec.structs.replace(run.receipt.run, locator=locator, fingerprint=run.receipt.digest)
        found_project, id_ = run.identity
        ref = RunRef(project=found_project, id=id_, scope=scope, locator=locator)
        try:
            known = msgspec.structs.replace(ref, fingerprint=run.fingerprint(), weight=run.rows())
            return with_facts(known, _sys_fields(run))
        except BadInput:
            return ref  # what is wrong with its parts, reading it will say

    def _files(self, run: RunRef, hash_files: bool, proven: ArchiveFiles | None) -> _CheckedFiles:
        store = proven or files_of(self._archive, run.project)
        return _CheckedFiles(store, hash_files, is_proven=proven is not None)


class _CheckedFiles:
    """Lets only references through whose file is there and inside the archive."""

    def __init__(self, store: ArchiveFiles, hash_files: bool, *, is_proven: bool) -> None:
        self._store = store
        self._hash_files = hash_files
        self._is_proven = is_proven
        self.lost: set[tuple[str, FieldType]] = set()

    def check(self, files: Files, findings: Findings) -> Files:
        kept: list[FileRef] = []
        self._store.expect(files.files)
        for ref in files.files:
            try:
                checked = described(self._store, ref, with_hash=self._hash_files)
                if self._is_proven:
                    self._store.prove(ref)
                kept.append(checked)
                continue
            except HostilePath as error:
                code, detail = "hostile-path", error.message
            except NotFound as error:
                code, detail = "missing-file", error.message
            except BadInput as error:
                code, detail = "damaged-file", error.message
            except OSError as error:
                code, detail = "damaged-file", f"{ref.stored} cannot be read: {error.strerror}"
            findings.add("loss", code, ref.path, detail=detail)
            self.lost.add((ref.path, ref.type))
        return Files(kept)


class _Reading:
    """One reading of one run."""

    def __init__(self, published: PublishedRun, run: RunRef, want: Want, files: _CheckedFiles) -> None:
        self._published, self._run, self._want, self._files = published, run, want, files
        self._wants: WantsField = Matcher(want.selection).wants_field
        self._findings = Findings()
        self._digest = RunDigest()
        self._rows = 0
        self._skip = self._rows_done(want.cursors.get(run.id, b""))
        published.check(hashes=Matcher(want.selection).takes_every_field)
        if published.identity != (run.project, run.id):
            raise BadInput(f"{published.folder / published.prefix} holds run {published.identity[1]!r}", run=run.label)
        if published.receipt is None:
            published.refuse_rows_of_others()

    def header(self) -> Header:
        receipt = self._published.receipt
        if receipt is None:
            return Header(self._run, _EXPORTER)
        return Header(self._run, receipt.source, receipt.source_version)

    def cursor(self) -> bytes:
        return encode(_Cursor(self._run.fingerprint, max(self._rows, self._skip)))

    def chunks(self, scratch: Path) -> Iterator[Chunk]:
        limit = self._want.chunk_points
        receipt = self._published.receipt
        if receipt is None:
            exact = self._want.selection.attributes[1:] and self._want.selection.attributes
            wanted = Wanted(self._wants, holds_any(exact) if exact else every_group)
            chunks = ordered_chunks(self._published, wanted, self._findings, limit, scratch)
        else:
            chunks = canonical_chunks(self._published, receipt, self._wants, self._findings, limit)
        for chunk in chunks:
            before = self._rows
            self._rows += row_count(chunk)
            checked = self._files.check(chunk, self._findings) if isinstance(chunk, Files) else chunk
            self._digest.add(checked)
            if self._rows > self._skip:
                yield rows_from(checked, self._skip - before) if self._skip > before else checked

    def end(self) -> End:
        receipt = self._published.receipt
        if receipt is None:
            self._findings.add(
                "note", "no-receipt", detail="completeness unknown: the archive has no receipt for this run"
            )
            return End(self._findings.list(), self._digest.digest())
        self._compare(receipt)
        return End([*receipt.findings, *self._findings.list()], self._digest.digest())

    def _compare(self, receipt: Receipt) -> None:
        told = {
            (field.path, field.type): field
            for field in receipt.fields
            if self._wants(field.path, field.type) and (field.path, field.type) not in self._files.lost
        }
        seen = {(field.path, field.type): field for field in self._digest.field_digests()}
        for key in sorted(told.keys() | (seen.keys() - self._files.lost)):
            if told.get(key) != seen.get(key):
                raise BadInput(
                    f"field {key[0]!r} ({key[1]}) of {self._run.label} is not what its receipt says",
                    run=self._run.label,
                    field=key[0],
                    hint="the archive was damaged or changed: export this run again",
                )

    def _rows_done(self, cursor: bytes) -> int:
        if not cursor:
            return 0
        mark: _Cursor = decode(cursor, _Cursor)
        if mark.fingerprint != self._run.fingerprint:
            raise BadInput(f"{self._run.label} has changed since it was read in part", run=self._run.label)
        return mark.rows


def _place_of(place: _Place) -> tuple[str, str]:
    return str(place.folder), place.prefix


def _runs_in(folder: Place) -> Iterator[PublishedRun]:
    if isinstance(folder, ObjectPath):  # without part_0 it is what an upload that was cut off left behind
        parsed = ((parse_part(path.name), path) for path in folder.children()[1])
        yield from (PublishedRun(folder, part[0], first=path) for part, path in parsed if part and not part[1])
    elif folder.is_dir():
        prefixes = {part[0] for name in names_in(folder) if (part := parse_part(name))}
        yield from (PublishedRun(folder, prefix) for prefix in sorted(prefixes))


def _is_readable(run: PublishedRun) -> bool:
    try:
        return bool(run.identity) and (run.receipt is None or bool(run.receipt))
    except BadInput:
        return False


def _sys_fields(run: PublishedRun) -> Iterator[Field]:
    findings = Findings()
    for batch in run.batches(run.first, holds_any(FACT_PATHS)):
        for rows in rows_by_type(wanted_rows(batch, is_fact, findings)):
            yield from rows.fields(findings)
