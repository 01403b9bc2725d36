"""Which coordinator writes an archive in an object store: an object tells, created only where there is none.

On disk a lock goes with the process that holds it. This object stays behind a coordinator that was killed: the next
one with the same home takes it for its own, any other is refused, since nobody can tell from afar who is dead.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from shardmig.archive.layout import STATE_FOLDER
from shardmig.archive.places import root_of
from shardmig.archive.store import ObjectPath
from shardmig.errors import AdapterError, JournalLocked
from shardmig.records import ArchivePaths


@contextmanager
def claimed(archive: ArchivePaths, home: Path) -> Iterator[None]:
    """Keep coordinators with another home out of the archive; those with this one, the caller has locked out.

    Raises JournalLocked. Does nothing for an archive on disk, which holds its home.
    """
    root = root_of(archive.data)
    if isinstance(root, Path):
        yield
        return
    claim = root / STATE_FOLDER / "export.lock"
    _take(claim, _name_of(home))
    try:
        yield
    finally:
        with suppress(AdapterError):  # what it leaves, the next coordinator with this home takes
            claim.unlink()


def _take(claim: ObjectPath, home: str) -> None:
    since = datetime.now(UTC).isoformat(" ", "seconds")
    while not claim.create(f"{home}\n{socket.gethostname()} since {since}\n".encode()):
        try:
            holder, _, told = b"".join(claim.blocks()).decode("utf-8", "replace").partition("\n")
        except FileNotFoundError:
            continue  # given back at this moment
        if holder == home:
            return
        raise JournalLocked(
            f"the archive {claim.parent.parent} is in use by a coordinator on {told.strip() or 'another host'}",
            hint=f"wait for it; if it is no more, remove {claim} and give the same command again",
        )


def _name_of(home: Path) -> str:
    """A name that no other home has, however often hosts and paths are called the same."""
    file = home / "name"
    if not file.exists():
        file.write_text(uuid4().hex, encoding="utf-8")
    return file.read_text(encoding="utf-8")
