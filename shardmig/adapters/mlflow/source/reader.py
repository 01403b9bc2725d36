"""The read side: experiments are projects, runs are runs.

A run that shardmig itself wrote is given as what it was before: under its original project and id, its fields restored
by `read`. Any other is given by the map of `native`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from shardmig import logs
from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.mlflow import facts, native
from shardmig.adapters.mlflow.artifacts import RunArtifacts, artifacts_of
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.objects.base import REGISTRY
from shardmig.adapters.mlflow.objects.classes import SCOPES as OBJECT_SCOPES
from shardmig.adapters.mlflow.objects.reading import ObjectSource
from shardmig.adapters.mlflow.run import run_reader
from shardmig.adapters.mlflow.source.added import as_left, brought_artifacts, model_fields, tag_fields
from shardmig.adapters.mlflow.source.databricks import notebooks_of
from shardmig.adapters.mlflow.source.limits import LEFT_OUT
from shardmig.adapters.mlflow.source.listing import fingerprint, points_of_runs
from shardmig.adapters.mlflow.source.reading import Reading
from shardmig.adapters.mlflow.source.wanted import Wanted
from shardmig.adapters.mlflow.store import Experiment, ReadStore, StoredRun
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.errors import AdapterError, BadInput, NotFound, Permanent
from shardmig.records import (
    End,
    Field,
    Fields,
    Files,
    Finding,
    Header,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    TargetRunId,
)
from shardmig.selection import Matcher


class _Identity(NamedTuple):
    """What a run is called: in MLflow, or before shardmig brought it there."""

    project: ProjectId
    id: RunId


class MlflowSource:
    """Read side of MLflow, over any store. `http` is the tracking server's client, None without one. `lost`: where the
    store tells what it could not read of the run at hand. `expect`: tells the store which runs are read next."""

    def __init__(
        self,
        store: ReadStore,
        http: HttpClient | None,
        *,
        lost: list[Finding] | None = None,
        objects: ObjectSource | None = None,
        wanted: Wanted | None = None,
        expect: Callable[[Iterable[TargetRunId]], None] | None = None,
    ) -> None:
        self._store = store
        self._expect = expect
        self._objects = objects
        self._wanted = wanted or Wanted()
        self._with_runs = "runs" in self._wanted.scopes
        self._limit = self._wanted.limit
        self._lost = lost if lost is not None else []
        self._http = http
        self._known: dict[str, _Identity | None] = {}

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """Experiments by name, and the projects of the runs that were brought here."""
        matcher = Matcher(selection)
        self._wanted.refuse_projects(selection.projects, REGISTRY)
        names: set[ProjectId] = set()
        if self._with_runs:
            names |= {
                ProjectId(experiment.name)
                for experiment in self._experiments.values()
                if selection.include_archived or not experiment.is_deleted
            }
            names |= {project for project, runs in self._brought.items() if any(map(matcher.wants_run, runs))}
            names = set(filter(self._wanted.wants_experiment, names))
        names |= {project for project, objects in self._listed.items() if any(map(matcher.wants_run, objects))}
        self._check_versions(matcher)
        self._wanted.check("experiments")
        yield from (name for name in sorted(names) if matcher.wants_project(name))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """Runs of the experiment of that name, the earliest first; then those brought here from a project so named."""
        matcher = Matcher(selection)
        if self._with_runs and self._wanted.wants_experiment(project):
            yield from self._list_runs(project, matcher)
        yield from filter(matcher.wants_run, self._listed.get(project, []))

    def _list_runs(self, project: ProjectId, matcher: Matcher) -> Iterator[RunRef]:
        for experiment in self._experiments.values():
            if experiment.name == project:
                found = list(self._store.search_runs([experiment.id], only_migrated=False))
                if not found:
                    reason = "it has no runs: an experiment is copied with its runs"
                    logs.get_logger().info(logs.Event.PROJECT_SKIPPED, project=project, reason=reason)
                runs = [run for run in found if not _was_brought(run)]
                self._known |= {run.id: _Identity(project, RunId(run.id)) for run in runs}
                refs = {run.id: self._run_ref(run, experiment) for run in runs}
                wanted = [run for run in runs if matcher.wants_run(refs[run.id])]
                refs |= {run.id: self._run_ref(run, experiment) for run in self._counted(wanted)}
                yield from (refs[run.id] for run in wanted)
        yield from filter(matcher.wants_run, self._brought.get(project, []))

    def _counted(self, runs: list[StoredRun]) -> Iterator[StoredRun]:
        """Those whose points a database counts without reading them, with their number."""
        engine = self._objects.engine if self._objects is not None and runs else None
        counted = points_of_runs(engine, [run.id for run in runs])
        yield from (msgspec.structs.replace(run, points=counted[run.id]) for run in runs if run.id in counted)

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run; none can be resumed inside."""
        runs = list(runs)
        if self._objects is not None:
            self._objects.expect(runs)
        if self._expect is not None:
            self._expect(_stored_id(run) for run in runs if run.scope not in OBJECT_SCOPES)
        for run in runs:
            try:
                if run.scope in OBJECT_SCOPES and self._objects is not None:
                    yield from self._objects.read(run, want, files, self._version)
                else:
                    yield from self._read_run(run, want, files)
            except AdapterError as error:
                error.run = error.run or run.label
                raise

    def close(self) -> None:
        """As ReadSide."""
        self._store.close()
        if self._objects is not None:
            self._objects.close()

    def _check_versions(self, matcher: Matcher) -> None:
        """Raises UsageError for numbers of versions that none of the chosen models has."""
        every = (run for objects in self._listed.values() for run in objects if run.scope == "registered_models")
        if matcher.wants_project(REGISTRY):
            self._wanted.versions.check([run.locator or run.id for run in every if matcher.wants_run(run)])

    @property
    def _listed(self) -> Mapping[ProjectId, list[RunRef]]:
        return self._objects.by_project() if self._objects is not None else {}

    @cached_property
    def _version(self) -> str:
        """Of the server, or of the library that reads the database; "" = unknown."""
        if self._http is None:
            return version("mlflow")
        try:
            return self._http.read("/version", {}).decode("ascii", "replace")[:40].strip()
        except Permanent:
            return ""

    @cached_property
    def _experiments(self) -> dict[str, Experiment]:
        """By id, sorted by name."""
        found = sorted(self._store.experiments(), key=lambda experiment: (experiment.name, experiment.id))
        return {experiment.id: experiment for experiment in found}

    @cached_property
    def _brought(self) -> dict[ProjectId, list[RunRef]]:
        """The runs that shardmig wrote, by their original projects; of several copies of one the one that counts."""
        chosen: dict[_Identity, StoredRun] = {}
        for run in self._store.search_runs(list(self._experiments), only_migrated=True):
            if _was_brought(run) and (not _is_removed(run) or _is_deleted_by_people(run)):
                identity = _identity_of(run)
                held = chosen.get(identity)
                if held is None or _rank(run) >= _rank(held):
                    chosen[identity] = run
                self._known[run.id] = identity
        by_project: dict[ProjectId, list[RunRef]] = {}
        for identity, run in chosen.items():
            by_project.setdefault(identity.project, []).append(self._run_ref(run))
        return by_project

    def _run_ref(self, run: StoredRun, experiment: Experiment | None = None) -> RunRef:
        """`experiment`: None for a run that was brought here, which is read with its own one's facts."""
        identity = self._identity(run.id, run)
        parent = self._parent(run)
        return RunRef(
            project=identity.project,
            id=identity.id,
            created_ms=run.start_ms,
            archived=run.is_deleted,
            parent=parent.id if parent else None,
            parent_project=parent.project if parent and parent.project != identity.project else None,
            locator=run.id,
            fingerprint=fingerprint(run, experiment) + self._wanted.mark("runs"),
            weight=sum(max(0, point.step) + 1 for point in run.latest if point.step < 2**31),
        )

    def _identity(self, run_id: str, run: StoredRun) -> _Identity:
        known = self._known.get(run_id)
        if known is None:
            if _was_brought(run):
                known = _identity_of(run)
            else:
                known = _Identity(ProjectId(self._experiment(run).name), RunId(run.id))
            self._known[run_id] = known
        return known

    def _parent(self, run: StoredRun) -> _Identity | None:
        parent = run.tags.get(facts.PARENT, "")
        if not parent:
            forked = run.tags.get("shardmig.fork.parent", "") if _was_brought(run) else ""
            return _Identity(_identity_of(run).project, RunId(forked)) if forked else None
        if parent not in self._known:
            try:
                found = self._store.get_run(TargetRunId(parent))
                self._known[parent] = self._identity(parent, found)
            except Permanent:
                self._known[parent] = None
        return self._known[parent] or _Identity(self._identity(run.id, run).project, RunId(parent))

    def _experiment(self, run: StoredRun) -> Experiment:
        if run.experiment_id not in self._experiments:
            del self._experiments  # a new one
        try:
            return self._experiments[run.experiment_id]
        except KeyError:
            raise NotFound(f"experiment {run.experiment_id} of run {run.id} is gone") from None

    def _read_run(self, run: RunRef, want: Want, files: FileSink) -> Iterator[Piece]:
        stored = self._store.get_run(_stored_id(run))
        artifacts = artifacts_of(stored, self._http)
        if _was_brought(stored):
            yield from self._restored(run, stored, artifacts, want, files)
            return
        self._lost.clear()
        with TemporaryDirectory(prefix="shardmig-") as staging:
            notebooks = notebooks_of(stored.tags, self._wanted.notebooks)
            told = self._with_models(stored)
            reading = Reading(run, told, self._experiment(stored), want, Path(staging), notebooks)
            reading.limit = self._limit
            yield Piece(run, Header(run, native.SOURCE, self._version))
            yield from (Piece(run, chunk) for chunk in reading.fields())
            yield from (Piece(run, chunk) for chunk in reading.files(artifacts, self._http, files))
            if self._http is not None:
                yield from (Piece(run, chunk) for chunk in reading.notebooks(self._http, files))
            yield from (Piece(run, chunk) for chunk in reading.points(self._store))
            yield Piece(run, End([*reading.findings, *self._lost]))

    def _restored(
        self, run: RunRef, stored: StoredRun, artifacts: RunArtifacts, want: Want, files: FileSink
    ) -> Iterator[Piece]:
        if not _is_whole(stored):
            raise BadInput(
                f"MLflow run {stored.id} was never loaded to its end",
                hint="finish that load, or delete the run",
            )
        if not self._limit.takes_any:
            want = _without_files(want)
        is_native = facts.is_native_copy(stored)
        new_tags = dict(stored.tags) if is_native else {}
        with TemporaryDirectory(prefix="shardmig-") as own, TemporaryDirectory(prefix="shardmig-") as others:
            reader = run_reader(self._store, stored, artifacts, want, Path(own))
            added = Reading(run, stored, self._experiment(stored), want, Path(others))
            added.passed_over = brought_artifacts(reader.manifest)
            added.folder = native.ARTIFACTS if is_native else ""
            is_before_series = True
            for piece in reader.pieces(files, run):
                chunk = piece.chunk
                if is_before_series and not isinstance(chunk, Header | Fields | Files):
                    yield from (Piece(run, one) for one in added.files(artifacts, self._http, files))
                    is_before_series = False
                if isinstance(chunk, Header):
                    chunk = msgspec.structs.replace(chunk, run=run)
                elif isinstance(chunk, Fields):
                    chunk = self._as_left(chunk, stored, reader.manifest, want) if is_native else chunk
                    for field in chunk.fields:
                        new_tags.pop(field.path.removeprefix(native.TAGS), None)
                elif isinstance(chunk, End):
                    if fields := self._added(stored, new_tags, want) if is_native else []:
                        yield Piece(run, Fields(fields))
                    chunk.findings.extend(added.findings)
                    if not self._limit.takes_any:
                        chunk.findings.append(Finding("gap", LEFT_OUT, detail="all files, as asked: --no-artifacts"))
                yield Piece(run, chunk)

    def _as_left(self, chunk: Fields, stored: StoredRun, manifest: Manifest, want: Want) -> Fields:
        parent, wants = self._parent(stored), Matcher(want.selection).wants_field
        fields = as_left(chunk.fields, stored, self._experiment(stored), manifest, parent.id if parent else "")
        return Fields([field for field in fields if wants(field.path, field.type)])

    def _added(self, stored: StoredRun, tags: Mapping[str, str], want: Want) -> list[Field]:
        return [*tag_fields(tags, want), *model_fields(stored, self._model, want)]

    def _model(self, id_: str) -> str:
        """What the archive calls a logged model; "": it is gone."""
        return id_ if self._objects is None else self._objects.logged_model(id_)

    def _with_models(self, stored: StoredRun) -> StoredRun:
        """A run of MLflow's own with the models that it refers to under the names that they are listed as."""
        inputs = [self._model(id_) or id_ for id_ in stored.model_inputs]
        outputs = [(self._model(id_) or id_, step) for id_, step in stored.model_outputs]
        return msgspec.structs.replace(stored, model_inputs=inputs, model_outputs=outputs)


def _without_files(want: Want) -> Want:
    classes = tuple(name for name in want.selection.classes if name != "files")
    return msgspec.structs.replace(want, selection=msgspec.structs.replace(want.selection, classes=classes))


def _stored_id(run: RunRef) -> TargetRunId:
    return TargetRunId(run.locator or run.id)


def _was_brought(run: StoredRun) -> bool:
    """Did shardmig write it?"""
    return all(run.tags.get(key) for key in (provenance.KEY, provenance.STATE, provenance.PROJECT, provenance.RUN_ID))


def _identity_of(run: StoredRun) -> _Identity:
    return _Identity(ProjectId(run.tags[provenance.PROJECT]), RunId(run.tags[provenance.RUN_ID]))


def _is_removed(run: StoredRun) -> bool:
    """Was it deleted here, and not because its original was?"""
    return run.is_deleted and not facts.is_deleted_copy(run)


def _is_deleted_by_people(run: StoredRun) -> bool:
    """May it be a copy that people deleted? One in whose place another was written looks the same: that one counts."""
    is_discarded = run.tags.get(facts.LIFECYCLE) == facts.DISCARDED
    return facts.is_native_copy(run) and _is_whole(run) and not is_discarded


def _rank(run: StoredRun) -> tuple[bool, bool]:
    """Of several copies of one run the greatest counts."""
    return not _is_removed(run), _is_whole(run)


def _is_whole(run: StoredRun) -> bool:
    return run.tags.get(provenance.STATE) == provenance.COMPLETE
