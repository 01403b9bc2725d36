"""Artifacts that lie on this machine, from below one folder to below another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final

from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.archive.layout import disk_errors
from shardmig.errors import TargetConflict, UsageError

_THREADS: Final = 4
_BLOCK_BYTES: Final = 1 << 20


def copy_tree(old: str, new: str) -> tuple[int, int]:
    """Copy every file below `old` to the same place below `new`; how many and how many bytes. Files that are there
    already and are equal stay. Raises UsageError for what is not on this machine, TargetConflict for another file."""
    source, target = _folder(old), _folder(new)
    if not source.is_dir():
        raise UsageError(f"there is no folder {source}")
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = list(pool.map(lambda name: _copy(source / name, target / name), _names(source)))
    return len(sizes), sum(sizes)


def _folder(uri: str) -> Path:
    folder = on_this_machine(uri)
    if folder is None:
        raise UsageError(
            f"{uri} is not on this machine: --copy-artifacts copies folders",
            hint="copy it with the tools of its store and give only --artifact-root",
        )
    return folder


def _names(root: Path) -> Iterator[Path]:
    """Every file below, linked folders included. Raises UsageError for a folder that cannot be read, or leads back."""
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        for name in folders:
            if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(Path(folder, name))):
                raise UsageError(f"the folder {Path(folder, name)} is a link to one that it lies in", hint="remove it")
        yield from (Path(folder, name).relative_to(root) for name in files)


def _refuse(error: OSError) -> None:
    raise UsageError(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def _copy(source: Path, target: Path) -> int:
    with disk_errors(f"artifact {target}"):
        size_bytes = source.stat().st_size
        if target.exists():
            if target.stat().st_size != size_bytes or _digest(target) != _digest(source):
                raise TargetConflict(f"{target} is there already and is another file")
            return size_bytes
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f"{target.name}.shardmig-new")
        shutil.copyfile(source, staged)
        if _digest(staged) != _digest(source):
            raise TargetConflict(f"{source} changed while it was copied", hint="stop who writes to it")
        os.replace(staged, target)
        return size_bytes


def _digest(file: Path) -> bytes:
    digest = sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.digest()
