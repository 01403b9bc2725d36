"""The MLflow target: finding, writing, discarding and reading runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, NamedTuple

import msgspec

from shardmig.adapters.base import (
    Capabilities,
    FileSink,
    FileStore,
    Fitted,
    ToWrite,
    Want,
    Written,
    migration_key,
    scope_of,
)
from shardmig.adapters.mlflow import facts, neptune_registry
from shardmig.adapters.mlflow.artifacts import artifacts_of
from shardmig.adapters.mlflow.beginning import (
    choose,
    create,
    discard,
    experiment_id,
    intent_of,
    is_complete,
    is_whole,
    other_content,
)
from shardmig.adapters.mlflow.database import prepare_database
from shardmig.adapters.mlflow.facts import RunFacts
from shardmig.adapters.mlflow.fit import MlflowRules
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.merging import RunMerge
from shardmig.adapters.mlflow.naming import MAX_KEY, Naming, experiment_name, wanted_experiment_name
from shardmig.adapters.mlflow.native import SOURCE, NativeFacts, NativeNaming, datasets_of
from shardmig.adapters.mlflow.neptune_registry import NeptuneRegistry, registered_name
from shardmig.adapters.mlflow.objects.classes import SCOPES as OBJECT_SCOPES
from shardmig.adapters.mlflow.objects.classes import classes
from shardmig.adapters.mlflow.objects.fit import fit_object
from shardmig.adapters.mlflow.objects.references import Here, References
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.writing import ObjectTarget
from shardmig.adapters.mlflow.options import MlflowOptions, renames
from shardmig.adapters.mlflow.run import RunInMlflow, read_run
from shardmig.adapters.mlflow.store import RunStore, StoredRun
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.uploads import ArtifactSink, Uploads
from shardmig.adapters.sidecar.writing import RunContent, leading_fields
from shardmig.adapters.wrappers import retrying
from shardmig.errors import AdapterError, NotFound, about_run
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    Finding,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    ProjectId,
    RunRef,
    Scope,
    TargetRun,
    TargetRunId,
)

CAPABILITIES: Final = Capabilities(
    name="mlflow",
    step_type="int64",
    holds_nan=True,
    holds_infinity=False,
    keeps_point_times=True,
    keeps_run_times=True,
    replay_is_idempotent=True,
    max_key_length=MAX_KEY,
    merges=True,
)


class _Manner(NamedTuple):
    """How runs of one kind are written: those that came from MLflow go back as they were."""

    rules: MlflowRules
    facts: type[RunFacts]


class _Brought(NamedTuple):
    """What of a run is to be written. `chunks`: what comes behind the header."""

    digest: str
    header: Header
    chunks: Iterator[Chunk]
    files: FileStore


class MlflowTarget:
    """WriteSide of MLflow, over any run store. `http` is the tracking server's client, None for a database.

    The store is opened at its first use: `fit` needs none, and a plan neither connects nor initialises a database.
    """

    grouped: frozenset[Scope] = frozenset({"traces"})
    """As Grouping."""

    def __init__(
        self, open_store: Callable[[], RunStore], http: HttpClient | None, options: MlflowOptions, load: LoadOptions
    ) -> None:
        self.caps = msgspec.structs.replace(CAPABILITIES, requests_per_s=options.requests_per_s or None)
        self._open_store = open_store
        self._http = http
        self._options = options
        self._load = load
        self._plain = _Manner(MlflowRules(load, Naming(caseless=options.is_caseless)), RunFacts)
        one_to_one = msgspec.structs.replace(load, step_multiplier=1)
        self._native = _Manner(MlflowRules(one_to_one, NativeNaming(caseless=options.is_caseless)), NativeFacts)
        self._manner = self._plain
        self._fits_objects = False
        self._tagged_experiments: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        self._checked_names: set[str] = set()
        self._found: tuple[MigrationKey, list[StoredRun]] | None = None

    @cached_property
    def _store(self) -> RunStore:
        return self._open_store()

    @cached_property
    def _stores(self) -> Stores:
        uri, is_bulk = self._options.tracking_uri, self._options.bulk != "no"
        return Stores(uri if self._http else prepare_database(uri), self._http, may_be_bulk=is_bulk)

    @cached_property
    def _neptune_registry(self) -> NeptuneRegistry:
        return NeptuneRegistry(self._stores, self._store)

    @cached_property
    def _objects(self) -> ObjectTarget:
        stores = self._stores
        here = Here(
            find=self._find_whole,
            experiment=lambda project: self._experiment_id(self._experiment_of(project)),
            experiment_named=self._experiment_of,
            models=renames(file) if (file := self._options.model_rename_file) else {},
        )
        references = References(stores, here)
        return ObjectTarget(stores, references, classes(stores, references), self._load)

    def _find_whole(self, key: MigrationKey) -> TargetRunId | None:
        """What objects may refer to: anything partial may be made anew, under another id."""
        if scope_of(key) in OBJECT_SCOPES:
            found = self._objects.find(key)
            return found.id if found is not None and found.state == "complete" else None
        return next((run.id for run in self._store.find_runs(key) if is_whole(run)), None)

    def expect(self, runs: Sequence[RunRef]) -> None:
        """As Expecting."""
        if any(run.scope in OBJECT_SCOPES for run in runs):
            self._objects.expect(runs)

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide; see `fit`."""
        if isinstance(chunk, Header):
            self._manner = self._manner_of(chunk.source)
            self._fits_objects = chunk.run.scope in OBJECT_SCOPES
        if self._fits_objects:
            return fit_object(chunk)
        return self._manner.rules.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide. A complete run comes before partial ones; beside one that was begun as well it counts as partial: so
        whoever writes discards that one, and whoever compares tells it."""
        if not key.isalnum():  # no key of ours, and no text to put into a filter
            return None
        if scope_of(key) in OBJECT_SCOPES:
            return self._objects.find(key)
        self._found = (key, self._store.find_runs(key))
        runs = [self._target_run(run, key) for run in self._found[1]]
        found = min(runs, key=lambda run: run.state != "complete", default=None)
        if found is not None and not all(map(is_whole, self._found[1])):
            return msgspec.structs.replace(found, state="partial")
        return found

    def _just_found(self, key: MigrationKey) -> list[StoredRun]:
        """The runs of this key. What `find_run` answered a moment ago holds once, for the `write_run` that follows it: a
        search is the slowest of a small run's requests (measured: 0.1 s of a server that is being written)."""
        found, self._found = self._found, None
        return found[1] if found is not None and found[0] == key else self._store.find_runs(key)

    def write_together(self, runs: Sequence[ToWrite]) -> list[Written | AdapterError]:
        """As Grouping."""
        return self._objects.write_together(runs)

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """As WriteSide. A complete run of the same digest is left as it is, but for its link to a parent that came after
        it; of another digest it is a TargetConflict, unless --on-existing says what becomes of it."""
        header, fields, rest = leading_fields(chunks)
        if header.run.scope in OBJECT_SCOPES:
            return self._objects.write(key, digest, (header, fields, rest), files)
        run_facts = self._manner_of(header.source).facts(header.run)
        run_facts.learn(fields)
        brought = _Brought(digest, header, itertools.chain([Fields(fields)] if fields else [], rest), files)
        with about_run(header.run.label):
            run = self._begin(key, digest, header, run_facts, parent)
            is_same = run.tags.get(provenance.DIGEST) == digest
            if is_whole(run) and (is_same or self._load.on_existing == "skip"):
                self._link(run, parent if is_same else None)
                if not is_complete(run):
                    self._store.delete_run(run.id)
                return Written(run.id, [] if is_same else [other_content(run)], url=self._url(run))
            if is_whole(run):
                written = self._merge(run, brought, run_facts)
                self._link(run, parent)
            else:
                written = self._fill(run, brought, run_facts)
            return msgspec.structs.replace(written, findings=[*written.findings, *run_facts.findings(parent)])

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide. MLflow marks it deleted; `mlflow gc` removes it for good."""
        self._found = None
        if scope_of(run.key) in OBJECT_SCOPES:
            self._objects.discard(run)
            return
        try:
            discard(self._store, self._store.get_run(run.id))
        except NotFound:
            return

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide; see `read`."""
        if scope_of(run.key) in OBJECT_SCOPES:
            return self._objects.read(run, want, files)
        stored = self._store.get_run(run.id)
        return read_run(self._store, stored, artifacts_of(stored, self._http), want, files)

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """As WriteSide."""
        if run.scope in OBJECT_SCOPES:  # all that they are is fields
            return {}
        # The Header that was fitted tells the manner; which fields there are depends on the selection.
        run_facts = self._manner.facts(run)
        run_facts.learn(fields)
        expected = facts.expected_facts(
            run_facts, self._plain.rules.naming, self._experiment(run_facts), parent, last_point_ms
        )
        if run.scope == neptune_registry.MODELS and self._manner is self._plain:
            expected[neptune_registry.FACT] = registered_name(run.id)
        return expected

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide."""
        if scope_of(run.key) in OBJECT_SCOPES:
            return {}
        stored = self._store.get_run(run.id)
        held = facts.held_facts(stored, self._store.experiment(stored.experiment_id).name)
        is_model = stored.tags.get(provenance.SCOPE) == neptune_registry.MODELS
        if is_model and (name := self._neptune_registry.registered(stored)):
            held[neptune_registry.FACT] = name
        return held

    def close(self) -> None:
        """As WriteSide."""
        if "_store" in self.__dict__:
            self._store.close()
        if "_stores" in self.__dict__:
            self._stores.close()

    def _begin(
        self, key: MigrationKey, digest: str, header: Header, run_facts: RunFacts, parent: TargetRunId | None
    ) -> StoredRun:
        """The run to go on with: a whole one of this digest, a partial one of this intent, or a new one.
        Any other run of this key is discarded."""
        experiment = self._experiment(run_facts)
        intent = intent_of(digest, experiment, self._load, is_caseless=self._options.is_caseless)
        chosen = choose(self._store, self._just_found(key), digest, intent, self._load)
        if chosen is not None and is_whole(chosen):
            return chosen
        tags = self._provenance(key, digest, intent, header) | run_facts.tags(
            self._manner_of(header.source).rules.naming, parent
        )
        if chosen is None:
            return create(self._store, self._experiment_id(experiment), run_facts, tags)
        self._store.set_tags(chosen, tags)
        return chosen

    def _merge(self, run: StoredRun, brought: _Brought, run_facts: RunFacts) -> Written:
        """Bring what is new of a run to the one that is there, which stays complete with its old digest meanwhile."""
        merge = RunMerge(self._store, run, self._http)
        rules = self._manner_of(brought.header.source).rules
        merge.refuse_other_steps(rules.load.step_multiplier or 1)
        if run.is_deleted:
            self._store.restore_run(run.id)
        lifecycle = {facts.LIFECYCLE: facts.RESTORED} if facts.is_deleted_copy(run) else {}
        tags = merge.tags(run_facts.tags(rules.naming, None)) | merge.name_tag(run_facts)
        self._store.set_tags(run, tags | lifecycle)
        written = self._fill(run, brought, run_facts, merge)
        return msgspec.structs.replace(written, findings=[merge.finding(), *merge.conflicts, *written.findings])

    def _fill(self, run: StoredRun, brought: _Brought, run_facts: RunFacts, merge: RunMerge | None = None) -> Written:
        digest, header, chunks, files = brought
        with TemporaryDirectory(prefix="shardmig-") as staging:
            artifacts: ArtifactSink = merge.files if merge else artifacts_of(run, self._http)
            uploads = Uploads(artifacts, self._options.artifact_workers)
            manner = self._manner_of(header.source)
            sink = merge.sink if merge else RunInMlflow(self._store, run)
            is_native = manner is self._native
            content = RunContent(sink, uploads, Path(staging), manner.rules, is_native=is_native)
            try:
                content.write(header, chunks, run_facts, files)
            finally:
                uploads.close()
                content.close()
        registered: list[Finding] = []
        if isinstance(run_facts, NativeFacts):
            self._fill_natively(run, run_facts, content.held)
        elif header.run.scope in neptune_registry.SCOPES and content.is_whole and merge is None:
            registered = self._neptune_registry.register(run, migration_key(header.run), run_facts)
        is_whole = content.is_whole and not (merge and merge.conflicts)
        tags = {provenance.DIGEST: digest, provenance.STATE: provenance.COMPLETE} if is_whole else {}
        if run_facts.is_deleted:
            tags |= {facts.LIFECYCLE: facts.DELETED}
        self._store.finish_run(run, run_facts.status, run_facts.end_ms(content.last_point_ms), tags)
        if run_facts.is_deleted and (content.is_whole or merge):
            retrying(lambda: self._store.delete_run(run.id))
        changes = sum(finding.code == "name-changed" for finding in content.findings)
        findings = [*content.findings, *registered, *self._renamed(run_facts)]
        return Written(run.id, findings, name_changes=changes, url=self._url(run))

    def _fill_natively(self, run: StoredRun, run_facts: NativeFacts, held: list[Field]) -> None:
        """What MLflow has a place for that nothing else has: datasets, logged models and the experiment's tags."""
        if datasets := datasets_of(held):
            retrying(lambda: self._store.log_datasets(run, datasets))
        if run_facts.model_links:
            self._objects.link_run(run.id, run_facts.model_links)
        self._tag_experiment(run.experiment_id, run_facts.experiment_tags)

    def _tag_experiment(self, id_: str, tags: Mapping[str, str]) -> None:
        """Set those that it does not have: others may be somebody's, or are the business of the experiment itself."""
        seen = (id_, frozenset(tags.items()))
        if not tags or seen in self._tagged_experiments:
            return
        held = retrying(lambda: self._store.experiment(id_)).tags
        missing = {key: text for key, text in tags.items() if key not in held}
        retrying(lambda: self._store.tag_experiment(id_, missing))
        self._tagged_experiments.add(seen)

    def _experiment_of(self, project: ProjectId) -> str:
        return experiment_name(wanted_experiment_name(self._options, project, ""))

    def _experiment(self, run_facts: RunFacts) -> str:
        return experiment_name(wanted_experiment_name(self._options, run_facts.run.project, run_facts.sys_name))

    def _experiment_id(self, name: str) -> str:
        if name in self._checked_names:
            return self._store.experiment_id(name)
        id_ = experiment_id(self._store, name)
        self._checked_names.add(name)
        return id_

    def _renamed(self, run_facts: RunFacts) -> Iterator[Finding]:
        if run_facts.is_renamed:
            yield Finding("note", "run-name-changed", detail=f"MLflow has {run_facts.name!r}")
        wanted = wanted_experiment_name(self._options, run_facts.run.project, run_facts.sys_name)
        if (held := experiment_name(wanted)) != wanted:
            yield Finding("note", "experiment-name-changed", detail=f"MLflow has {held!r}")

    def _provenance(self, key: MigrationKey, digest: str, intent: str, header: Header) -> dict[str, str]:
        multiplier = self._manner_of(header.source).rules.load.step_multiplier or 1
        tags = provenance.notes(key, digest, header) | {
            provenance.INTENT: intent,
            provenance.STEP_MULTIPLIER: str(multiplier),
        }
        return {name: facts.tag_value(value) for name, value in tags.items() if value}

    def _manner_of(self, source: str) -> _Manner:
        return self._native if source == SOURCE else self._plain

    def _target_run(self, run: StoredRun, key: MigrationKey) -> TargetRun:
        state: Literal["complete", "partial"] = "complete" if is_complete(run) else "partial"
        return TargetRun(run.id, key, state, run.tags.get(provenance.DIGEST, ""), self._url(run))

    def _link(self, run: StoredRun, parent: TargetRunId | None) -> None:
        if parent is not None and not run.is_deleted and run.tags.get(facts.PARENT) != parent:
            self._store.set_tags(run, {facts.PARENT: parent})

    def _url(self, run: StoredRun) -> str:
        if self._http is None:
            return ""
        return f"{self._options.shown_uri}/#/experiments/{run.experiment_id}/runs/{run.id}"
