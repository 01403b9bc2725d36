"""Writes objects into MLflow, finds them again by their migration keys, and reads them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from shardmig.adapters.base import FileSink, FileStore, ToWrite, Want, Written, migration_key, scope_of
from shardmig.adapters.mlflow.native import ModelLink
from shardmig.adapters.mlflow.objects import changes
from shardmig.adapters.mlflow.objects.base import LINKING, Facts, Making, ObjectClass, Stored
from shardmig.adapters.mlflow.objects.links import RunLinks
from shardmig.adapters.mlflow.objects.merging import BEYOND, CONTENT, ObjectMerge, content_of
from shardmig.adapters.mlflow.objects.reading import pieces
from shardmig.adapters.mlflow.objects.references import NOT_HERE, References, identity_of
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.traces import Opened, Traces
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.writing import leading_fields
from shardmig.errors import AdapterError, BadInput, NotFound, TargetConflict, settled, settled_each
from shardmig.records import (
    Chunk,
    End,
    Field,
    FileRef,
    Files,
    Finding,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    Points,
    ProjectId,
    RunId,
    RunRef,
    Scope,
    TargetRun,
    TargetRunId,
)

WAITS: Final = "shardmig.waits"
"""Tag: migration keys of what an object refers to and what was not here. Once one of them is, it is written again."""
_WHOLE: Final = (provenance.DIGEST, CONTENT)
"""Tags that say what a whole object was made of: an object that is merged keeps them until the end."""

Taken = tuple[Header, list[Field], Iterator[Chunk]]
"""A stream of chunks whose header and scalar fields were taken."""


class ObjectTarget:
    """The part of MLflow's write side that is about objects."""

    def __init__(
        self, stores: Stores, references: References, classes: Mapping[Scope, ObjectClass], load: LoadOptions
    ) -> None:
        self._stores = stores
        self._references = references
        self._classes = classes
        self._load = load

    def expect(self, runs: Iterable[RunRef]) -> None:
        """As Expecting."""
        traces = self._classes.get("traces")
        if isinstance(traces, Traces):
            traces.look_up([run for run in runs if run.scope == "traces"])

    def find(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide.find_run. One whose references came since then is partial: it is to be written again."""
        with mlflow_errors(f"looking for {key}"):
            found = self._classes[scope_of(key)].find(key)
        runs = [
            TargetRun(TargetRunId(one.id), key, self._state(one), one.tags.get(provenance.DIGEST, "")) for one in found
        ]
        return min(runs, key=lambda run: run.state != "complete", default=None)

    def write(self, key: MigrationKey, digest: str, taken: Taken, files: FileStore) -> Written:
        """As WriteSide.write_run. What is there in part is removed and made anew."""
        with mlflow_errors(taken[0].run.label):
            new = self._new(key, digest, taken, files)
            return new if isinstance(new, Written) else self._ended(new, *new.make())

    def write_together(self, runs: Sequence[ToWrite]) -> list[Written | AdapterError]:
        """As Grouping, of traces. Those that take one request for their spans share it, and are read back together."""
        traces = self._classes["traces"]
        assert isinstance(traces, Traces)
        begun = settled_each(lambda run: self._begun(traces, run), runs)
        refused = traces.log_spans_together([one.opened for one in begun if isinstance(one, _Begun)])
        return [self._ended_together(traces, one, refused) if isinstance(one, _Begun) else one for one in begun]

    def _begun(self, traces: Traces, run: ToWrite) -> _Begun | Written:
        """A trace without its spans, where they take one request; any other is written."""
        header, fields, chunks = leading_fields(run.chunks)
        with mlflow_errors(header.run.label):
            new = self._new(run.key, run.digest, (header, fields, chunks), run.files)
            if isinstance(new, Written):
                return new
            if new.merge is not None:
                return self._ended(new, *new.make())
            opened = traces.open(new.making)
            if not opened.is_one_request:
                return self._ended(new, *traces.complete(opened, new.making))
            traces.start(opened)
            return _Begun(new, opened)

    def _ended_together(
        self, traces: Traces, begun: _Begun, refused: Mapping[str, AdapterError]
    ) -> Written | AdapterError:
        def ended() -> Written:
            self._references.missing.clear()  # of those that take one request nothing is
            with mlflow_errors(begun.new.header.run.label):
                return self._ended(begun.new, traces.get(begun.id), begun.opened.findings)

        return refused[begun.id] if begun.id in refused else settled(ended)

    def _new(self, key: MigrationKey, digest: str, taken: Taken, files: FileStore) -> _New | Written:
        """What is to be made, or what was written before. What is there in part is removed."""
        header, fields, chunks = taken
        kind = self._classes[header.run.scope]
        tags = provenance.notes(key, digest, header) | {CONTENT: content_of(fields, kind.is_volatile)}
        merge = None
        for stored in _there(kind, header.run, key):
            is_same = stored.tags.get(provenance.DIGEST) == digest
            if is_same and stored.tags.get(provenance.STATE) == LINKING:
                self._finish(kind, stored, header.run.id)
                return Written(TargetRunId(stored.id), [])
            if is_same and self._state(stored) == "complete":
                return Written(TargetRunId(stored.id), [])
            is_whole = stored.tags.get(provenance.STATE) == provenance.COMPLETE
            if is_whole and self._load.on_existing != "replace":
                merge = self._kept(kind, ObjectMerge(kind, stored, fields), is_same=is_same)
                if merge is not None:
                    break
            kind.discard(stored)
        self._references.missing.clear()
        rest = _Rest(chunks)
        begun_tags = tags | ({name: merge.stored.tags.get(name, "") for name in _WHOLE} if merge else {})
        made_of = Facts(header.run, merge.fields if merge else fields)
        is_left_alone = merge is None or merge.is_untouched
        making = Making(made_of, begun_tags, rest.refs, rest.points(), files, rest.has_losses, is_left_alone)
        return _New(kind, header, tags, making, rest, merge)

    def discard(self, run: TargetRun) -> None:
        """As WriteSide.discard_run."""
        kind = self._classes[scope_of(run.key)]
        with mlflow_errors(f"discarding {run.id}"):
            try:
                kind.discard(kind.get(run.id))
            except NotFound:
                return

    def read(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide.read_run."""
        scope = scope_of(run.key)
        kind = self._classes[scope]
        with mlflow_errors(f"{scope} {run.id}"):
            stored = kind.get(run.id)
            project, id_ = identity_of(stored.tags)
            entity = RunRef(project=project, id=id_, scope=scope)
            yield from pieces(entity, kind, stored, self._stores, want, files, "")

    def link_run(self, run_id: TargetRunId, links: Mapping[str, ModelLink]) -> None:
        """Link a run to the logged models that are here already; for the others its tags wait."""
        with mlflow_errors(f"the logged models of run {run_id}"):
            RunLinks(self._stores).link_run(run_id, links)

    def close(self) -> None:
        """As WriteSide.close."""
        self._stores.close()

    def _ended(self, new: _New, stored: Stored, findings: list[Finding]) -> Written:
        """Note what MLflow made something else of, and that it is whole. One that was there before has its old digest until then."""
        kind, header, tags, making, rest, merge = new
        made_of = making.facts
        findings += rest.findings()
        wanted = merge.outcome(findings) if merge else made_of.fields
        known = changes.changes(wanted, kind.fields(stored), kind.is_volatile)
        known = merge.changes(known) if merge else known
        findings += _changed(kind, merge.new(known) if merge else known, findings)
        is_whole = not rest.has_losses() and not any(finding.kind == "loss" for finding in findings)
        beyond = {BEYOND: stored.beyond} if stored.beyond else {}
        if merge is None:
            waits = {WAITS: " ".join(self._references.missing)} if self._references.missing else {}
            end_tags = changes.encode(known, stored.tags) | waits | beyond
        else:
            findings += self._not_made(kind, merge, made_of, known)
            end_tags = merge.tags(known) | self._waits(kind, merge) | (beyond if merge.is_left_alone else {})
            content = {CONTENT: content_of(wanted, kind.is_volatile)} if merge.is_untouched else {}
            end_tags |= merge.end_tags(tags | content, is_whole=is_whole)
            told = f"{stored.id} was there, {'as it was brought' if merge.is_untouched else 'and changed since'}"
            findings += [Finding("note", "merged", detail=told), *merge.conflicts]
            is_whole = True  # what it had before it still has
        findings.append(Finding("note", "own-ids", detail="what MLflow sets by itself is new: ids, times, locations"))
        if is_whole:
            end_tags[provenance.STATE] = LINKING if kind.is_linked else provenance.COMPLETE
        kind.tag(stored, {name: text for name, text in end_tags.items() if stored.tags.get(name) != text})
        if end_tags.get(provenance.STATE) == LINKING:
            self._finish(kind, stored, header.run.id)
        return Written(TargetRunId(stored.id), findings)

    def _finish(self, kind: ObjectClass, stored: Stored, old: RunId) -> None:
        kind.link(stored, old)
        kind.tag(stored, {provenance.STATE: provenance.COMPLETE})

    def _state(self, stored: Stored) -> Literal["complete", "partial"]:
        if stored.tags.get(provenance.STATE) != provenance.COMPLETE:
            return "partial"
        waits = stored.tags.get(WAITS, "").split()
        return "partial" if any(self._references.find(MigrationKey(key)) for key in waits) else "complete"

    def _kept(self, kind: ObjectClass, merge: ObjectMerge, *, is_same: bool) -> ObjectMerge | None:
        """How a whole object is to be merged with what comes; None: it is made anew, because what it waited for has come and
        nobody added to it. Raises TargetConflict."""
        stored, is_merging = merge.stored, self._load.on_existing == "merge"
        if is_merging and not is_same:
            return merge
        has_come = self._state(stored) == "partial"
        if not has_come or (kind.completes and not is_same):
            raise TargetConflict(
                f"MLflow holds this as {stored.id}, whole but with other content",
                hint="--on-existing merge brings what is new, --on-existing replace writes it anew",
            )
        if kind.completes or (is_merging and not merge.is_left_alone):
            return merge
        if merge.is_left_alone:
            return None
        raise TargetConflict(
            f"what {stored.id} refers to has come, but it was changed since it was written: making it anew would lose that",
            hint="--on-existing merge keeps it as it is, without the reference, --on-existing replace makes it anew",
        )

    def _waits(self, kind: ObjectClass, merge: ObjectMerge) -> dict[str, str]:
        """The tag that says what a merged object still waits for, if it has any. What came is made, or never will be; but a copy
        that nobody changed is made anew by the next command."""
        left = before = merge.stored.tags.get(WAITS, "").split()
        if kind.completes or not merge.is_left_alone:
            left = [key for key in before if self._references.find(MigrationKey(key)) is None]
        waits = " ".join(dict.fromkeys([*left, *self._references.missing]))
        return {WAITS: waits or " "} if waits or before else {}

    def _not_made(
        self, kind: ObjectClass, merge: ObjectMerge, made_of: Facts, known: Iterable[changes.Change]
    ) -> Iterator[Finding]:
        """References to what has come that a copy somebody changed does not get: MLflow makes none of what is there."""
        if kind.completes or merge.is_left_alone:
            return
        waited = merge.stored.tags.get(WAITS, "").split()
        for change in known:
            folder, _, name = change.path.rpartition("/")
            project, id_ = made_of.text(f"{folder}/project"), made_of.text(change.path)
            if name != "id" or not project or not id_:
                continue
            scope: Scope = "logged_models" if folder.endswith("model") else "runs"
            key = migration_key(RunRef(project=ProjectId(project), id=RunId(id_), scope=scope))
            if key in waited and self._references.find(key) is not None:
                detail = f"{id_} has come, but the copy was changed before: only one that is made anew can refer to it"
                yield Finding("approximation", "reference-not-made", change.path, detail=detail)


class _New(NamedTuple):
    """An object that is to be made, or one that is there and to be merged with what comes."""

    kind: ObjectClass
    header: Header
    tags: dict[str, str]
    making: Making
    rest: _Rest
    merge: ObjectMerge | None

    def make(self) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        if self.merge is None:
            return self.kind.make(self.making)
        if not self.kind.keeps_id:  # a trace that nobody changed is made anew
            self.merge.begin(self.kind, self.tags[provenance.DIGEST])
        return self.kind.merge(self.merge.stored, self.making)


class _Begun(NamedTuple):
    """A trace that is made but for its spans."""

    new: _New
    opened: Opened

    @property
    def id(self) -> str:
        """MLflow's own."""
        return str(self.opened.info.trace_id)


def _there(kind: ObjectClass, run: RunRef, key: MigrationKey) -> list[Stored]:
    """The copies of an object. Raises TargetConflict where another object has the id that the copy would have."""
    if not kind.keeps_id:
        return kind.find(key)
    try:
        stored = kind.get(run.id)
    except NotFound:
        return []
    if stored.tags.get(provenance.KEY) != key:
        raise TargetConflict(f"{run.label} is in MLflow already, and did not come from here", hint="delete it first")
    return [stored]


class _Rest:
    """What comes behind the scalar fields: files, then points, then End."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._first: Chunk | None = None
        self.refs: list[FileRef] = []
        self.end = End([Finding("loss", "run-cut", detail="its chunks end without End: what was read is not whole")])
        for chunk in chunks:
            if not isinstance(chunk, Files):
                self._first = chunk
                break
            self.refs += chunk.files

    def points(self) -> Iterator[Points]:
        """All points; afterwards End is known."""
        chunk = self._first
        while chunk is not None:
            if isinstance(chunk, End):
                self.end = chunk
                self._first = None
                return
            if not isinstance(chunk, Points):
                raise BadInput(f"{type(chunk).__name__} among the points")
            yield chunk
            self._first = chunk = next(self._chunks, None)

    def has_losses(self) -> bool:
        """Was something lost before it came here? Known once all points are taken."""
        return any(finding.kind == "loss" for finding in self.end.findings)

    def findings(self) -> list[Finding]:
        """What was not taken, and an End that did not come."""
        left = sorted({path for points in self.points() for path in points.paths})
        lost = [Finding("loss", "unknown-series", path, detail="MLflow has no place for it") for path in left]
        return [*lost, *(finding for finding in self.end.findings if finding.code == "run-cut")]


def _changed(kind: ObjectClass, known: list[changes.Change], findings: list[Finding]) -> list[Finding]:
    """What MLflow made something else of, beyond what it always makes by itself and what was told already."""
    told = {finding.field for finding in findings}
    told |= {f"{finding.field.removesuffix('/id')}/project" for finding in findings if finding.code == NOT_HERE}
    return [
        Finding("approximation", "changed-by-mlflow", change.path, detail="kept in tags, exact")
        for change in known
        if change.path not in told and not kind.is_volatile(change.path) and not kind.is_own(change.path)
    ]
