"""Runs in folders: transaction logs and the files beside them, synced or never synced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from shardmig.adapters.wandb.folder import FolderRun, file_in
from shardmig.adapters.wandb.runlog import RunLog, Tree, row_of, update
from shardmig.adapters.wandb.scan import Row
from shardmig.adapters.wandb.source.foreign import Artifact, Aside, RunInfo
from shardmig.archive.layout import disk_errors
from shardmig.errors import BadInput, NotFound
from shardmig.records import Finding, TargetRunId

_STREAMS: Final = {0: "stderr", 1: "stdout"}


def logs_below(paths: list[Path]) -> Iterator[Path]:
    """Every `.wandb` file of these files and folders, each once, in order of names."""
    seen: set[Path] = set()
    for path in paths:
        found = [path] if path.is_file() else sorted(path.rglob("*.wandb"))
        for log in found:
            if log.is_file() and (real := log.resolve()) not in seen:
                seen.add(real)
                yield log


class RecordedRun:
    """One run as ForeignRun: its logs in order of their start. A run that was resumed has several."""

    def __init__(self, logs: list[Path]) -> None:
        self._logs = [RunLog(path) for path in logs]
        self._ends: _Ends = _Ends()

    @property
    def path(self) -> Path:
        """Its first log."""
        return self._logs[0].path

    @cached_property
    def _first(self) -> Any:
        run = self._logs[0].run()
        if run is None:
            raise BadInput(f"{self.path} names no run: its writer was stopped before it had begun")
        return run

    def info(self) -> RunInfo:
        """As ForeignRun."""
        run, ends = self._first, self._seen
        code = ends.exit_code
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
        found: set[str] = set()
        for root in self._roots:
            for folder, _, names in os.walk(root):
                found.update(Path(folder, name).relative_to(root).as_posix() for name in names)
        return sorted(found)

    def get(self, path: str, file: Path) -> None:
        """As ForeignRun: of several logs the latest one that has it."""
        for log in reversed(self._logs):
            place = file_in(log.path.parent, path)
            if place.is_file():
                _copy(place, file)
                return
        raise NotFound(f"run file {path} does not exist")

    def artifacts(self) -> Iterator[Artifact]:
        """As ForeignRun: of several versions in one log the last one."""
        yield from self._seen.artifacts.values()

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


class _Ends:
    """What stands anywhere in a log and counts when all is read."""

    def __init__(self) -> None:
        self.config: Tree = {}
        self.summary: Tree = {}
        self.exit_code: int | None = None
        self.runtime_s = 0
        self.artifacts: dict[str, Artifact] = {}

    def see(self, record: Any) -> None:
        """Take what counts out of a record."""
        kind = record.WhichOneof("record_type")
        if kind == "run":
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
            self._see_artifact(record.artifact)

    def _see_artifact(self, artifact: Any) -> None:
        members = [(entry.path, entry.local_path) for entry in artifact.manifest.contents]
        self.artifacts[artifact.name] = Artifact(
            name=artifact.name, type=artifact.type, members=sorted(members), description=artifact.description
        )


def recorded_runs(paths: list[Path]) -> Iterator[tuple[RecordedRun | FolderRun, Any]]:
    """Every run below these paths with its first run record, in order of (entity, project, id). One that shardmig wrote
    is given as what it wrote. A log that names no run is one with None: reading it fails, and says so."""
    found: dict[tuple[str, str, str], list[tuple[int, Path, Any]]] = {}
    for path in logs_below(paths):
        run = _head_of(path)
        key = ("", "", run_id_of(path)) if run is None else (run.entity, run.project, run.run_id)
        started = 0 if run is None else run.start_time.ToMilliseconds()
        found.setdefault(key, []).append((started, path, run))
    for key in sorted(found):
        logs = sorted(found[key], key=lambda one: one[:2])
        folder = FolderRun(logs[-1][1].parent, TargetRunId(key[2]))
        is_ours = len(logs) == 1 and logs[0][2] is not None and folder.block is not None
        yield folder if is_ours else RecordedRun([path for _, path, _ in logs]), logs[0][2]


def run_id_of(path: Path) -> str:
    """The run id in the name of a log."""
    return path.stem.removeprefix("run-")


def _head_of(path: Path) -> Any:
    try:
        return RunLog(path).run()
    except BadInput:
        return None


def _copy(place: Path, file: Path) -> None:
    with disk_errors(f"a copy of {place.name}"):
        shutil.copyfile(place, file)
