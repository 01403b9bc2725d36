"""Load one shard: published runs of the archive to the write side of the target."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shardmig import logs
from shardmig.adapters.base import ToWrite, Want, Written, migration_key
from shardmig.adapters.registry import open_target
from shardmig.adapters.wrappers import RetryingTarget
from shardmig.archive.bucket_files import files_of
from shardmig.archive.digest import RunDigest
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import AdapterError, TargetConflict, UsageError, settled, settled_each
from shardmig.logs import Event
from shardmig.records import (
    Chunk,
    Counters,
    End,
    Failure,
    Finding,
    Piece,
    RunOutcome,
    RunRef,
    TargetRun,
    TargetRunId,
    Task,
)
from shardmig.selection import Matcher
from shardmig.worker.outcomes import lost_values, settle_groups
from shardmig.worker.tally import ProgressFile, count, fields_of

_TOGETHER: Final = 16
"""Runs that are written together: their small streams are in memory at once."""


def load_shard(task: Task, progress: ProgressFile, done: Callable[[RunOutcome], None]) -> None:
    """Load every run of the shard and tell each outcome. A run that fails does not stop the others; Fatal does."""
    if task.target is None or task.load.step_multiplier == 0:
        raise UsageError("a load needs a target and a step multiplier")
    target = open_target(task.target, task.load)
    target.expect(task.shard.runs)
    scratch = _scratch(task)
    shutil.rmtree(scratch, ignore_errors=True)  # an attempt that was killed could not
    try:
        loader = _Loader(task, ArchiveReader(task.archive), target, progress)
        settle_groups(loader.groups(task.shard.runs), loader.load, done)
    finally:
        target.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(task: Task) -> Path:
    """Where files lie that are fetched from an object store."""
    return Path(task.spool) / f"{task.phase}-{task.shard.id}.files"


class _Loader:
    def __init__(self, task: Task, archive: ArchiveReader, target: RetryingTarget, progress: ProgressFile) -> None:
        self._task = task
        self._archive = archive
        self._target = target
        self._progress = progress
        self._want = Want(selection=task.selection, chunk_points=task.chunk_points)

    def groups(self, runs: Iterable[RunRef]) -> Iterator[Sequence[RunRef]]:
        """The runs in their order, so many at a time as the target writes together; most are alone."""
        for is_grouped, members in groupby(runs, lambda run: run.scope in self._target.grouped):
            left = list(members)
            size = _TOGETHER if is_grouped else 1
            yield from (left[start : start + size] for start in range(0, len(left), size))

    def load(self, runs: Sequence[RunRef]) -> list[RunOutcome | AdapterError]:
        """Load runs, without those that the target says it holds. For each its outcome, or what failed of it alone."""
        found = settled_each(self._held_or_coming, runs)
        written = iter(self._written([one.to_write for one in found if isinstance(one, _Coming)]))
        return [
            self._loaded(run, one, next(written)) if isinstance(one, _Coming) else one
            for run, one in zip(runs, found, strict=True)
        ]

    def _written(self, runs: list[ToWrite]) -> list[Written | AdapterError]:
        if len(runs) == 1:
            return [settled(self._target.write_run, *runs[0])]
        return self._target.write_together(runs) if runs else []

    def _held_or_coming(self, run: RunRef) -> RunOutcome | _Coming:
        """The outcome of a run that the target holds already, or what is to be written. Raises TargetConflict."""
        digest = self._digest(run)
        found = self._target.find_run(migration_key(run))
        if found is not None and found.state == "complete":
            if found.digest == digest or self._task.load.on_existing == "skip":
                return self._skipped(run, found, digest)
            if self._task.load.on_existing == "fail":
                raise TargetConflict(
                    f"the target holds this run as {found.id}, loaded whole but with other content",
                    run=run.label,
                    hint="--on-existing replace writes it anew, merge brings what is new, skip leaves it",
                )
            if self._task.load.on_existing == "replace":
                replaced = Finding("note", "replaced", detail=f"{found.id} had other content (--on-existing replace)")
                return self._coming(run, digest, self._parent(run), [replaced])
        return self._coming(run, digest, self._parent(run))

    def _loaded(self, run: RunRef, coming: _Coming, written: Written | AdapterError) -> RunOutcome | AdapterError:
        if isinstance(written, AdapterError):
            return written
        findings = [*coming.notes, *coming.stream.findings, *written.findings]
        failure = lost_values(findings) or self._without_parent(run, coming.parent)
        logs.get_logger().info(Event.RUN_ENDED, run=run.id, target=written.id)
        return RunOutcome(
            run=run,
            state="failed" if failure else "done",
            target_id=written.id,
            digest=coming.to_write.digest,
            counters=coming.stream.counters,
            findings=findings,
            failure=failure,
            name_changes=written.name_changes,
        )

    def _coming(self, run: RunRef, digest: str, parent: _Parent, notes: Sequence[Finding] = ()) -> _Coming:
        files = files_of(self._task.archive, run.project, _scratch(self._task))
        stream = _Stream(self._archive.read(run, self._want, proven=files), self._progress)
        return _Coming(stream, ToWrite(migration_key(run), digest, iter(stream), files, parent.id), parent, notes)

    def _skipped(self, run: RunRef, found: TargetRun, digest: str) -> RunOutcome:
        parent = self._parent(run) if found.digest == digest else _Parent()
        if parent.id is not None:  # it may have come later: link it
            self._target.write_run(*self._coming(run, digest, parent).to_write)
        logs.get_logger().info(Event.RUN_SKIPPED, run=run.id, target=found.id)
        other = Finding("note", "other-content-kept", detail=f"{found.id} was left as it is (--on-existing skip)")
        findings = [] if found.digest == digest else [other]
        failure = self._without_parent(run, parent) if found.digest == digest else None
        return RunOutcome(
            run=run,
            state="failed" if failure else "skipped",
            target_id=found.id,
            digest=found.digest,
            findings=findings,
            failure=failure,
        )

    def _digest(self, run: RunRef) -> str:
        """Digest of what is to be loaded: from the receipt where all fields are selected, else by reading."""
        receipt = self._archive.receipt(run)
        if receipt is not None and Matcher(self._task.selection).takes_every_field:
            return receipt.digest
        whole = RunDigest()
        for piece in self._archive.read(run, self._want):
            whole.add(piece.chunk)
        return whole.digest()

    def _parent(self, run: RunRef) -> _Parent:
        if (parent := run.parent_ref) is None:
            return _Parent()
        known = self._task.parents.get(parent.id) if parent.project == run.project else None
        if known:
            return _Parent(known)
        found = self._target.find_run(migration_key(parent))
        is_missing = known == "" and (found is None or found.state != "complete")
        return _Parent(found.id if found is not None else None, is_missing)

    def _without_parent(self, run: RunRef, parent: _Parent) -> Failure | None:
        """Why a run that arrived is to be loaded again: its parent did not, or only after it was written. When it has, the
        run is found there, and linked."""
        if not parent.is_missing or run.parent_ref is None:
            return None
        message = f"its parent {run.parent_ref.label} did not arrive: the run is there, without a link to it"
        return Failure("ParentMissing", "permanent", message, run.label, hint="retry the parent, and this run with it")


class _Parent(NamedTuple):
    """What a run's parent is in the target. is_missing: it is of this plan (`Task.parents` has "" for it), and was not
    there, or not whole, when the run was written."""

    id: TargetRunId | None = None
    is_missing: bool = False


class _Stream:
    """The chunks of a run on their way, counted; what End found is kept for the outcome."""

    def __init__(self, pieces: Iterator[Piece], progress: ProgressFile) -> None:
        self._pieces = pieces
        self._progress = progress
        self._counters = Counters()
        self._fields: set[tuple[str, str]] = set()
        self.findings: list[Finding] = []

    def __iter__(self) -> Iterator[Chunk]:
        for piece in self._pieces:
            counted = count(piece.chunk)
            self._counters += counted
            self._fields |= fields_of(piece.chunk)
            self._progress.add(counted)
            if isinstance(piece.chunk, End):
                self.findings = piece.chunk.findings
            yield piece.chunk

    @property
    def counters(self) -> Counters:
        """What passed: fields of every type, each once."""
        return msgspec.structs.replace(self._counters, fields=len(self._fields))


class _Coming(NamedTuple):
    """A run on its way into the target."""

    stream: _Stream
    to_write: ToWrite
    parent: _Parent
    notes: Sequence[Finding]
