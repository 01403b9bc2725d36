"""Reads objects: what the source lists, and each of them as chunks, for the source and for `read_run` of the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from shardmig import logs
from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.mlflow.native import SOURCE
from shardmig.adapters.mlflow.objects import changes
from shardmig.adapters.mlflow.objects.base import LINKING, TAGS, ObjectClass, Stored, Tree
from shardmig.adapters.mlflow.objects.experiments import DELETED, theirs_of
from shardmig.adapters.mlflow.objects.merging import MERGING
from shardmig.adapters.mlflow.objects.references import (
    TOLD_BY_NAME,
    Identity,
    References,
    creation_of,
    identity_of,
    registered_of,
    was_brought,
)
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.trace_links import LINKED_PROMPTS, prompts_in
from shardmig.adapters.mlflow.objects.traces import Traces
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.mlflow.source.limits import LeftOut, size_on_disk
from shardmig.adapters.mlflow.source.listing import engine_of
from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.wrappers import retrying
from shardmig.errors import BadInput, MissingExtra, NotFound, Permanent, Unavailable
from shardmig.records import (
    Chunk,
    End,
    Field,
    Fields,
    FieldType,
    FileRef,
    Files,
    Finding,
    Header,
    Piece,
    Points,
    ProjectId,
    RunId,
    RunRef,
    Scope,
    StringPoints,
)
from shardmig.selection import Matcher

FIELDS_IN_CHUNK: Final = 5_000
FILES_IN_CHUNK: Final = 50


class ObjectSource:
    """The objects of one MLflow. What shardmig brought there is given as what it was before."""

    def __init__(self, stores: Stores, references: References, classes: Mapping[Scope, ObjectClass]) -> None:
        self._stores = stores
        self._references = references
        self._classes = classes

    def by_project(self) -> Mapping[ProjectId, list[RunRef]]:
        """Every object of the classes."""
        return self._listed

    @property
    def engine(self) -> Any:
        """As `engine_of`."""
        return engine_of(self._stores)

    def logged_model(self, id_: str) -> str:
        """What the archive calls a logged model of MLflow's; "": it is gone. Where nothing can be asked, its id."""
        try:
            identity = self._references.identity("logged_models", id_)
        except MissingExtra:
            return id_
        return identity.id if identity.project else ""

    def expect(self, runs: Iterable[RunRef]) -> None:
        """These are read next, in this order."""
        traces = self._classes.get("traces")
        if isinstance(traces, Traces):
            traces.expect([run.locator or run.id for run in runs if run.scope == "traces"])

    def read(self, run: RunRef, want: Want, files: FileSink, version: str) -> Iterator[Piece]:
        """One object as pieces. Raises BadInput for one that was loaded in part only."""
        kind = self._classes[run.scope]
        self._stores.lost.clear()
        with mlflow_errors(run.label):
            stored = kind.get(run.locator or run.id)
            if was_brought(stored.tags) and not _is_ended(stored):
                raise BadInput(f"{run.label} was never loaded to its end", hint="finish that load, or delete it")
            yield from Reading(run, kind, stored, self._stores, want).pieces(files, version)

    def close(self) -> None:
        """As ReadSide.close."""
        self._stores.close()

    @cached_property
    def _listed(self) -> dict[ProjectId, list[RunRef]]:
        by_project: dict[ProjectId, list[RunRef]] = {}
        for kind in self._classes.values():
            for run in self._of_class(kind):
                by_project.setdefault(run.project, []).append(run)
        return by_project

    def _of_class(self, kind: ObjectClass) -> Iterable[RunRef]:
        """Every wanted object of a class, each under an identity of its own. Raises Unavailable where something was removed meanwhile."""
        copies: dict[Identity, list[Stored]] = {}
        try:
            with mlflow_errors(f"listing {kind.scope}"):
                for stored in kind.all():
                    copies.setdefault(_first_identity(stored), []).append(stored)
        except NotFound as error:
            if copies:  # the server has this class: the others of it must not be left out
                raise Unavailable(f"{error.message}, while {kind.scope} were listed") from error
            logs.get_logger().warning(logs.Event.PROJECT_SKIPPED, project=kind.scope, reason=error.message)
        wanted = self._stores.wanted
        chosen = dict(_told_apart(kind.scope, copies))
        names = {stored.name: identity.id for identity, stored in chosen.items()}
        listed = [
            (_run_ref(kind.scope, identity, stored, wanted.mark(kind.scope), names), stored)
            for identity, stored in sorted(chosen.items())
        ]
        found = [run for run, stored in listed if wanted.wants(run, getattr(stored.content, "name", None) or "")]
        if kind.scope != "experiments":  # runs belong to some, too
            wanted.check(kind.scope)
        return found


class Reading:
    """One object as pieces. `is_all`: also what was here before it was copied; else only what came with the last copy."""

    def __init__(
        self, run: RunRef, kind: ObjectClass, stored: Stored, stores: Stores, want: Want, *, is_all: bool = True
    ) -> None:
        self._run = run
        self._kind = kind
        self._stored = stored
        self._stores = stores
        self._matcher = Matcher(want.selection)
        self._is_all = is_all
        self._numbers = count()
        self._findings: list[Finding] = []

    def pieces(self, files: FileSink, version: str) -> Iterator[Piece]:
        """In canonical order."""
        yield Piece(self._run, Header(self._run, SOURCE, version))
        with TemporaryDirectory(prefix="shardmig-") as staging:
            yield from (Piece(self._run, chunk) for chunk in self._chunks(files, Path(staging)))
        yield Piece(self._run, End([*self._findings, *self._stores.lost]))

    def _chunks(self, sink: FileSink, staging: Path) -> Iterator[Chunk]:
        known = changes.decode(self._stored.tags, self._run.label)
        if (first := _first_identity(self._stored)) != (self._run.project, self._run.id):
            detail = f"a copy of {first.project}/{first.id}, which is here too"
            self._findings.append(Finding("note", "copy-beside-original", detail=detail))
            known = [change for change in known if not _tells_name(change)]
        if self._is_all:
            as_here = {DELETED, *(TAGS + tag for tag in theirs_of(self._stored.tags))}
            known = [change for change in known if change.path not in as_here and not self._names_others(change)]
        held, is_volatile = self._kind.fields(self._stored), self._kind.is_volatile
        fields = list(map(self._named_first, changes.restored(held, known, is_volatile, is_all=self._is_all)))
        parts = {changes.part_of(field.path) for field in fields}
        left = {changes.part_of(change.path) for change in known if change.is_left} - parts
        wanted = [field for field in fields if self._matcher.wants_field(field.path, field.type)]
        for start in range(0, len(wanted), FIELDS_IN_CHUNK):
            yield Fields(wanted[start : start + FIELDS_IN_CHUNK])
        if "files" in self._matcher.selection.classes:
            for tree in self._kind.trees(self._stored):
                if changes.part_of(tree.folder) not in left:
                    yield from self._files(tree, sink, staging)
        for points in self._kind.points(self._stored):
            if self._matcher.wants_field(points.paths[0], _type_of(points)):
                yield points

    def _names_others(self, change: changes.Change) -> bool:
        """Would it call prompts by names that others have here? Two sources had them: these go by the names that they have here."""
        if change.path != TAGS + LINKED_PROMPTS:
            return False
        return any(map(self._is_prompt_here, prompts_in(change.value) - prompts_in(change.given)))

    def _is_prompt_here(self, name: str) -> bool:
        try:
            with mlflow_errors(f"prompt {name}"):
                self._stores.registry.get_registered_model(name)
        except NotFound:
            return False
        return True

    def _named_first(self, field: Field) -> Field:
        """What is told by its name is copied on under that which it came with, however people call it here: it is the same."""
        tags, entity = self._stored.tags, (self._run.project, self._run.id)
        is_named = field.path == "sys/name" and self._run.scope in TOLD_BY_NAME and field.value != self._run.id
        if not (is_named and self._is_all and was_brought(tags) and identity_of(tags) == entity):
            return field
        detail = f"{field.value!r} is its name here: it is copied on under that which it came with"
        self._findings.append(Finding("note", "renamed-here", field.path, detail=detail))
        return msgspec.structs.replace(field, value=self._run.id)

    def _files(self, tree: Tree, sink: FileSink, staging: Path) -> Iterator[Files]:
        artifacts = self._stores.artifacts(tree.uri)
        refs: list[FileRef] = []
        left_out = LeftOut(self._stores.wanted.limit, tree.folder)
        for path in self._paths(tree, left_out):
            field = tree.folder + path
            try:
                local = artifacts.on_disk(path) or staging / str(next(self._numbers))
                if local.parent == staging:
                    retrying(lambda path=path, local=local: artifacts.get(path, local))  # type: ignore[misc]
                if left_out.takes(path, size_on_disk(local)):
                    refs.append(sink.put(self._run, field, "file", local, name=path.rpartition("/")[2]))
                if local.parent == staging:
                    local.unlink()
            except Permanent as error:
                self._findings.append(Finding("loss", "artifact-unreadable", field, detail=error.message))
            if len(refs) == FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)
        self._findings += left_out.findings()

    def _paths(self, tree: Tree, left_out: LeftOut) -> Iterator[str]:
        try:
            for path, size_bytes in self._stores.files(tree.uri):
                is_wanted = path not in tree.without and self._matcher.wants_field(tree.folder + path, "file")
                if is_wanted and left_out.takes(path, size_bytes):
                    yield path
        except Permanent as error:
            self._findings.append(left_out.unlisted(error.message))


def _type_of(points: Points) -> FieldType:
    return "string_series" if isinstance(points, StringPoints) else "float_series"


def _first_identity(stored: Stored) -> Identity:
    """What it was called before shardmig brought it."""
    return identity_of(stored.tags) if was_brought(stored.tags) else Identity(stored.project, stored.name)


def _is_ended(stored: Stored) -> bool:
    """Is all of it here? An experiment without its last step, that it was deleted, may be one that people restored."""
    is_merging = stored.tags.get(MERGING, "").strip()
    return stored.tags.get(provenance.STATE) in (provenance.COMPLETE, LINKING) and not is_merging


def _is_whole(stored: Stored) -> bool:
    return stored.tags.get(provenance.STATE, provenance.COMPLETE) == provenance.COMPLETE


def _created_ms(stored: Stored) -> int | None:
    """When its original was created."""
    with suppress(BadInput):  # whoever reads it says so
        return creation_of(stored.tags, stored.name, stored.created_ms) or stored.created_ms
    return stored.created_ms


def _told_apart(scope: Scope, copies: Mapping[Identity, list[Stored]]) -> Iterator[tuple[Identity, Stored]]:
    """Of several copies of one object a whole one counts. Where names tell objects, two sources may have brought them: the
    one that has its first name here goes by that, and each other one by the name that it has here."""
    for identity, found in copies.items():
        *others, best = sorted(found, key=lambda one: (_is_whole(one), one.name == identity.id))
        yield identity, best
        for other in others if scope in TOLD_BY_NAME else ():
            own = Identity(other.project, other.name)
            yield (Identity(own.project, RunId(f"{own.id}~{digest_of(other.id)}")) if own in copies else own), other


def _tells_name(change: changes.Change) -> bool:
    """Is it about a name here, or about another object by its name here? Of a copy that goes by its name here both are as
    they are."""
    given = change.given if isinstance(change.given, str) else ""
    return change.path in ("sys/id", "sys/name") or registered_of(given) is not None


def _run_ref(scope: Scope, identity: Identity, stored: Stored, limit: str, names: Mapping[RunId, RunId]) -> RunRef:
    """`names`: by what MLflow calls objects of the class, what they are listed as."""
    revision = repr((stored.revision, sorted(stored.tags.items())))
    return RunRef(
        project=identity.project,
        id=identity.id,
        scope=scope,
        created_ms=_created_ms(stored),
        archived=stored.is_deleted,
        parent=names.get(stored.after, stored.after) if stored.after else None,
        locator=stored.id,
        fingerprint=blake2b(revision.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + limit,
    )
