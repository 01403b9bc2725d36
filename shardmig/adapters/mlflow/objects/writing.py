"""Writes objects into MLflow, finds them again by their migration keys, and reads them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from shardmig.adapters.base import FileSink, FileStore, ToWrite, Want, Written, migration_key, scope_of
from shardmig.adapters.mlflow.native import ModelLink
from shardmig.adapters.mlflow.objects import changes
from shardmig.adapters.mlflow.objects.base import LINKING, Facts, Making, ObjectClass, Stored
from shardmig.adapters.mlflow.objects.incoming import Rest, Taken
from shardmig.adapters.mlflow.objects.links import RunLinks
from shardmig.adapters.mlflow.objects.merging import BEYOND, CONTENT, ObjectMerge, content_of, made
from shardmig.adapters.mlflow.objects.reading import Reading
from shardmig.adapters.mlflow.objects.references import (
    CREATED,
    CREATION,
    NOT_HERE,
    TOLD_BY_NAME,
    References,
    identity_of,
    was_brought,
)
from shardmig.adapters.mlflow.objects.referring import let_wait
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.tag_lists import waiting_for, waiting_tags
from shardmig.adapters.mlflow.objects.traces import Opened, Traces
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.writing import leading_fields
from shardmig.errors import AdapterError, NotFound, TargetConflict, settled, settled_each
from shardmig.records import (
    Finding,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Scope,
    TargetRun,
    TargetRunId,
)

_WHOLE: Final = (provenance.DIGEST, CONTENT)
"""Tags that say what a whole object was made of: an object that is merged keeps them until the end."""


class ObjectTarget:
    """The part of MLflow's write side that is about objects."""

    def __init__(
        self, stores: Stores, references: References, classes: Mapping[Scope, ObjectClass], load: LoadOptions
    ) -> None:
        self._stores = stores
        self._references = references
        self._classes = classes
        self._load = load

    def expect(self, runs: Sequence[RunRef]) -> None:
        """As Expecting."""
        self._references.expect(run for run in runs if run.scope in TOLD_BY_NAME)
        traces = self._classes.get("traces")
        if isinstance(traces, Traces):
            traces.look_up([run for run in runs if run.scope == "traces"])

    def find(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide.find_run. One whose references came since then is partial: it is to be written again. So is one beside
        which another was begun, as by a request that a proxy repeated: who writes discards that one."""
        with mlflow_errors(f"looking for {key}"):
            found = self._classes[scope_of(key)].find(key)
        runs = [
            TargetRun(TargetRunId(one.id), key, self._state(one), one.tags.get(provenance.DIGEST, "")) for one in found
        ]
        best = min(runs, key=lambda run: run.state != "complete", default=None)
        if best is not None and not all(map(_is_whole, found)):
            return msgspec.structs.replace(best, state="partial")
        return best

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
        opened = [one.opened for one in begun if isinstance(one, _Begun)]
        refused = traces.start_together(opened)
        refused |= traces.log_spans_together([one for one in opened if one.info.trace_id not in refused])
        return [self._ended_together(traces, one, refused) if isinstance(one, _Begun) else one for one in begun]

    def _begun(self, traces: Traces, run: ToWrite) -> _Begun | Written:
        """A trace that is to be made, where its spans take one request; any other is written."""
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
        if kind.scope in TOLD_BY_NAME:  # from the first moment on: of another source's it cannot be told by its key
            tags |= {CREATED: str(Facts(header.run, fields).number(CREATION) or "")}
        merge = None
        for stored in sorted(self._there(kind, header.run, key), key=_is_whole):
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
            self._discard(kind, stored)
        self._references.missing.clear()
        rest = Rest(chunks)
        begun_tags = tags | ({name: merge.stored.tags.get(name, "") for name in _WHOLE} if merge else {})
        made_of = Facts(header.run, merge.fields if merge else fields)
        is_left_alone = merge is None or merge.is_untouched
        making = Making(made_of, begun_tags, rest.refs, rest.points(), files, rest.has_losses, is_left_alone)
        return _New(kind, header, tags, making, rest, merge)

    def _there(self, kind: ObjectClass, run: RunRef, key: MigrationKey) -> list[Stored]:
        """The copies of an object. Raises TargetConflict where another object has the id that the copy would have."""
        if not kind.keeps_id:
            return kind.find(key)
        try:
            stored = kind.get(run.id)
        except NotFound:
            return []
        if stored.tags.get(provenance.KEY) == key:
            return [stored]
        if not was_brought(stored.tags) or identity_of(stored.tags).id != run.id:
            raise TargetConflict(
                f"{run.label} is in MLflow already, and did not come from here", hint="delete it first"
            )
        if self._load.on_existing == "replace":
            self._discard(kind, stored)
            return []
        raise TargetConflict(
            f"{run.label} is in MLflow already: it came with experiment {identity_of(stored.tags).project!r}, as that was "
            "called then or in another source, and an id is in MLflow once",
            hint="--on-existing replace brings it anew, into the experiment of this name",
        )

    def discard(self, run: TargetRun) -> None:
        """As WriteSide.discard_run."""
        kind = self._classes[scope_of(run.key)]
        with mlflow_errors(f"discarding {run.id}"):
            try:
                self._discard(kind, _held(kind, run))
            except NotFound:
                return

    def _discard(self, kind: ObjectClass, stored: Stored) -> None:
        if kind.scope == "logged_models" and _is_whole(stored):
            let_wait(self._stores, self._classes, stored)
        kind.discard(stored)

    def read(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide.read_run."""
        scope = scope_of(run.key)
        kind = self._classes[scope]
        with mlflow_errors(f"{scope} {run.id}"):
            stored = _held(kind, run)
            project, id_ = identity_of(stored.tags)
            entity = RunRef(project=project, id=id_, scope=scope)
            yield from Reading(entity, kind, stored, self._stores, want, is_all=False).pieces(files, "")

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
        known = merge.changes(wanted, stored) if merge else made(kind, wanted, stored)
        findings += _changed(kind, merge.new(known) if merge else known, findings)
        is_whole = not rest.has_losses() and not any(finding.kind == "loss" for finding in findings)
        beyond = {BEYOND: stored.beyond} if stored.beyond else {}
        if merge is None:
            waits = waiting_tags(self._references.missing, stored.tags)
            end_tags = changes.encode(known, stored.tags) | waits | beyond
        else:
            unmade = list(_references(known, made_of))
            findings += self._not_made(kind, merge, unmade)
            end_tags = changes.switched(known, stored.tags, stored.name) | self._waits(kind, merge, stored, unmade)
            end_tags |= beyond if merge.is_left_alone else {}
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
        return "partial" if any(map(self._references.find, waiting_for(stored.tags))) else "complete"

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
        if kind.completes or (is_merging and not merge.is_to_be_made_anew):
            return merge
        if merge.is_to_be_made_anew:
            return None
        raise TargetConflict(
            f"what {stored.id} refers to has come, but it has more than this copy brought: making it anew would lose that",
            hint="--on-existing merge keeps it as it is, without the reference, --on-existing replace makes it anew",
        )

    def _waits(
        self, kind: ObjectClass, merge: ObjectMerge, stored: Stored, references: Iterable[tuple[str, MigrationKey]]
    ) -> dict[str, str]:
        """The tags that say what a merged object still waits for, if it has any. What came is made, or never will be; but a copy
        that nobody changed is made anew by the next command. `references`: what is not linked, also of what was there."""
        left = waiting_for(merge.stored.tags)
        if kind.completes or not merge.is_to_be_made_anew:
            left = [key for key in left if self._references.find(key) is None]
        absent = (key for _, key in references if self._references.find(key) is None)
        return waiting_tags([*left, *self._references.missing, *absent], stored.tags)

    def _not_made(
        self, kind: ObjectClass, merge: ObjectMerge, references: Iterable[tuple[str, MigrationKey]]
    ) -> Iterator[Finding]:
        """References to what has come that a copy somebody changed does not get: MLflow makes none of what is there."""
        if kind.completes or merge.is_to_be_made_anew:
            return
        waited = waiting_for(merge.stored.tags)
        for path, key in references:
            if key in waited and self._references.find(key) is not None:
                detail = "it has come, but there is more in the copy: only one that is made anew can refer to it"
                yield Finding("approximation", "reference-not-made", path, detail=detail)


class _New(NamedTuple):
    """An object that is to be made, or one that is there and to be merged with what comes."""

    kind: ObjectClass
    header: Header
    tags: dict[str, str]
    making: Making
    rest: Rest
    merge: ObjectMerge | None

    def make(self) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        if self.merge is None:
            return self.kind.make(self.making)
        if not self.kind.keeps_id:  # a trace that nobody changed is made anew
            self.merge.begin(self.kind, self.tags[provenance.DIGEST])
        return self.kind.merge(self.merge.stored, self.making)


class _Begun(NamedTuple):
    """A trace that is made together with others."""

    new: _New
    opened: Opened

    @property
    def id(self) -> str:
        """MLflow's own."""
        return str(self.opened.info.trace_id)


def _held(kind: ObjectClass, run: TargetRun) -> Stored:
    """An object that was found. Raises NotFound. An experiment may be several copies: the key tells which is meant."""
    found = kind.find(run.key) if kind.scope == "experiments" else []
    return next((one for one in found if one.id == run.id), None) or kind.get(run.id)


def _is_whole(stored: Stored) -> bool:
    """Was it written to its end, but for a last step?"""
    return stored.tags.get(provenance.STATE) in (provenance.COMPLETE, LINKING)


def _references(known: Iterable[changes.Change], made_of: Facts) -> Iterator[tuple[str, MigrationKey]]:
    """The fields that name what MLflow does not refer to here, and the keys of that."""
    values = {change.path: change.value for change in known}
    for change in known:
        folder, _, name = change.path.rpartition("/")
        project = values.get(f"{folder}/project") or made_of.text(f"{folder}/project")
        if name == "id" and isinstance(project, str) and project and isinstance(change.value, str):
            scope: Scope = "logged_models" if folder.endswith("model") else "runs"
            yield change.path, migration_key(RunRef(project=ProjectId(project), id=RunId(change.value), scope=scope))


def _changed(kind: ObjectClass, known: list[changes.Change], findings: list[Finding]) -> list[Finding]:
    """What MLflow made something else of, beyond what it always makes by itself and what was told already."""
    told = {finding.field for finding in findings}
    told |= {f"{finding.field.removesuffix('/id')}/project" for finding in findings if finding.code == NOT_HERE}
    return [
        Finding("approximation", "changed-by-mlflow", change.path, detail="kept in tags, exact")
        for change in known
        if change.path not in told and not kind.is_volatile(change.path) and not kind.is_own(change.path)
    ]
