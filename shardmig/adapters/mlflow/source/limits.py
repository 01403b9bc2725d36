"""Which files are not read because nobody asked for them, and how that is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from shardmig.errors import UsageError
from shardmig.records import Finding

LEFT_OUT: Final = "file-left-out"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


class Artifact(NamedTuple):
    """A file as it is listed. None: the listing does not tell its size."""

    path: str
    size_bytes: int | None = None


class FileLimit(NamedTuple):
    """The largest files that are read; None: all. `takes_any` false: none at all."""

    takes_any: bool = True
    most_bytes: int | None = None

    @property
    def mark(self) -> str:
        """Part of a fingerprint: with another limit an object has other files. "" without limit."""
        return "" if self == FileLimit() else f"-{self.most_bytes if self.takes_any else 0}"

    def takes(self, size_bytes: int | None) -> bool:
        """Is a file of this size read? One of unknown size is, and asked again once it is here."""
        if not self.takes_any:
            return False
        return self.most_bytes is None or size_bytes is None or size_bytes <= self.most_bytes


class LeftOut:
    """Chooses among the files of one object, and remembers what it left out."""

    def __init__(self, limit: FileLimit, folder: str) -> None:
        self._limit = limit
        self._folder = folder
        self._count = 0
        self._bytes = 0
        self._large: list[Finding] = []

    def takes(self, path: str, size_bytes: int | None) -> bool:
        """Is it to be read? If not, it is remembered."""
        if self._limit.takes(size_bytes):
            return True
        self._count += 1
        self._bytes += size_bytes or 0
        if self._limit.takes_any:
            detail = f"{size_bytes} bytes are more than --max-file-size {self._limit.most_bytes}"
            self._large.append(Finding("gap", LEFT_OUT, self._folder + path, 1, detail))
        return False

    def unlisted(self, why: str) -> Finding:
        """Of files that cannot be listed: a loss, unless none was asked for."""
        folder = self._folder.rstrip("/")
        if self._limit.takes_any:
            return Finding("loss", "artifacts-not-listed", folder, detail=why)
        return Finding("gap", LEFT_OUT, folder, detail=f"as asked: --no-artifacts; how many is not known: {why}")

    def findings(self) -> list[Finding]:
        """Each file that was too large; without any file asked for, how many there are."""
        if self._limit.takes_any or not self._count:
            return self._large
        detail = f"{self._bytes} bytes were not read, as asked: --no-artifacts"
        return [Finding("gap", LEFT_OUT, self._folder.rstrip("/"), self._count, detail)]


def size_on_disk(file: Path) -> int | None:
    """The size of a file that may not be there."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def file_limit(no_artifacts: str, max_file_size: str) -> FileLimit:
    """From the options of that name. Raises UsageError for both, and for what is no size: `500`, `10M`, `1.5 GiB`, in
    powers of 1024."""
    if no_artifacts == "yes" and max_file_size:
        raise UsageError("no-artifacts and max-file-size exclude each other", hint="give one of them")
    return FileLimit(no_artifacts != "yes", _size(max_file_size) if max_file_size else None)


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"max-file-size: {text!r} is no size", hint="such as 500000, 100M or 1.5G")
    return int(float(found[1]) * _UNITS[found[2].upper()])
