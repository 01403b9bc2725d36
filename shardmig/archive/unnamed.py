"""Files that an earlier version of a run left in the archive, and that no row of it names any more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from shardmig.archive.layout import disk_errors, project_folder, sanitize
from shardmig.archive.places import root_of
from shardmig.archive.published import PublishedRun, filled_columns
from shardmig.archive.store import ObjectPath
from shardmig.records import ArchivePaths, RunRef

_OURS: Final = re.compile(r"~[0-9a-f]{16}(\.tar)?(\.[A-Za-z0-9]{1,16})?(\.tmp)?$")
"""How the names end that `files` gives, and no others: what somebody else put there stays."""


def drop_unnamed(archive: ArchivePaths, run: RunRef, named: Collection[str]) -> None:
    """Remove the files and trees of a run but those `named`, as rows name them: of an earlier version, or of an attempt
    that was killed. Only what shardmig wrote."""
    root = root_of(archive.files)
    top = ("" if run.scope == "runs" else f"{run.scope}/") + sanitize(run.id)
    kept = {name.replace("\\", "/") for name in named}
    if isinstance(root, ObjectPath):
        bucket = project_folder(root, run.project)
        for found in list((bucket / top).below()):
            stored = _stored(found.relative_to(bucket))
            if stored and stored not in kept:
                found.unlink()
        return
    folder = project_folder(root, run.project)
    with disk_errors(f"earlier files of {run.label}"):
        for path in list(_ours(folder / top)):
            if path.relative_to(folder).as_posix() in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def named_files(published: PublishedRun) -> set[str]:
    """The files and trees that the rows of a run name."""
    return {
        name
        for part in published.parts
        for batch in published.batches(part, _has_files, ("file_value",))
        for name in batch.column("file_value").field("path").to_pylist()
        if name
    }


def _has_files(row_group: Any) -> bool:
    return "file_value" in filled_columns(row_group)


def _ours(folder: Path) -> Iterator[Path]:
    """The files and trees that shardmig stored in a folder, at any depth. What a tree holds is not looked at."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _OURS.search(path.name):
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _ours(path)


def _stored(key: str) -> str:
    """The name of the file, or of the tree, that an object below a project belongs to; "" if it is not ours."""
    parts = PurePosixPath(key).parts
    depth = next((index for index, part in enumerate(parts, 1) if _OURS.search(part)), 0)
    return "/".join(parts[:depth])
