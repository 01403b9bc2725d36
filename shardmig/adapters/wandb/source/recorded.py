"""Runs in folders: transaction logs and the files beside them, synced or never synced."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from shardmig.adapters.wandb.folder import FolderRun, file_in
from shardmig.adapters.wandb.naming import BLOCK
from shardmig.adapters.wandb.runlog import RunLog, Tree, row_of, update
from shardmig.adapters.wandb.scan import Row
from shardmig.adapters.wandb.source.foreign import Artifact, Aside, RunInfo
from shardmig.adapters.wandb.source.own import DERIVED, Own
from shardmig.adapters.wandb.source.staged import StagedArtifacts
from shardmig.archive.layout import disk_errors
from shardmig.errors import BadInput, NotFound
from shardmig.records import Finding

_STREAMS: Final = {0: "stderr", 1: "stdout"}
_TOLD_AGAIN: Final = ("display_name", "notes", "run_group", "job_type", "sweep_id")


class RecordedRun:
    """One run as ForeignRun: its logs in order of their start. A run that was resumed has several."""

    def __init__(self, logs: list[Path]) -> None:
        self._logs = [RunLog(path) for path in logs]

    @property
    def path(self) -> Path:
        """Its first log."""
        return self._logs[0].path

    def info(self) -> RunInfo:
        """As ForeignRun."""
        ends = self._seen
        run, code = ends.run, ends.exit_code
        if run is None:
            raise BadInput(f"{self.path} names no run: its writer was stopped before it had begun")
        return RunInfo(
            id=run.run_id,
            entity=run.entity,
            project=run.project,
            name=run.display_name,
            group=run.run_group,
            job_type=run.job_type,
            notes=run.notes,
            host=run.host,
            tags=list(run.tags),
            sweep=run.sweep_id,
            state="crashed" if code is None else "failed" if code else "finished",
            created_ms=run.start_time.ToMilliseconds() if run.HasField("start_time") else None,
            runtime_s=float(ends.runtime_s) if ends.runtime_s else None,
            parent=run.branch_point.run,
            fork_step=run.branch_point.value if run.branch_point.run else None,
            commit=run.git.commit,
            remote=run.git.remote_url,
            used=sorted(ends.used),
        )

    def config(self) -> dict[str, Any]:
        """As ForeignRun."""
        return dict(self._seen.config)

    def summary(self) -> dict[str, Any]:
        """As ForeignRun."""
        return dict(self._seen.summary)

    def rows(self, aside: Aside) -> Iterator[Row]:
        """As ForeignRun."""
        for log in self._logs:
            for record in log.records():
                kind = record.WhichOneof("record_type")
                if kind == "history":
                    yield row_of(record.history)
                elif kind == "stats":
                    time_ms = record.stats.timestamp.ToMilliseconds()
                    for item in record.stats.item:
                        aside.stat(time_ms, item.key, item.value_json)
                elif kind in ("output_raw", "output"):
                    output = getattr(record, kind)
                    stream = _STREAMS.get(output.output_type, "stdout")
                    aside.line(stream, output.timestamp.ToMilliseconds(), output.line)

    def files(self) -> list[str]:
        """As ForeignRun."""
        return sorted({path for root in self._roots for path in _files_below(root)})

    def get(self, path: str, file: Path) -> None:
        """As ForeignRun: of several logs the latest one that has it."""
        for log in reversed(self._logs):
            place = file_in(log.path.parent, path)
            if place.is_file():
                _copy(place, file)
                return
        raise NotFound(f"run file {path} does not exist")

    def artifacts(self) -> Iterator[Artifact]:
        """As ForeignRun."""
        return self._seen.artifacts.all()

    def member(self, address: str, file: Path) -> None:
        """As ForeignRun: `address` is a path of this computer, made when the run was."""
        if not address or not Path(address).is_file():
            raise NotFound("the artifact's file is not on this computer")
        _copy(Path(address), file)

    def findings(self) -> list[Finding]:
        """As ForeignRun."""
        findings = []
        for log in self._logs:
            name = log.path.name
            if log.damaged:
                findings.append(Finding("gap", "damaged-records", "", log.damaged, detail=name))
            if log.unknown:
                findings.append(Finding("loss", "unknown-record", "", log.unknown, detail=name))
            if log.is_cut:
                findings.append(Finding("gap", "cut-record", detail=f"{name}: the writer was stopped"))
        return findings

    @cached_property
    def _seen(self) -> _Ends:
        ends = _Ends()
        for log in self._logs:
            for record in log.records():
                ends.see(record)
        return ends

    @property
    def _roots(self) -> list[Path]:
        return [folder for log in self._logs if (folder := log.path.parent / "files").is_dir()]


class OtherLogs(RecordedRun):
    """What others wrote of a run that shardmig brought: their logs, and run files that are not its own."""

    def __init__(self, brought: FolderRun, own: Own) -> None:
        super().__init__(list(brought.others))
        self._brought = brought
        self._own = own

    def info(self) -> RunInfo:
        """As ForeignRun: what their logs do not say is as shardmig told it."""
        facts = self._own.facts
        told = RunInfo(id=self._brought.id, entity="", project="", state=facts.state)
        told = super().info() if self._logs else told
        return msgspec.structs.replace(
            told,
            name=told.name or facts.name,
            group=told.group or facts.group,
            notes=told.notes or facts.notes,
            tags=told.tags or facts.tags,
            job_type=told.job_type or self._own.job_type or "",
        )

    def config(self) -> dict[str, Any]:
        """As ForeignRun: what is not as shardmig wrote it."""
        held = self._own.values
        tree = {key: value for key, value in super().config().items() if key != BLOCK}
        return {key: value for key, value in tree.items() if key not in held or not _is_same(value, held[key])}

    def files(self) -> list[str]:
        """As ForeignRun."""
        theirs = [path for path in super().files() if path not in DERIVED]
        beside = [path for path in _files_below(self._brought.folder / "files") if not self._own.has_file(path)]
        return sorted({*theirs, *beside})

    def get(self, path: str, file: Path) -> None:
        """As ForeignRun."""
        try:
            super().get(path, file)
        except NotFound:
            self._brought.get(path, file)

    @property
    def _roots(self) -> list[Path]:
        return [root for root in super()._roots if root != self._brought.folder / "files"]


class _Ends:
    """What stands anywhere in a log and counts when all is read."""

    def __init__(self) -> None:
        self.config: Tree = {}
        self.summary: Tree = {}
        self.exit_code: int | None = None
        self.runtime_s = 0
        self.artifacts = StagedArtifacts()
        self.used: set[str] = set()
        self.run: Any = None

    def see(self, record: Any) -> None:
        """Take what counts out of a record."""
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self._see_run(record.run)
            update(self.config, record.run.config)
            update(self.summary, record.run.summary)
            self.exit_code = None  # a run that goes on has not ended
        elif kind == "config":
            update(self.config, record.config)
        elif kind == "summary":
            update(self.summary, record.summary)
        elif kind == "exit":
            self.exit_code, self.runtime_s = record.exit.exit_code, record.exit.runtime
        elif kind == "artifact":
            self.artifacts.see(record.artifact)
        elif kind == "use_artifact":
            self.used.add(record.use_artifact.name or record.use_artifact.id)

    def _see_run(self, run: Any) -> None:
        """The client tells the run again when its name, notes or tags are set, and when it is resumed. What it does not
        name then stays as it was."""
        if self.run is None:
            self.run = run
            return
        for name in _TOLD_AGAIN:
            if text := getattr(run, name):
                setattr(self.run, name, text)
        if run.tags:
            del self.run.tags[:]
            self.run.tags.extend(run.tags)


def _files_below(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root, onerror=_refused):
        yield from (Path(folder, name).relative_to(root).as_posix() for name in names)


def _is_same(value: object, other: object) -> bool:
    return json.dumps(value) == json.dumps(other)


def _refused(error: OSError) -> None:
    raise BadInput(f"the run files below {error.filename} cannot be listed: {error.strerror}") from error


def _copy(place: Path, file: Path) -> None:
    with disk_errors(f"a copy of {place.name}"):
        shutil.copyfile(place, file)
