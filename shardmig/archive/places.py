"""Where an archive lies: on disk or in an object store, by the scheme of its path; and what both are asked alike."""

from __future__ import annotations

import hashlib
import os
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from shardmig.archive.store import ObjectPath
from shardmig.errors import MissingExtra, UsageError

_SCHEMES: Final = ("s3", "gs", "az")
_LOOKS_AT_ONCE: Final = 32
_DISK_BYTES: Final = 1 << 20
_UNSETTLED_NS: Final = 2_000_000_000
"""A folder that changed so shortly ago may change again within one tick of the file system's clock."""
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Thing = TypeVar("Thing")
Seen = TypeVar("Seen")

Place: TypeAlias = Path | ObjectPath
"""A folder or a file, on disk or in an object store."""


def root_of(path: str | Path) -> Place:
    """A folder on disk or in an object store, by its scheme. Raises UsageError for a URL that names no bucket,
    MissingExtra."""
    scheme, is_url, rest = str(path).partition("://")
    if not is_url:
        return Path(path)
    bucket, _, key = rest.rstrip("/").partition("/")
    segments = key.split("/") if key else []
    if scheme not in _SCHEMES:
        raise UsageError(f"{scheme}:// is no object store", hint=f"known: {', '.join(f'{one}://' for one in _SCHEMES)}")
    if not _BUCKET.fullmatch(bucket) or any(one in ("", ".", "..") for one in segments):
        raise UsageError(f"this is not {scheme}://BUCKET/PREFIX", hint="credentials belong in the environment")
    if find_spec("obstore") is None:
        raise MissingExtra(f"{scheme}:// needs obstore", hint="pip install 'shardmig[object-stores]'")
    return ObjectPath(f"{scheme}://{bucket}", key)


def existing(path: Place) -> Place | None:
    """The file, if there is one of this name; in an object store, with its facts known."""
    if isinstance(path, ObjectPath):
        return path.looked()
    return path if path.is_file() else None


def folders_in(folder: Place) -> list[str]:
    """The names of the folders right below, sorted. A link that leads nowhere is none."""
    if isinstance(folder, ObjectPath):
        return folder.children()[0]
    with os.scandir(folder) as entries:  # of a link in a circle an entry raises what it is not
        return sorted(one.name for one in entries if (os.path.isdir(one.path) if one.is_symlink() else one.is_dir()))


def names_in(folder: Place, start: str = "") -> Iterator[str]:
    """The names of the files (on disk, also of the folders) right below that begin so and go on, in any order."""
    if isinstance(folder, ObjectPath):
        for found in folder.below(start) if start else folder.children()[1]:
            name = found.relative_to(folder)
            if not name.startswith(start):
                return
            if "/" not in name:
                yield name
        return
    changed_ns = os.stat(folder).st_mtime_ns
    if start and time.time_ns() - changed_ns > _UNSETTLED_NS:
        names = _sorted_names(folder, changed_ns)
        beginning = islice(names, bisect_left(names, start), None)
        yield from takewhile(lambda name: name.startswith(start), beginning)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(start):
                yield entry.name


@lru_cache(maxsize=4)
def _sorted_names(folder: Path, _changed_ns: int) -> list[str]:
    """Kept while the folder does not change: every run without a receipt asks for its parts among all names."""
    return sorted(os.listdir(folder))


def each_with(look: Callable[[Thing], Seen], things: Iterable[Thing], root: Place) -> Iterator[tuple[Thing, Seen]]:
    """Each with what a look at it tells, in their order. Below a `root` where looks are requests, many at once."""
    if not isinstance(root, ObjectPath):
        yield from ((thing, look(thing)) for thing in things)
        return
    left = iter(things)
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as threads:
        while some := list(islice(left, 8 * _LOOKS_AT_ONCE)):
            yield from zip(some, threads.map(look, some), strict=True)


def file_sha256(path: Place) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    for block in path.blocks() if isinstance(path, ObjectPath) else _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_DISK_BYTES):
            yield block
