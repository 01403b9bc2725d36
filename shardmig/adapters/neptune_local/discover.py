"""What Neptune data lies below a path: 1.x container folders and neptune-scale databases, grouped into runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from shardmig.adapters.neptune_local.log2 import data_files, is_data_file
from shardmig.records import Scope

SQLITE_SUFFIX: Final = ".sqlite3"
_PASSED_OVER: Final = frozenset({".git", "node_modules", "__pycache__", "upload_path"})
_MODES: Final = ("offline", "async", "sync")
_SCOPES: Final[dict[str, Scope]] = {"model": "models", "model_version": "model_versions"}
_TIME: Final = re.compile(rb'"ts": (-?[0-9][0-9.eE+-]*)')


class Locator(msgspec.Struct, frozen=True):
    """Where a run lies: its container folders, or its databases (absolute paths, in order)."""

    generation: Literal["1.x", "scale"]
    paths: tuple[str, ...]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a container folder from its name and its metadata.json (clients from about 1.8.3)."""

    container_id: str
    container_type: str
    mode: str
    client_version: str = ""
    created_ms: int | None = None

    @property
    def scope(self) -> Scope:
        """A project's own container has no scope of its own: it is moved as a run."""
        return _SCOPES.get(self.container_type, "runs")


class Found(NamedTuple):
    """Container folders by (type, uuid), all files that may be databases, and folders that cannot be looked into."""

    containers: dict[tuple[str, str], list[Path]]
    databases: list[Path]
    unreadable: list[Path]


def search(paths: tuple[Path, ...]) -> Found:
    """Walk the paths in stable order. Links are not followed, except the paths themselves."""
    containers: dict[tuple[str, str], list[Path]] = {}
    databases: dict[Path, None] = {}
    unreadable: list[Path] = []
    for root in paths:
        for path in _walk(root, unreadable):
            if path.suffix == SQLITE_SUFFIX or path.is_file():
                databases.setdefault(path.resolve())
            else:
                folder = path.resolve()
                metadata = read_metadata(folder)
                folders = containers.setdefault((metadata.container_type, metadata.container_id), [])
                if folder not in folders:
                    folders.append(folder)
    for folders in containers.values():
        folders.sort()
    return Found(dict(sorted(containers.items())), sorted(databases), sorted(set(unreadable)))


def read_metadata(folder: Path) -> Metadata:
    """metadata.json where there is one, else what the folder's name says: `<type>__<uuid>[__<pid>__<random>]`, or
    `<uuid>` with the type in a file, or one of those with a folder for each process inside."""
    named = folder.parent if folder.name.startswith("exec-") else folder
    parts = named.name.split("__")
    type_file = named / "container_type"
    container_type = parts[0] if len(parts) > 1 else _text_of(type_file) or "run"
    mode = next((one for one in (named.parent.name, folder.parent.name) if one in _MODES), "offline")
    written = _json_of(folder / "metadata.json")
    created = written.get("createdAt")
    return Metadata(
        container_id=str(written.get("containerId") or (parts[1] if len(parts) > 1 else parts[0])),
        container_type=str(written.get("containerType") or container_type),
        mode=str(written.get("mode") or mode),
        client_version=str(written.get("neptuneClientVersion") or ""),
        created_ms=_iso_ms(created) if isinstance(created, str) else None,
    )


def first_time_ms(folder: Path) -> int | None:
    """When the log of a folder begins: `at` of its first record, else the smallest time of its points. Of a log that
    cannot be read, nobody can say: reading the run tells why."""
    smallest: float | None = None
    for line in chain.from_iterable(map(_lines, data_files(folder))):
        at = re.search(rb'"at": ([0-9][0-9.]*)\}\s*$', line) if smallest is None else None
        if at is not None:
            return int(float(at[1]) * 1000)
        for match in _TIME.finditer(line):
            seconds = float(match[1])
            smallest = seconds if smallest is None else min(smallest, seconds)
    return None if smallest is None else int(smallest * 1000)


def files_of(locator: Locator) -> Iterator[Path]:
    """Every file that belongs to a run, in stable order. Of a database in a folder of its own also what lies beside
    it; -shm is an index that readers rebuild, not content."""
    for text in locator.paths:
        path = Path(text)
        if os.path.isdir(path):  # False where it cannot be looked at, too
            folder = path
        elif path.parent.name != ".neptune" and path.name == f"run_operations{SQLITE_SUFFIX}":
            folder = path.parent
        else:
            yield from (one for one in (path, Path(f"{path}-wal"), Path(f"{path}-journal")) if os.path.exists(one))
            continue
        for place, folders, names in os.walk(folder):
            folders.sort()
            yield from (Path(place, name) for name in sorted(names) if not name.endswith("-shm"))


def fingerprint_and_weight(locator: Locator) -> tuple[str, int]:
    """A digest over names, sizes and times of change of all files; and an estimate of points plus bytes / 16. A file
    that is gone meanwhile (a client that still executes deletes what it has sent) or a link to nothing does not count."""
    digest = blake2b(digest_size=16)
    weight = 0
    for path in files_of(locator):
        try:
            stat = path.stat()
        except OSError:
            continue
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        is_log = path.name.startswith("data-") or SQLITE_SUFFIX in path.name
        weight += stat.st_size // (100 if is_log else 16)
    return digest.hexdigest(), max(1, weight)


def short_ids(container_ids: list[str]) -> dict[str, str]:
    """For each uuid its first 8 digits, or as many as tell it from every other."""
    ordered = sorted(set(container_ids))
    lengths = dict.fromkeys(ordered, 8)
    for one, other in pairwise(ordered):
        same = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        lengths[one] = max(lengths[one], same + 1)
        lengths[other] = max(lengths[other], same + 1)
    return {one: one[: lengths[one]] for one in ordered}


def _walk(root: Path, unreadable: list[Path]) -> Iterator[Path]:
    """Container folders and sqlite files below root, depth first. Below a container folder too: what looks like one may
    be somebody's folder of logs that has the runs below it."""
    if os.path.isfile(root):
        yield root
        return
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        unreadable.append(root)
        return
    if any(is_data_file(entry.name) for entry in entries):
        yield root
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _PASSED_OVER:
                yield from _walk(Path(entry.path), unreadable)
        elif entry.name.endswith(SQLITE_SUFFIX):
            yield Path(entry.path)


def _lines(path: Path) -> Iterator[bytes]:
    with suppress(OSError), open(path, "rb") as file:
        yield from file


def _json_of(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _iso_ms(text: str) -> int | None:
    """Without a zone it is UTC: so clients before 1.9 wrote it."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
