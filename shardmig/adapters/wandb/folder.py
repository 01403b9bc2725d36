"""Run folders on a disk: `<folder>/offline-run-<id>/run-<id>.wandb` and `files/` beside it, as `wandb sync` takes them.

A run that is not whole lies in `partial-run-<id>`, and one that is being written in `.writing-…`: neither begins like a
run that `wandb sync` sends.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from shardmig.adapters.staging import emptied
from shardmig.adapters.wandb.facts import Block, HeldFacts
from shardmig.adapters.wandb.log import LogWriter
from shardmig.adapters.wandb.naming import BLOCK
from shardmig.adapters.wandb.runlog import RunLog, parsed, update
from shardmig.adapters.wandb.scan import Row
from shardmig.adapters.wandb.stored import Staged, StoredRun
from shardmig.archive.layout import disk_errors, sync_file, sync_folder
from shardmig.errors import BadInput, HostilePath, NotFound, TargetConflict
from shardmig.records import MigrationKey, TargetRunId

WHOLE: Final = "offline-run-"
PARTIAL: Final = "partial-run-"
WRITING: Final = ".writing-"
_REPLACED: Final = "-replaced"


class FolderRun:
    """A run folder as StoredRun. `log`: its log; None: the one that lies there."""

    superseded: Sequence[TargetRunId] = ()
    others: Sequence[Path] = ()
    """Further logs of the run, which something else wrote, in order of their start."""

    def __init__(self, folder: Path, run_id: TargetRunId, log: Path | None = None) -> None:
        self.id = run_id
        self.folder = folder
        self.log = RunLog(log or log_of(folder))

    @cached_property
    def _run(self) -> Any:
        return self._read()

    @cached_property
    def block(self) -> Block | None:
        """As StoredRun. The rest of the run is let go of: who lists a folder holds all of its runs."""
        text = next((item.value_json for item in self._read().config.update if item.key == BLOCK), None)
        return None if text is None else block_of(parsed(text), self.id)

    def config(self) -> dict[str, Any]:
        """As StoredRun."""
        tree: dict[str, Any] = {}
        update(tree, self._run.config)
        return tree

    def rows(self) -> Iterator[Row]:
        """As StoredRun."""
        return self.log.rows()

    def facts(self) -> HeldFacts:
        """As StoredRun."""
        code = self.log.exit_code()
        return HeldFacts(
            name=self._run.display_name,
            project=self._run.project,
            state="" if code is None else "failed" if code else "finished",
            group=self._run.run_group,
            notes=self._run.notes,
            job_type=self._run.job_type,
            tags=sorted(self._run.tags),
        )

    def _read(self) -> Any:
        run = self.log.run()
        if run is None:
            raise BadInput(f"{self.log.path} holds no run", run=self.id)
        return run

    def get(self, path: str, file: Path) -> None:
        """As StoredRun."""
        with disk_errors(f"run file {path}"):
            try:
                shutil.copyfile(file_in(self.folder, path), file)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise NotFound(f"run file {path} does not exist") from error


class FolderStore:
    """Run folders below one folder, as RunStore."""

    marks_later: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: MigrationKey) -> StoredRun | None:
        """As RunStore: the key is the run id."""
        for kind in (WHOLE, PARTIAL):
            folder = self._root / f"{kind}{key}"
            if folder.is_dir():
                return FolderRun(folder, TargetRunId(key))
        return None

    def get(self, run_id: TargetRunId) -> StoredRun:
        """As RunStore."""
        found = self.find(MigrationKey(run_id)) if run_id.isalnum() else None
        if found is None:
            raise NotFound(f"{self._root} holds no run {run_id}")
        return found

    def new_id(self, block: Block, entity: str, project: str) -> str:  # noqa: ARG002 (a server needs them)
        """As RunStore. Raises TargetConflict for a run that was sent: a sync of another one with its id would append to it."""
        sent = next((self._root / f"{WHOLE}{block.key}").glob("*.synced"), None)
        if sent is not None:
            hint = "load into another folder and project; or, if it was never sent, remove that file and load again"
            raise TargetConflict(f"the run that is to be replaced was sent to W&B already: {sent}", hint=hint)
        return block.key

    def publish(self, staged: Staged, block: Block) -> TargetRunId:
        """As RunStore: by rename, and what was there before is removed afterwards."""
        folder, run_id = staged.folder, staged.run_id
        with disk_errors(f"run folder of {run_id}"):
            for path in folder.rglob("*"):
                (sync_folder if path.is_dir() else sync_file)(path)
            aside = self._root / f"{WRITING}{run_id}{_REPLACED}"
            shutil.rmtree(self._root / f"{PARTIAL}{run_id}", ignore_errors=True)
            if block.is_complete and (old := self._root / f"{WHOLE}{run_id}").is_dir():
                old.rename(aside)
            folder.rename(self._root / f"{WHOLE if block.is_complete else PARTIAL}{run_id}")
            sync_folder(self._root)
            shutil.rmtree(aside, ignore_errors=True)
        return TargetRunId(run_id)

    def set_parent(self, run: StoredRun, parent: TargetRunId) -> None:
        """As RunStore: the log is written again with another block. Raises BadInput for a damaged one: written again, nothing
        would tell that something is missing."""
        assert isinstance(run, FolderRun)
        path, new = run.log.path, run.log.path.with_suffix(".new")
        try:
            with disk_errors(f"the log of {run.id}"):
                with new.open("wb") as file:
                    LogWriter(file).add_all(_with_parent(run.log, parent))
                    file.flush()
                    os.fsync(file.fileno())
                new.rename(path)
                sync_folder(path.parent)
        finally:
            new.unlink(missing_ok=True)

    def discard(self, run_id: TargetRunId) -> None:
        """As RunStore."""
        if run_id.isalnum():
            with disk_errors(f"run folder of {run_id}"):
                for kind in (WHOLE, PARTIAL):
                    shutil.rmtree(self._root / f"{kind}{run_id}", ignore_errors=True)

    def url(self, run_id: TargetRunId) -> str:  # noqa: ARG002 (it is nowhere to be seen)
        """As RunStore."""
        return ""

    def staging(self, run_id: str) -> AbstractContextManager[Path]:
        """As RunStore. What a killed worker left there goes."""
        shutil.rmtree(self._root / f"{WRITING}{run_id}{_REPLACED}", ignore_errors=True)
        return emptied(self._root / f"{WRITING}{run_id}", "the folder for run folders")

    def close(self) -> None:
        """As RunStore."""


def log_of(folder: Path) -> Path:
    """The log in a run folder. Raises NotFound."""
    found = sorted(folder.glob("*.wandb"))
    if not found:
        raise NotFound(f"{folder} holds no .wandb file")
    return found[0]


def file_in(folder: Path, path: str) -> Path:
    """Where a run file lies. Raises HostilePath: a manifest lies where others may write."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise HostilePath(f"the path {path!r} of a run file leads out of its run")
    return folder / "files" / path


def block_of(value: object, run_id: str) -> Block | None:
    """The block of the config of a run; None: it is none, or that of another run, whose config people gave to this one."""
    try:
        block = msgspec.convert(value, Block)
    except msgspec.ValidationError:
        return None
    return block if run_id.partition("-")[0] == block.key else None


def _with_parent(log: RunLog, parent: TargetRunId) -> Iterator[bytes]:
    for record in log.records():
        if record.WhichOneof("record_type") == "run":
            for item in record.run.config.update:
                block = block_of(parsed(item.value_json), record.run.run_id) if item.key == BLOCK else None
                if block is not None:
                    item.value_json = msgspec.json.encode(msgspec.structs.replace(block, parent=parent)).decode()
        yield record.SerializeToString()
    if log.is_damaged:
        raise BadInput(f"{log.path} is damaged", hint="remove its folder and load it again")
