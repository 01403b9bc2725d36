"""Which logs lie below some paths, and which of them are one run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.adapters.wandb.folder import WRITING, FolderRun
from shardmig.adapters.wandb.runlog import RunLog
from shardmig.errors import BadInput
from shardmig.records import TargetRunId

_BLOCK: Final = 2**20
_Identity = tuple[str, str, str]


class Log(NamedTuple):
    """A log, when its run began, and its first run record, without config; None: it names no run."""

    started_ns: int
    path: Path
    head: Any


def logs_below(paths: list[Path]) -> Iterator[Path]:
    """Every `.wandb` file of these files and folders, each once, in order of names. A folder that cannot be looked into is
    given as if it were one: reading it fails, and says so. Not what a load has not finished writing."""
    seen: set[Path] = set()
    for path in paths:
        for log in [path] if path.is_file() else sorted(_below(path)):
            if (real := log.resolve()) not in seen:
                seen.add(real)
                yield log


def logs_by_run(paths: list[Path]) -> Iterator[list[Log]]:
    """The logs of each run in order of their start, in order of (entity, project, id). A run that was resumed has several.
    One that names no run is one of its own."""
    found: dict[_Identity, list[Log]] = {}
    for path in logs_below(paths):
        run = _head_of(path)
        key = ("", "", run_id_of(path)) if run is None else (run.entity, run.project, run.run_id)
        found.setdefault(key, []).append(Log(0 if run is None else run.start_time.ToNanoseconds(), path, run))
    _join_brought(found)
    for key in sorted(found):
        yield _without_copies(sorted(found[key], key=lambda log: log[:2]))


def brought(logs: list[Log]) -> FolderRun | None:
    """The run that shardmig wrote into one of these logs, with those of others beside it; None: it wrote none. Where a run
    was brought several times: a whole one, and of these the latest."""
    runs: list[tuple[bool, int, int, FolderRun]] = []
    others: list[Path] = []
    for log in logs:
        run = None if log.head is None else FolderRun(log.path.parent, TargetRunId(log.head.run_id), log.path)
        if run is None or run.block is None:
            others.append(log.path)
        else:
            runs.append((run.block.is_complete, log.path.stat().st_mtime_ns, len(runs), run))
    if not runs:
        return None
    chosen = max(runs)[-1]
    chosen.others = others
    return chosen


def run_id_of(path: Path) -> str:
    """The run id in the name of a log."""
    return path.stem.removeprefix("run-")


def _join_brought(found: dict[_Identity, list[Log]]) -> None:
    """Put logs of others to the run that shardmig brought: it may have left the entity to whoever sends the run."""
    for entity, project, run_id in sorted(found):
        own = ("", project, run_id)
        if entity and own in found and brought(found[own]) is not None:
            found[own] += found.pop((entity, project, run_id))


def _below(root: Path) -> Iterator[Path]:
    refused: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=lambda error: refused.append(Path(str(error.filename)))):
        folders[:] = [name for name in folders if not name.startswith(WRITING)]
        logs = (Path(folder, name) for name in names if name.endswith(".wandb"))
        yield from (log for log in logs if log.is_file())
    yield from refused


def _head_of(path: Path) -> Any:
    try:
        run = RunLog(path).run()
    except BadInput:
        return None
    if run is not None:
        run.ClearField("config")
    return run


def _without_copies(logs: list[Log]) -> list[Log]:
    """Of logs that began at one time and of which one is the beginning of the other, the longer one: people copy run folders,
    and each row counts once."""
    kept: list[Log] = []
    for log in logs:
        if kept and kept[-1].started_ns == log.started_ns and _are_copies(kept[-1].path, log.path):
            kept[-1] = max(kept[-1], log, key=lambda one: _size_of(one.path))
        else:
            kept.append(log)
    return kept


def _are_copies(one: Path, other: Path) -> bool:
    try:
        with one.open("rb") as first, other.open("rb") as second:
            blocks = zip_longest(iter(lambda: first.read(_BLOCK), b""), iter(lambda: second.read(_BLOCK), b""))
            return all(a is None or b is None or a.startswith(b) or b.startswith(a) for a, b in blocks)
    except OSError:
        return False


def _size_of(path: Path) -> int:
    return path.stat().st_size
