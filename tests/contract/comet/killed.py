"""Writes one run into folders of offline archives, each by a process that is killed at another step on the disk.

    python killed.py FOLDER POINTS

Prints how many steps there are; FOLDER/<step> is what the process that was killed there left behind.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from shardmig.adapters.base import migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.conformance.runs import rich_run
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Header, LoadOptions, ProjectId

DIGEST = "d" * 32
LOAD = LoadOptions(step_multiplier=100)
_STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def options(folder: Path) -> dict[str, str]:
    """Several archives a run."""
    return {"offline-dir": str(folder), "points-per-upload": "500"}


def files_in(folder: Path) -> ArchiveFiles:
    """Where the files of the run lie."""
    return ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), ProjectId("ws/rich"))


def write(folder: Path, files: ArchiveFiles, chunks: list[Any]) -> None:
    """The run, undisturbed."""
    assert isinstance(chunks[0], Header)
    open_target(options(folder), LOAD).write_run(migration_key(chunks[0].run), DIGEST, iter(chunks), files, None)


def main(folder: Path, points: int) -> None:
    files = files_in(folder / "archive")
    chunks = rich_run(files)
    counter, watched, last = itertools.count(), "", -1

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if watched and event in _STEPS and watched in str(arguments[0]) and next(counter) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    watched = str(folder / "whole")
    write(folder / "whole", files, chunks)
    steps = next(counter)
    print(steps)
    for last in range(0, steps, max(1, steps // points)):
        if (child := os.fork()) == 0:
            counter, watched = itertools.count(), str(folder / str(last))
            write(folder / str(last), files, chunks)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
