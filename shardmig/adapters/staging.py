"""Folders for what lies on the disk for a while: gone at their end, or, where their process was killed, when the next one of
this computer and user begins to stage."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from shardmig.archive.layout import disk_errors

_LOCK: Final = ".lock"


@contextmanager
def staging_folder() -> Iterator[Path]:
    """An empty folder below the temporary one, gone at the end. Raises DiskFull."""
    root = tempfile.gettempdir()
    _remove_left_behind(root)
    with disk_errors("a folder for temporary files"):
        own = Path(tempfile.mkdtemp(prefix="shardmig-"))
        lock = os.open(own / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = own.rename(Path(root, _prefix() + own.name))  # never seen under this name without its lock
        folder = held / "staged"
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(held, ignore_errors=True)
        os.close(lock)


@contextmanager
def emptied(folder: Path, what: str) -> Iterator[Path]:
    """This folder, empty, and gone at the end: what a killed process left in it goes. `what`: words for it. Raises DiskFull."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with disk_errors(what):
            folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _remove_left_behind(root: str) -> None:
    """Remove what killed processes left: the lock of a folder dies with its process."""
    for folder in Path(root).glob(_prefix() + "*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:  # another one removes it, or it is not ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # at work
            continue
        finally:
            os.close(lock)


def _prefix() -> str:
    return f"shardmig-staging-{os.getuid()}-"
