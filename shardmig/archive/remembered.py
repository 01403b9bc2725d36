"""What a listing of an archive found, remembered in a file elsewhere: the next one opens only what changed since.

A memory, never a truth: where the file is missing or cannot be read, every part is opened. Only runs with a receipt are
remembered, since nothing of such a run can change while its part_0 stays the same file.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shardmig import codec
from shardmig.archive.places import Place
from shardmig.errors import JournalCorrupt
from shardmig.records import FORMAT_VERSION, RunRef

_PAGE: Final = 1000
_MARKS: Final = struct.Struct("<QQq")
_UNSETTLED_NS: Final = 2_000_000_000
"""A file that changed so shortly before it was looked at may change again within one tick of the file system's clock."""


class Marks(NamedTuple):
    """By what a file is known again: inode, size and time of change. `mtime_ns` again for itself."""

    packed: bytes
    mtime_ns: int


class _Known(msgspec.Struct, frozen=True, array_like=True):
    marks: bytes
    run: RunRef


class _Page(msgspec.Struct, frozen=True):
    format_version: int
    known: list[_Known]


class ListingMemory:
    """Runs by the locator of their part_0. Without a file it remembers nothing."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._before = {} if file is None else _read(file)
        self._now: list[_Known] = []
        self._is_new = False

    def recall(self, locator: str, marks: Marks | None) -> RunRef | None:
        """The run that this file held when it was last looked at."""
        known = self._before.pop(locator, None)
        if known is None or marks is None or known.marks != marks.packed:
            return None
        self._now.append(known)
        return known.run

    def keep(self, run: RunRef, marks: Marks | None) -> None:
        """Remember the run that was read from the file that had these marks before it was opened."""
        if self._file is not None and marks is not None and time.time_ns() - marks.mtime_ns > _UNSETTLED_NS:
            self._now.append(_Known(marks.packed, run))
            self._is_new = True

    def save(self) -> None:
        """Write what was seen, if any of it was not known. The file appears whole or not at all; losing it costs
        time alone, so nothing is synced."""
        if self._file is None or not self._is_new:
            return
        scratch = self._file.with_suffix(".tmp")
        with suppress(OSError):  # an archive may be read-only
            self._file.parent.mkdir(parents=True, exist_ok=True)
            writer = codec.FrameWriter(scratch)
            for start in range(0, len(self._now), _PAGE):
                writer.append(codec.encode(_Page(FORMAT_VERSION, self._now[start : start + _PAGE])))
            writer.close()
            scratch.replace(self._file)
        self._is_new = False


def marks_of(file: Place) -> Marks | None:
    """Of a file as it is now; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Marks(_MARKS.pack(found.st_ino, found.st_size, found.st_mtime_ns), found.st_mtime_ns)


def _read(file: Path) -> dict[str, _Known]:
    known: dict[str, _Known] = {}
    try:
        for frame in codec.read_frames(file):
            page: _Page = codec.decode(frame.payload, _Page)
            if page.format_version == FORMAT_VERSION:
                known |= {one.run.locator: one for one in page.known}
    except (OSError, ValueError, JournalCorrupt):
        return {}
    return known
