"""The W&B target: finding, writing, discarding and reading runs. The same for run folders and for a server."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from shardmig import __version__
from shardmig.adapters.base import Capabilities, FileSink, FileStore, Fitted, Want, Written
from shardmig.adapters.sidecar.manifest import MANIFEST, decode_manifest
from shardmig.adapters.sidecar.uploads import Uploads
from shardmig.adapters.sidecar.writing import RunContent, leading_fields
from shardmig.adapters.staging import staging_folder
from shardmig.adapters.wandb.facts import COMPLETE, LOADING, Block, RunFacts, expected_facts, shown_facts
from shardmig.adapters.wandb.fit import WandbRules
from shardmig.adapters.wandb.held import read_back
from shardmig.adapters.wandb.naming import BLOCK, MAX_KEY, WandbNaming, entity_of, project_of, wanted_project
from shardmig.adapters.wandb.options import REQUESTS_PER_S, WandbOptions
from shardmig.adapters.wandb.records import RunHead
from shardmig.adapters.wandb.shown import Shown
from shardmig.adapters.wandb.stored import RunStore, Staged, StoredRun
from shardmig.adapters.wandb.whole_steps import whole_steps
from shardmig.adapters.wandb.write import StagedRun
from shardmig.errors import NotFound, TargetConflict, about_run
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    Finding,
    Header,
    LoadOptions,
    MigrationKey,
    Piece,
    RunRef,
    TargetRun,
    TargetRunId,
)

_KEY: Final = re.compile(r"[0-9a-z]{32,60}")
"""What `migration_key` makes; W&B takes run ids of 64 characters."""

CAPABILITIES: Final = Capabilities(
    name="wandb",
    step_type="int64",
    holds_nan=True,
    holds_infinity=True,
    keeps_point_times=True,
    keeps_run_times=True,
    replay_is_idempotent=True,
    max_key_length=MAX_KEY,
    requests_per_s=REQUESTS_PER_S,
)


class WandbTarget:
    """WriteSide of W&B, over any run store. The store is opened at its first use: `fit` needs none."""

    def __init__(self, open_store: Callable[[], RunStore], options: WandbOptions, load: LoadOptions) -> None:
        self.caps = msgspec.structs.replace(
            CAPABILITIES,
            requests_per_s=options.requests_per_s or None,
            points_per_min=options.values_per_minute or None,
        )
        self._open_store = open_store
        self._options = options
        self._load = load
        self._naming = WandbNaming()
        self._rules = WandbRules(load, self._naming)

    @cached_property
    def _store(self) -> RunStore:
        return self._open_store()

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide; see `fit`."""
        return self._rules.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide."""
        found = self._store.find(key) if _KEY.fullmatch(key) else None
        return None if found is None else _target_run(found, key, self._store.url(found.id))

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """As WriteSide. A complete run of the same digest is left as it is, but for its link to a parent that came after
        it; of another digest it is a TargetConflict, unless existing runs are to be replaced."""
        header, fields, rest = leading_fields(chunks)
        with about_run(header.run.label):
            held = self._held(key, digest)
            if held is not None:
                for superseded in held.superseded:
                    self._store.discard(superseded)
                if parent is not None and _block(held).parent != parent:
                    self._store.set_parent(held, parent)
                return Written(held.id, [], url=self._store.url(held.id))
            facts = RunFacts(header.run)
            facts.learn(fields)
            content = itertools.chain([Fields(fields)] if fields else [], rest)
            return self._write(self._begun(key, digest, header, facts, parent), header, content, facts, files)

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide."""
        self._store.discard(run.id)

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide; see `held`."""
        return read_back(self._store.get(run.id), want, files)

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """As WriteSide."""
        facts = RunFacts(run)
        facts.learn(fields)
        return expected_facts(
            facts, project_of(self._options, run.project), self._options.job_type, parent, last_point_ms
        )

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide."""
        stored = self._store.get(run.id)
        block = _block(stored)
        return shown_facts(stored.facts(), block.start_ms, block.end_ms, block.parent)

    def close(self) -> None:
        """As WriteSide."""
        if "_store" in self.__dict__:
            self._store.close()

    def _held(self, key: MigrationKey, digest: str) -> StoredRun | None:
        """The complete run of this content; one that is to be replaced is discarded once the new one is whole."""
        held = self._store.find(key)
        if held is None or not _block(held).is_complete:
            return None
        if _block(held).digest == digest:
            return held
        if self._load.on_existing != "replace":
            raise TargetConflict(
                f"W&B holds this run as {held.id}, whole but with other content",
                hint="--on-existing replace writes it anew",
            )
        return None

    def _begun(
        self, key: MigrationKey, digest: str, header: Header, facts: RunFacts, parent: TargetRunId | None
    ) -> Block:
        return Block(
            key=key,
            state=LOADING,
            digest=digest,
            project=header.run.project,
            run_id=header.run.id,
            scope=header.run.scope,
            source=" ".join(filter(None, (header.source, header.source_version))),
            version=__version__,
            start_ms=facts.start_ms,
            parent=parent,
            job_type=self._options.job_type,
        )

    def _write(
        self, block: Block, header: Header, chunks: Iterator[Chunk], facts: RunFacts, files: FileStore
    ) -> Written:
        store = self._store
        place = self._place(header.run)
        run_id = store.new_id(block, *place)
        with store.staging(run_id) as folder:
            with staging_folder() as scratch:
                staged = StagedRun(folder, _subfolder(scratch, "spools"))
                content, shown = self._stage(staged, _subfolder(scratch, "files"), header, chunks, facts, files)
                end_ms = facts.ended_ms(content.last_point_ms)
                block = replace(block, state=COMPLETE if content.is_whole else LOADING, end_ms=end_ms)
                in_log = replace(block, state=LOADING) if store.marks_later else block
                head = self._head(run_id, place, staged.config, facts, in_log)
                log = staged.write_log(head, int(facts.is_failed), end_ms)
            entity, project = place
            whole = Staged(
                folder=folder,
                run_id=run_id,
                entity=entity,
                project=project,
                rows=log.rows,
                values=log.values,
                config=staged.config.keys(),
            )
            target_id = store.publish(whole, block)
        notes = [Finding("note", "not-shown", path, count=count) for path, count in sorted(log.left_out.items())]
        findings = [*content.findings, *shown.findings(), *notes, *facts.findings(), *self._renamed(header.run.project)]
        changes = sum(finding.code == "name-changed" for finding in content.findings)
        return Written(target_id, findings, name_changes=changes, url=store.url(target_id))

    def _place(self, run: RunRef) -> tuple[str, str]:
        """Entity and project of a run."""
        return entity_of(self._options, run.project), project_of(self._options, run.project)

    def _stage(
        self,
        staged: StagedRun,
        scratch: Path,
        header: Header,
        chunks: Iterator[Chunk],
        facts: RunFacts,
        files: FileStore,
    ) -> tuple[RunContent, Shown]:
        shown = Shown(staged, self._naming, self._load.step_multiplier or 1)
        uploads = Uploads(staged, 1)
        content = RunContent(staged, uploads, scratch, self._rules, is_native=False)
        try:
            content.write(header, shown.watched(whole_steps(chunks, self._load.step_multiplier or 1)), facts, files)
        finally:
            uploads.close()
            content.close()
        manifest = (staged.folder / "files" / MANIFEST).read_bytes()
        shown.finish(decode_manifest(manifest, header.run.label))
        return content, shown

    def _head(
        self, run_id: str, place: tuple[str, str], config: dict[str, bytes], facts: RunFacts, block: Block
    ) -> RunHead:
        entity, project = place
        return RunHead(
            id=run_id,
            entity=entity,
            project=project,
            name=facts.name,
            group=facts.group,
            job_type=self._options.job_type,
            notes=facts.notes,
            host=facts.host,
            tags=facts.tags,
            start_ms=facts.start_ms,
            config=config | {BLOCK: msgspec.json.encode(block)},
        )

    def _renamed(self, project_id: str) -> Iterator[Finding]:
        wanted, held = wanted_project(self._options, project_id), project_of(self._options, project_id)
        if held != wanted:
            yield Finding("note", "project-name-changed", detail=f"W&B has {held!r}")


def _subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _block(stored: StoredRun) -> Block:
    block = stored.block
    if block is None:
        raise NotFound(f"run {stored.id} was not written by shardmig, or its config was changed")
    return block


def _target_run(stored: StoredRun, key: MigrationKey, url: str) -> TargetRun:
    block = stored.block
    is_complete = block is not None and block.is_complete and not stored.superseded
    state: Literal["complete", "partial"] = "complete" if is_complete else "partial"
    return TargetRun(stored.id, key, state, block.digest if block is not None else "", url)
