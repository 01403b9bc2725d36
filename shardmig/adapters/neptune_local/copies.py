"""Copies of a folder or a database below the same path, such as backups: what stands in both was logged once.

Processes that log to one run have folders and databases of their own, which begin at times of their own. A copy has the
same name, and every record of it stands in the other one too, which may have gone on since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shardmig.adapters.neptune_local.database3 import rows
from shardmig.adapters.neptune_local.log2 import data_files

_BLOCK_BYTES: Final = 1 << 20


def copied_folders(folders: Sequence[Path]) -> dict[Path, Path]:
    """Folders of 1.x whose log is the beginning of another one's: the copy, and what it is a copy of."""
    sizes = {folder: sum(path.stat().st_size for path in data_files(folder)) for folder in folders}
    kept: list[Path] = []
    copies: dict[Path, Path] = {}
    for folder in sorted(folders, key=lambda one: (-sizes[one], one)):
        original = next((one for one in kept if one.name == folder.name and _log_begins(one, folder)), None)
        if original is None:
            kept.append(folder)
        else:
            copies[folder] = original
    return copies


def copied_databases(paths: Sequence[Path], connections: Sequence[sqlite3.Connection]) -> dict[int, int]:
    """Databases of neptune-scale all of whose operations another one has: the copy, and what it is a copy of, by number."""
    counts = [one.execute("SELECT count(*) FROM run_operations").fetchone()[0] for one in connections]
    kept: list[int] = []
    copies: dict[int, int] = {}
    for number in sorted(range(len(paths)), key=lambda one: (-counts[one], one)):
        same = [one for one in kept if _own_name(paths[one]) == _own_name(paths[number])]
        original = next((one for one in same if _holds_all(connections[one], connections[number])), None)
        if original is None or not counts[number]:
            kept.append(number)
        else:
            copies[number] = original
    return copies


def _log_begins(whole: Path, part: Path) -> bool:
    files = data_files(part)
    return bool(files) and all(_begins(whole / path.name, path) for path in files)


def _begins(whole: Path, part: Path) -> bool:
    if not whole.is_file():
        return False
    with open(whole, "rb") as one, open(part, "rb") as other:
        while block := other.read(_BLOCK_BYTES):
            if one.read(len(block)) != block:
                return False
    return True


def _own_name(path: Path) -> str:
    """Of the folder that the client made for it, if it did."""
    return path.parent.name if path.stem == "run_operations" else path.name


def _holds_all(whole: sqlite3.Connection, part: sqlite3.Connection) -> bool:
    known = rows(whole, 0, 0)
    return all(row == next((one for one in known if one[2] >= row[2]), None) for row in rows(part, 0, 0))
