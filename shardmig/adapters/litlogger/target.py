"""The Lightning target: finding, writing, discarding and reading runs.

A run is an experiment (metrics stream). Its metadata goes up in one request with the run's state, last of all; before that
it holds only what tells whose it is. How points are kept from being there twice: see `appending`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from shardmig.adapters.base import Capabilities, FileSink, FileStore, Fitted, Want, Written, migration_key
from shardmig.adapters.litlogger import facts
from shardmig.adapters.litlogger.answers import Stream, Teamspace
from shardmig.adapters.litlogger.appending import RunInLightning
from shardmig.adapters.litlogger.catalog import Catalog, id_of
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.fit import LightningRules
from shardmig.adapters.litlogger.naming import MAX_KEY, LightningNaming, colors_of, stream_name, teamspace_name
from shardmig.adapters.litlogger.options import TargetOptions
from shardmig.adapters.litlogger.run import read_run
from shardmig.adapters.litlogger.shown import MediaOfRun, Shown
from shardmig.adapters.run_facts import RunFacts
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.adapters.sidecar.writing import RunContent, leading_fields
from shardmig.errors import TargetConflict, about_run
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    RunRef,
    TargetRun,
    TargetRunId,
)

RULES: Final = 1
"""Of what a run looks like in Lightning. A run half written by other rules is begun anew, not gone on with."""


class LightningTarget:
    """WriteSide of Lightning. Nothing is connected to before it is asked for: `fit` is pure."""

    def __init__(self, options: TargetOptions, load: LoadOptions) -> None:
        self._options = options
        self._load = load
        self._rules = LightningRules(load, LightningNaming())
        self.caps = Capabilities(
            name="litlogger",
            step_type="int64",
            holds_nan=False,
            holds_infinity=False,
            keeps_point_times=True,
            keeps_run_times=False,
            replay_is_idempotent=False,
            max_key_length=MAX_KEY,
            requests_per_s=options.requests_per_s or None,
        )

    @cached_property
    def _cloud(self) -> Cloud:
        return Cloud(self._options)

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self._cloud, self._options)

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide; see `fit`."""
        return self._rules.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide. A complete run comes before partial ones."""
        runs = [self._target_run(stream, key) for stream in self._catalog.find(key)]
        return min(runs, key=lambda run: run.state != "complete", default=None)

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
            home = self._catalog.home(header.run.project)
            held = self._catalog.find(key) if self._load.on_existing == "replace" else []
            old = [stream.name for stream in held if facts.is_complete(stream)]
            stream, is_new = self._begin(key, digest, header, home, parent)
            self._catalog.enter(key, stream)
            if facts.is_complete(stream):
                self._link(stream, parent)
                return Written(id_of(stream), [], url=self._catalog.url(stream))
            sink = RunInLightning(self._cloud, stream, is_new=is_new)
            with provenance.in_place_of(f"experiment {old[0]}" if old else ""):
                return self._fill(stream, sink, header, content, run_facts, files)

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide. Files stay in the experiment's folder on the drive, where the next one of this run replaces them."""
        teamspace_id, _, stream_id = run.id.partition("/")
        self._cloud.delete_stream(teamspace_id, stream_id)

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide; see `run`."""
        stream = self._catalog.stream(run.id)
        return read_run(self._cloud, stream, self._drive(stream), want, files)

    def expected_facts(
        self,
        run: RunRef,
        fields: Iterable[Field],
        parent: TargetRunId | None,
        last_point_ms: int | None,  # noqa: ARG002 (times of a run cannot be set)
    ) -> dict[str, str]:
        """As WriteSide. The teamspace is a fact only where it is the project's own: an option may name it by its id."""
        run_facts = RunFacts(run)
        run_facts.learn(fields)
        teamspace = "" if self._options.teamspace else teamspace_name(run.project)
        return facts.expected_facts(run_facts, stream_name(run.id, migration_key(run)), teamspace, parent)

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide."""
        stream = self._catalog.stream(run.id)
        teamspace = "" if self._options.teamspace else self._catalog.teamspace(stream.project_id).name
        return facts.held_facts(stream, teamspace)

    def close(self) -> None:
        """As WriteSide."""
        if "_cloud" in self.__dict__:
            self._cloud.close()

    def _begin(
        self, key: MigrationKey, digest: str, header: Header, home: Teamspace, parent: TargetRunId | None
    ) -> tuple[Stream, bool]:
        """The experiment to go on with, and whether it is new: a complete one of this digest, a partial one of this
        intent, or a new one. Any other of this key is removed."""
        name = stream_name(header.run.id, key)
        intent = self._intent(digest, home)
        held = {id_of(stream): stream for stream in self._catalog.find(key)}
        if (named := self._cloud.stream_named(home.project_id, name)) is not None:
            held[id_of(named)] = named
        chosen = None
        for stream in sorted(held.values(), key=facts.is_complete, reverse=True):
            self._refuse_foreign(stream, key, digest)
            wanted = (provenance.DIGEST, digest) if facts.is_complete(stream) else (provenance.INTENT, intent)
            if chosen is None and wanted in stream.metadata.items():
                chosen = stream
            else:
                self._cloud.delete_stream(stream.project_id, stream.id)
        if chosen is not None:
            return chosen if facts.is_complete(chosen) else facts.with_parent(chosen, parent), False
        tags = self._provenance(key, digest, intent, header, parent)
        return self._cloud.create_stream(home.project_id, name, tags, colors_of(name)), True

    def _refuse_foreign(self, stream: Stream, key: MigrationKey, digest: str) -> None:
        held = stream.metadata
        if held.get(provenance.KEY) != key:
            raise TargetConflict(f"experiment {stream.name} exists, and shardmig did not make it")
        if facts.is_complete(stream) and held.get(provenance.DIGEST) != digest and self._load.on_existing != "replace":
            raise TargetConflict(
                f"Lightning holds this run as {stream.name}, whole but with other content",
                hint="--on-existing replace writes it anew",
            )

    def _fill(
        self,
        stream: Stream,
        sink: RunInLightning,
        header: Header,
        chunks: Iterator[Chunk],
        run_facts: RunFacts,
        files: FileStore,
    ) -> Written:
        drive = self._drive(stream, is_new=sink.is_new)
        with TemporaryDirectory(prefix="shardmig-") as staging:
            media = MediaOfRun(self._cloud, stream, drive, is_new=sink.is_new)
            shown = Shown(
                media,
                files,
                Path(staging, "picture"),
                most=self._options.most_media,
                step_multiplier=self._load.step_multiplier or 1,
            )
            uploads = Uploads(drive, self._options.artifact_workers)
            content = RunContent(sink, uploads, Path(staging), self._rules, is_native=False)
            try:
                content.write(header, shown.watched(chunks), run_facts, files)
            finally:
                uploads.close()
                content.close()
        own = {name: value for name, value in stream.metadata.items() if name in facts.OWN_TAGS}
        own |= {provenance.STATE: provenance.COMPLETE} if content.is_whole else {}
        phase = facts.phase_of(run_facts) if content.is_whole else "RUNNING"
        self._cloud.update_stream(stream, phase, own | sink.values)
        changes = sum(finding.code == "name-changed" for finding in content.findings)
        findings = [*content.findings, *shown.findings()]
        return Written(id_of(stream), findings, name_changes=changes, url=self._catalog.url(stream))

    def _drive(self, stream: Stream, *, is_new: bool = False) -> Drive:
        cluster = stream.cluster_id or self._catalog.cluster(stream.project_id)
        return Drive(self._cloud, stream, cluster, is_new=is_new)

    def _intent(self, digest: str, home: Teamspace) -> str:
        """Two loads of equal intent leave the same run behind, so one may go on where the other stopped."""
        load = self._load
        decisive = (RULES, digest, home.project_id, load.step_multiplier, load.allow_step_merge, load.sidecar)
        return blake2b(repr(decisive).encode(), digest_size=16).hexdigest()

    def _provenance(
        self, key: MigrationKey, digest: str, intent: str, header: Header, parent: TargetRunId | None
    ) -> dict[str, str]:
        multiplier = str(self._load.step_multiplier or 1)
        own = {provenance.INTENT: intent, provenance.STEP_MULTIPLIER: multiplier, facts.PARENT: parent or ""}
        tags = provenance.notes(key, digest, header) | own
        return {name: value for name, value in tags.items() if value}

    def _link(self, stream: Stream, parent: TargetRunId | None) -> None:
        if parent is not None and stream.metadata.get(facts.PARENT) != parent:
            self._cloud.update_stream(stream, stream.phase, stream.metadata | {facts.PARENT: parent})

    def _target_run(self, stream: Stream, key: MigrationKey) -> TargetRun:
        state: Literal["complete", "partial"] = "complete" if facts.is_complete(stream) else "partial"
        digest = stream.metadata.get(provenance.DIGEST, "")
        return TargetRun(id_of(stream), key, state, digest, self._catalog.url(stream))
