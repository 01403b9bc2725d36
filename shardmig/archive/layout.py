"""Where things lie in an archive, how they are named, and how a file is published.

```
<archive.data>/<sanitize(project)>/[models/|model_versions/]<sanitize(run)>_part_<N>.parquet
<archive.files>/<sanitize(project)>/...
```
Names are neptune-exporter's and are never decoded: the parquet columns hold the real ids.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

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
    and files/; `files` defaults to the `files` beside `data`, as in neptune-exporter's ./exports/data, ./exports/files."""
    folder = Path(data).absolute()
    if (folder / "data").is_dir():
        folder = folder / "data"
    beside = folder.with_name(folder.name.replace("data", "files") if "data" in folder.name else "files")
    return ArchivePaths(str(folder), str(Path(files).absolute() if files else beside))


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


def project_folder(root: str | Path, project: str, scope: Scope = "runs") -> Path:
    """The folder of a project's runs (or models, model versions) below `root`, which is archive.data or .files."""
    folder = Path(root) / sanitize(project)
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


def parts_of(folder: Path, prefix: str) -> dict[int, Path]:
    """The published parts of one run, by number."""
    parts: dict[int, Path] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            parsed = parse_part(entry.name)
            if parsed and parsed[0] == prefix:
                parts[parsed[1]] = folder / entry.name
    return dict(sorted(parts.items()))


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    _sync(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def publish_parts(folder: Path, prefix: str, count: int) -> None:
    """Turn `count` staged and synced parts into the run, replacing an earlier one.

    At every instant part_0 is either absent or whole with all the parts it names: the old part_0 goes first, then
    the old parts, the new ones come in descending order and part_0 last. Executing it again after a crash, with the
    same parts staged again, gives the same end state.
    """
    old = parts_of(folder, prefix)
    if 0 in old:
        old[0].unlink()
        sync_folder(folder)
    for number, path in old.items():
        if number >= count:
            path.unlink()
    for number in range(count - 1, 0, -1):
        target = folder / part_name(prefix, number)
        staged(target).replace(target)
    sync_folder(folder)
    first = folder / part_name(prefix, 0)
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
