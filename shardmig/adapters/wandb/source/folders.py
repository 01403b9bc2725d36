"""Runs in folders, as catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

from shardmig.adapters.sidecar.reading import beside_original
from shardmig.adapters.wandb.facts import Block
from shardmig.adapters.wandb.folder import FolderRun
from shardmig.adapters.wandb.source.foreign import Brought, ForeignRun
from shardmig.adapters.wandb.source.logs import Log, brought, logs_by_run, run_id_of
from shardmig.adapters.wandb.source.recorded import OtherLogs, RecordedRun
from shardmig.errors import NotFound
from shardmig.records import MigrationKey, ProjectId, RunId, RunRef, Scope


class Folders:
    """Every run below some paths. All heads are read once, at the first listing."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def projects(self) -> Iterator[ProjectId]:
        """As Catalogue."""
        return iter(sorted({ref.project for ref, _ in self._runs.values()}))

    def runs(self, project: ProjectId) -> Iterator[RunRef]:
        """As Catalogue."""
        return (ref for ref, _ in self._runs.values() if ref.project == project)

    def open(self, run: RunRef) -> Brought | ForeignRun:
        """As Catalogue."""
        found = self._runs.get(run.entity)
        if found is None:
            raise NotFound(f"there is no run {run.id} of {run.project} below the given paths")
        held = found[1]
        return held if isinstance(held, RecordedRun) else Brought(held, partial(OtherLogs, held))

    def close(self) -> None:
        """As Catalogue."""

    @cached_property
    def _runs(self) -> dict[tuple[ProjectId, Scope, RunId], tuple[RunRef, FolderRun | RecordedRun]]:
        found = [(brought(logs), logs) for logs in logs_by_run(self._paths)]
        blocks = {run.block.key: run.block for run, _ in found if run is not None and run.block is not None}
        refs: list[tuple[RunRef, FolderRun | RecordedRun]] = [
            (_foreign_ref(logs), RecordedRun([log.path for log in logs]))
            if run is None
            else (_brought_ref(run, blocks), run)
            for run, logs in found
        ]
        originals = {ref.entity for ref, run in refs if isinstance(run, RecordedRun)}
        told_apart = [
            (beside_original(ref, run.block.key, originals) if isinstance(run, FolderRun) and run.block else ref, run)
            for ref, run in refs
        ]
        ordered = sorted(
            told_apart,
            key=lambda one: (one[0].project, one[0].scope, one[0].created_ms or 0, one[0].id, _is_whole(one[1])),
        )
        return {(ref.project, ref.scope, ref.id): (ref, run) for ref, run in ordered}


def brought_ref(block: Block, parent: Block | None, *, locator: str, fingerprint: str) -> RunRef:
    """The original run of a block."""
    return RunRef(
        project=ProjectId(block.project),
        id=RunId(block.run_id),
        scope=block.scope,
        created_ms=block.start_ms,
        parent=RunId(parent.run_id) if parent else None,
        parent_project=ProjectId(parent.project) if parent and parent.project != block.project else None,
        locator=locator,
        fingerprint=fingerprint,
    )


def project_id(entity: str, project: str) -> ProjectId:
    """How a project of W&B is called here."""
    return ProjectId(f"{entity}/{project}" if entity else project or "uncategorized")


def _is_whole(run: FolderRun | RecordedRun) -> bool:
    return isinstance(run, FolderRun) and run.block is not None and run.block.is_complete


def _brought_ref(run: FolderRun, brought: dict[MigrationKey, Block]) -> RunRef:
    block = run.block
    assert block is not None
    parent = brought.get(MigrationKey(block.parent.rpartition("/")[2].partition("-")[0])) if block.parent else None
    fingerprint = " ".join([block.digest, *(str(log.stat().st_size) for log in run.others)])
    return brought_ref(block, parent, locator=str(run.folder), fingerprint=fingerprint)


def _foreign_ref(logs: list[Log]) -> RunRef:
    """A log only grows, and a run that is resumed gets another one: the sizes tell whether the run is what it was."""
    path, head = logs[0].path, logs[0].head
    fingerprint = " ".join(str(log.path.stat().st_size) for log in logs)
    if head is None:
        return RunRef(project=project_id("", ""), id=RunId(run_id_of(path)), locator=str(path), fingerprint=fingerprint)
    return RunRef(
        project=project_id(head.entity, head.project),
        id=RunId(head.run_id),
        created_ms=head.start_time.ToMilliseconds() if head.HasField("start_time") else None,
        parent=RunId(head.branch_point.run) if head.branch_point.run else None,
        locator=head.run_id,
        fingerprint=fingerprint,
    )
