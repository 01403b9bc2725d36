"""Where things lie in an archive, how they are named, and how a file is published.

```
<archive.data>/<sanitize(project)>/[models/|model_versions/]<sanitize(run)>_part_<N>.parquet
<archive.files>/<sanitize(project)>/...
```
Names are neptune-exporter's and are never decoded: the parquet columns hold the real ids.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, overload

from shardmig.archive.places import Place, existing, names_in, root_of
from shardmig.archive.store import ObjectPath
from shardmig.errors import DiskFull, Permanent
from shardmig.records import ArchivePaths, Scope

MAX_NAME_BYTES: Final = 255
STATE_FOLDER: Final = ".shardmig"
"""Below `archive.data`: plans, journals, spools. neptune-exporter ignores folders that start with a dot."""

_LONGEST_ENDING: Final = len("_part_0.parquet.tmp")
_PART: Final = re.compile(r"^(?P<prefix>.*)_part_(?P<number>0|[1-9][0-9]*)\.parquet$", re.DOTALL)
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def archive_paths(data: str | Path, files: str | Path | None = None) -> ArchivePaths:
    """The two folders of an archive, absolute. `data` is the folder of the project folders, or the one that holds data/
    and files/; `files` defaults to the `files` beside `data`, as in neptune-exporter's ./exports/data, ./exports/files.
    Either may be the URL of an object store."""
    folder = root_of(data).absolute()
    if (folder / "data").is_dir():
        folder = folder / "data"
    return ArchivePaths(str(folder), str(root_of(files).absolute() if files else files_beside(folder)))


def files_beside(data: Place) -> Place:
    """The files of the archive whose parquet lies there, where nothing else is said."""
    return data.parent / (data.name.replace("data", "files") if "data" in data.name else "files")


def digest16(text: str) -> str:
    """16 hex digits of a string: what keeps cleaned names apart."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def sanitize(id_: str) -> str:
    """The file name of an id: neptune-exporter's rule, the readable part cut (never the digest) so that every part
    of the run has a name that a file system takes. Names that differ only in case have different digests."""
    readable = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in id_)
    ending = "-" + digest16(id_)
    return cut_bytes(readable, MAX_NAME_BYTES - _LONGEST_ENDING - len(ending)) + ending


def cut_bytes(text: str, most: int) -> str:
    """The longest beginning of `text` that fits `most` bytes of UTF-8."""
    encoded = text.encode("utf-8")
    return text if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore")


@overload
def project_folder(root: str | Path, project: str, scope: Scope = "runs") -> Path: ...
@overload
def project_folder(root: ObjectPath, project: str, scope: Scope = "runs") -> ObjectPath: ...
def project_folder(root: str | Place, project: str, scope: Scope = "runs") -> Place:
    """The folder of a project's runs (or models, model versions) below `root`, which is archive.data or .files."""
    folder = (Path(root) if isinstance(root, str) else root) / sanitize(project)
    return folder if scope == "runs" else folder / scope


def part_name(prefix: str, number: int) -> str:
    """The name of one part of the run with this sanitized name."""
    return f"{prefix}_part_{number}.parquet"


def parse_part(name: str) -> tuple[str, int] | None:
    """(sanitized run name, part number) of a part's file name; None for any other file. Only the last `_part_`
    counts: an id may contain one."""
    found = _PART.match(name)
    return (found["prefix"], int(found["number"])) if found else None


def staged(path: Path) -> Path:
    """The name under which a file is written before it is published."""
    # Only a part number of two digits and more on the longest names makes the cut needed; the number stays whole.
    return path.with_name(cut_bytes(path.name, MAX_NAME_BYTES - len(".tmp")) + ".tmp")


def parts_of(folder: Place, prefix: str) -> dict[int, Place]:
    """The published parts of one run, by number."""
    parts: dict[int, Place] = {}
    for name in names_in(folder, f"{prefix}_part_"):
        parsed = parse_part(name)
        if parsed and parsed[0] == prefix:
            parts[parsed[1]] = folder / name
    return dict(sorted(parts.items()))


def parts_from(folder: Place, prefix: str, first: int, *, at_least: int = 0) -> list[Place]:
    """The published parts of one run from number `first` on, up to the first gap behind `at_least`. Asks for names: in a
    folder of 100,000 runs, `parts_of` would read 100,000."""
    found: list[Place] = []
    for number in itertools.count(first):
        path = existing(folder / part_name(prefix, number))
        if path is not None:
            found.append(path)
        elif number >= at_least:
            break
    return found


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    _sync(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def publish_parts(folder: Path, prefix: str, count: int) -> None:
    """Turn `count` staged and synced parts into the run, replacing an earlier one.

    part_0 is replaced last, in one step: a run of one part is at every instant the old one or the new one. Of a run of
    several, the old part_0 stays while the others change, and its receipt does not agree with them: whoever reads the
    run is told. Executing it again after a crash, with the same parts staged again, gives the same end state.
    """
    first = folder / part_name(prefix, 0)
    for old in reversed(parts_from(folder, prefix, 1)):
        old.unlink()
    for number in range(1, count):
        target = folder / part_name(prefix, number)
        staged(target).replace(target)
    sync_folder(folder)
    staged(first).replace(first)
    sync_folder(folder)


def drop_staged(folder: Path, prefix: str) -> None:
    """Remove what an earlier attempt staged for this run and never published."""
    number = 0
    while (left := staged(folder / part_name(prefix, number))).exists():
        left.unlink()
        number += 1


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Translate OSErrors of writing `what`: a full disk is fatal, anything else fails this run."""
    try:
        yield
    except OSError as error:
        raise disk_error(what, error) from error


def disk_error(what: str, error: OSError) -> DiskFull | Permanent:
    """The error to raise for an OSError met while writing `what`."""
    if error.errno in _NO_SPACE:
        return DiskFull(f"no space left while writing {what}", hint="free space, then give the same command again")
    return Permanent(f"cannot write {what}: {error.strerror or error}")


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
