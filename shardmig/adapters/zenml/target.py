"""The ZenML target: finding, writing, discarding and reading runs.

A run is a model version. Its files go to a folder of their own in the artifact store first, named by the migration key.
Then it is registered in a few calls: the model version under a name that says that it is loading, an artifact for the
folder (found again by the key), artifacts for its parts, the metadata; and last of all it gets its own name: that is what
makes it complete. Whatever a crash leaves behind is found by key or by that name, removed, and written anew.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

from shardmig.adapters.base import Capabilities, FileSink, FileStore, Fitted, Want, Written
from shardmig.adapters.run_facts import RunFacts
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.writing import leading_fields
from shardmig.adapters.zenml import facts
from shardmig.adapters.zenml.artifacts import Folder
from shardmig.adapters.zenml.entities import Artifact, NewArtifact
from shardmig.adapters.zenml.fit import ZenmlRules, rows
from shardmig.adapters.zenml.naming import MAX_KEY, Naming, is_loading, loading_name, second_name, wanted_model_name
from shardmig.adapters.zenml.opening import Opened
from shardmig.adapters.zenml.options import TargetOptions
from shardmig.adapters.zenml.run import ENTRY, Collected, read_run
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.errors import NotFound, TargetConflict, about_run
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    LoadOptions,
    MigrationKey,
    Piece,
    RunRef,
    TargetRun,
    TargetRunId,
)

CAPABILITIES: Final = Capabilities(
    name="zenml",
    step_type="decimal",
    holds_nan=True,
    holds_infinity=True,
    keeps_point_times=True,
    keeps_run_times=True,
    replay_is_idempotent=True,
    max_key_length=MAX_KEY,
)


class _Old(NamedTuple):
    """A complete run that is to be replaced, and the artifact that leads to its files."""

    id: TargetRunId
    entry: Artifact | None


class ZenmlTarget:
    """WriteSide of ZenML. The store is opened at its first use: a plan neither connects nor makes a database."""

    caps = CAPABILITIES

    def __init__(self, open_store: Callable[[], Opened], options: TargetOptions, load: LoadOptions) -> None:
        self._store = ZenmlStore(open_store, options.project, options.artifact_store)
        self._options = options
        self._load = load
        self._naming = Naming(caseless=options.is_caseless)
        self._rules = ZenmlRules(load, self._naming)

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide; see `fit`."""
        return self._rules.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide."""
        entry = self._entry(key)
        return None if entry is None else self._run_of(entry, key)

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """As WriteSide. A complete run of the same digest is left as it is, but for its link to a parent that came after
        it; of another digest it is a TargetConflict, unless existing runs are to be replaced."""
        header, fields, rest = leading_fields(chunks)
        run_facts = RunFacts(header.run)
        run_facts.learn(fields)
        content = itertools.chain([Fields(fields)] if fields else [], rest)
        with about_run(header.run.label):
            held = self._kept(key, digest)
            if held is not None and held.digest == digest:
                self._link(held, parent)
                return Written(held.id, [])
            old = None if held is None else _Old(held.id, self._entry(key))
            collected = Collected(self._rules, self._free_folder(key, old), self._options.artifact_workers)
            collected.write(header, content, run_facts, files)
            if old is not None and not collected.is_whole:
                collected.folder.remove()
                return Written(old.id, collected.findings)
            return self._register(key, facts.provenance(key, digest, header), run_facts, collected, parent, old)

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide. The model version goes first: without it the run is not found any more."""
        self._store.delete_version(run.id)
        self._discard(run.key, self._entry(run.key))

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide; see `run`."""
        yield from read_run(self._store, self._store.version(run.id), run.key, want, files)

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """As WriteSide."""
        run_facts = RunFacts(run)
        run_facts.learn(fields)
        return facts.expected_facts(run_facts, self._naming, self._model(run_facts), parent, last_point_ms)

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide."""
        return facts.held_facts(self._store.version(run.id), run.key)

    def close(self) -> None:
        """As WriteSide."""
        self._store.close()

    def _kept(self, key: MigrationKey, digest: str) -> TargetRun | None:
        """The complete run of this key: of this digest, or one that is to be replaced once the new one is whole. A partial
        one, and what is left of one, is discarded."""
        entry = self._entry(key)
        held = None if entry is None else self._run_of(entry, key)
        if held is not None and held.state == "complete":
            if held.digest == digest or self._load.on_existing == "replace":
                return held
            raise TargetConflict(
                f"ZenML holds this run as model version {held.id}, whole but with other content",
                hint="--on-existing replace writes it anew",
            )
        if held is not None:
            self._store.delete_version(held.id)
        self._discard(key, entry)
        return None

    def _register(
        self,
        key: MigrationKey,
        own: dict[str, Any],
        run_facts: RunFacts,
        collected: Collected,
        parent: TargetRunId | None,
        old: _Old | None,
    ) -> Written:
        """Everything into ZenML's database, in the place of the old run; the run's own name last."""
        name = self._naming.version(run_facts.wanted_name)
        model_id = self._store.model_id(self._model(run_facts), f"Runs of {run_facts.run.project}")
        tag_ids = self._store.tag_ids(facts.tags_of(run_facts, self._naming))
        description = facts.description_of(run_facts)
        shown = facts.run_metadata(run_facts, parent, collected.last_point_ms)
        own = own | {facts.NAME: name, facts.SERIES_COUNT: len(collected.cards)}
        folder = collected.folder
        gone = f"model version {old.id}" if old is not None and not self._store.undoes else ""
        with provenance.in_place_of(gone), self._store.together():
            if old is not None:
                self._unregister(old)
            version_id = self._new_version(model_id, loading_name(name, key), description, tag_ids)
            own[facts.VERSION] = version_id
            self._store.add_artifact(version_id, NewArtifact(ENTRY, key, folder.uri, {facts.SHARDMIG: own}))
            if self._options.artifacts == "fields":
                self._add_artifacts(version_id, self._model(run_facts), name, key, folder, collected)
            self._add_metadata(version_id, collected, {facts.RUN: shown, facts.SHARDMIG: own})
            if collected.is_whole:
                self._give_name(version_id, name, key)
        if old is not None:
            self._remove_files(old.entry)
        wanted_model = wanted_model_name(self._options, run_facts)
        findings = [*collected.findings, *facts.findings(run_facts, self._naming, wanted_model)]
        changes = sum(finding.code == "name-changed" for finding in findings)
        return Written(TargetRunId(version_id), findings, name_changes=changes)

    def _new_version(self, model_id: str, name: str, description: str, tag_ids: list[str]) -> str:
        """A new model version; one of that name was left behind by a crash before anything was in it."""
        try:
            return self._store.create_version(model_id, name, description, tag_ids)
        except TargetConflict:
            left = self._store.version_named(name, model_id)
            if left is None:
                raise
            self._store.delete_version(left.id)
            return self._store.create_version(model_id, name, description, tag_ids)

    def _add_artifacts(
        self, version_id: str, model: str, version: str, key: MigrationKey, folder: Folder, collected: Collected
    ) -> None:
        for path, place in collected.files:
            name, uri = self._naming.name(f"{model}/{path}"), folder.uri_of(place)
            try:
                self._store.add_artifact(version_id, NewArtifact(name, version, uri))
            except TargetConflict:
                self._store.add_artifact(version_id, NewArtifact(name, second_name(version, key), uri))

    def _add_metadata(self, version_id: str, collected: Collected, own: dict[str, dict[str, Any]]) -> None:
        for first, values, cards in itertools.zip_longest([own], rows(collected.values), rows(collected.cards)):
            part = (first or {}) | {facts.FIELDS: values, facts.SERIES: cards}
            self._store.add_metadata(version_id, {key: row for key, row in part.items() if row})

    def _give_name(self, version_id: str, name: str, key: MigrationKey) -> None:
        """Its own name, or one with the key where another run of the model has that."""
        try:
            self._store.rename_version(version_id, name)
        except TargetConflict:
            self._store.rename_version(version_id, second_name(name, key))

    def _discard(self, key: MigrationKey, entry: Artifact | None) -> None:
        """What is there of a run without model version; the artifact that leads to the rest goes last."""
        if entry is not None:
            self._forget_parts(entry)
            self._remove_files(entry)
        for folder in self._folders(key):
            folder.remove()
        if entry is not None:
            self._store.delete_artifact(entry.id)

    def _unregister(self, old: _Old) -> None:
        """Out of ZenML's database. The artifact that leads to the files goes last."""
        self._store.delete_version(old.id)
        if old.entry is not None:
            self._forget_parts(old.entry)
            self._store.delete_artifact(old.entry.id)

    def _forget_parts(self, entry: Artifact) -> None:
        for artifact in self._store.artifacts_below(entry.uri):
            if artifact.id != entry.id:
                self._store.delete_artifact(artifact.id)

    def _remove_files(self, entry: Artifact | None) -> None:
        if entry is not None:
            with contextlib.suppress(NotFound):  # the artifact store may be gone, and the files with it
                self._store.folder(entry.uri, entry.store_id).remove()

    def _entry(self, key: MigrationKey) -> Artifact | None:
        return self._store.artifact(ENTRY, key) if key.isalnum() else None  # else no key of ours

    def _run_of(self, entry: Artifact, key: MigrationKey) -> TargetRun | None:
        """None: its model version was removed, or a crash left nothing but the folder."""
        own = entry.metadata.get(facts.SHARDMIG, {})
        version = self._store.find_version(str(own[facts.VERSION])) if facts.VERSION in own else None
        if version is None:
            return None
        state: Literal["partial", "complete"] = "partial" if is_loading(version.name) else "complete"
        return TargetRun(TargetRunId(version.id), key, state, str(own.get(facts.DIGEST, "")))

    def _folders(self, key: MigrationKey) -> list[Folder]:
        """The two that a run may have: one while the run that it replaces has the other."""
        return [self._store.new_folder(f"shardmig/{key}{suffix}") for suffix in ("", ".next")]

    def _free_folder(self, key: MigrationKey, old: _Old | None) -> Folder:
        """An empty one."""
        taken = "" if old is None or old.entry is None else old.entry.uri
        free = next(folder for folder in self._folders(key) if folder.uri != taken)
        free.remove()
        return free

    def _model(self, run_facts: RunFacts) -> str:
        return self._naming.name(wanted_model_name(self._options, run_facts))

    def _link(self, run: TargetRun, parent: TargetRunId | None) -> None:
        if parent is None:
            return
        held = self._store.version(run.id).metadata.get(facts.RUN, {})
        if held.get(facts.PARENT) != parent:
            self._store.add_metadata(run.id, {facts.RUN: {facts.PARENT: parent}})
