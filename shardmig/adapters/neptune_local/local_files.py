"""Files that a log names by path: where they lie now, and what a file set or an artifact is made of.

A log may name any file of this machine; that is how Neptune works. What a log claims to lie in its own folder must
lie there.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path, PureWindowsPath
from typing import Final
from urllib.parse import urlparse

import msgspec

from shardmig.adapters.neptune_local.findings import FindingLog

_MAGIC: Final = frozenset("*?[")
_HINT: Final = "where it lies now can be given with --path-map OLD=NEW"
_SIGNATURES: Final = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


class TrackedFile(msgspec.Struct, rename="camel"):
    """One line of an artifact's files_list.json, in the words of Neptune's artifact API. Hash and size are None
    where the file is not on this machine."""

    file_path: str
    file_hash: str | None
    type: str
    size: int | None
    metadata: list[dict[str, str]]


class LocalFiles:
    """Finds files under a path map of (old, new) prefixes. `late`: takes what is noticed while a file is stored, and so
    only once, however often the run is opened; none given = `findings`."""

    def __init__(
        self, path_map: Sequence[tuple[str, str]], findings: FindingLog, late: FindingLog | None = None
    ) -> None:
        self._map = path_map
        self.findings = findings
        self._late = findings if late is None else late

    def mapped(self, original: str) -> str:
        """The path under the path map: only whole path components match."""
        for old, new in self._map:
            rest = original[len(old) :]
            if original.startswith(old) and (not rest or rest[0] in "/\\"):
                tail = rest.replace("\\", "/") if "\\" in old or PureWindowsPath(old).drive else rest
                return new.rstrip("/") + tail
        return original

    def find(self, field: str, original: str, *candidates: Path) -> Path | None:
        """The file, the first candidate that exists before the mapped path. None is reported as a loss."""
        why = ""
        for path in (*candidates, Path(self.mapped(original))):
            try:
                # A relative path was meant from the folder that the client was executed in, which no log holds.
                if path.is_absolute() and path.is_file():
                    return path
            except OSError as error:  # somebody else's folder: this file is lost, the run is not
                why = f"{error.strerror}; "
        self.findings.add("loss", "missing-file", field=field, detail=f"{original} ({why}{_HINT})")
        return None

    def find_inside(self, field: str, folder: Path, name: str) -> Path | None:
        """The file `name` of a folder; what leads out of it is reported as hostile, what is not there as missing."""
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or path.resolve() == folder.resolve():
            self.findings.add("loss", "hostile-path", field=field, detail=name)
            return None
        if not os.path.isfile(path):
            self.findings.add("loss", "missing-file", field=field, detail=str(path))
            return None
        return path

    def expand(self, field: str, globs: Sequence[str]) -> dict[str, Path]:
        """The files of one upload into a file set, by name: relative to the common root of all that the patterns
        match, as the client names them (the client prefers its working directory, which no log holds)."""
        matched: set[str] = set()
        for pattern in globs:
            mapped = self.mapped(pattern)
            found = glob.glob(mapped, recursive=True) if os.path.isabs(mapped) else []
            if not found:
                self._report_unmatched(field, pattern)
            matched.update(os.path.abspath(path) for path in found)
        if not matched:
            return {}
        root = os.path.commonpath(matched)
        if os.path.isfile(root):
            root = os.path.dirname(root)
        members: dict[str, Path] = {}
        for path in sorted(matched):
            for file in _files_below(path, field, self.findings):
                members[os.path.relpath(file, root).replace(os.sep, "/")] = Path(file)
        return members

    def track(self, field: str, location: str, destination: str | None) -> list[TrackedFile]:
        """What the client would have sent for one tracked location: a line a file. last_modified is in UTC."""
        scheme = urlparse(location).scheme
        if scheme not in ("", "file"):
            self._late.add("gap", "artifact-not-local", field=field, detail=location)
            name = destination or location
            return [TrackedFile(name, None, scheme.upper(), None, [{"key": "location", "value": location}])]
        original = location.removeprefix("file://")
        found = Path(self.mapped(original)).expanduser()
        is_here = found.is_absolute() and os.path.exists(found)
        is_folder = is_here and found.is_dir()
        files = sorted(map(Path, _files_below(str(found), field, self._late))) if is_folder else [found]
        if not is_here:
            self._late.add("gap", "missing-artifact-file", field=field, detail=f"{original} ({_HINT})")
        lines = []
        for path in files:
            inner = path.relative_to(found).as_posix() if path != found else ""
            name = inner or path.name
            logged = f"file://{original.rstrip('/')}/{inner}" if inner else f"file://{original}"
            target = f"{destination.rstrip('/')}/{name}" if destination else name
            lines.append(self._tracked_file(field, _printable(target), path, _printable(logged)))
        return lines

    def _tracked_file(self, field: str, name: str, path: Path, logged: str) -> TrackedFile:
        metadata = [{"key": "file_path", "value": logged}]
        if not path.is_absolute() or not os.path.isfile(path):
            return TrackedFile(name, None, "Local", None, metadata)
        try:
            digest, stat = _sha1(path), path.stat()
        except OSError as error:
            self._late.add("gap", "missing-artifact-file", field=field, detail=f"{path}: {error.strerror}")
            return TrackedFile(name, None, "Local", None, metadata)
        changed = datetime.fromtimestamp(stat.st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S")
        metadata.append({"key": "last_modified", "value": changed})
        return TrackedFile(name, digest, "Local", stat.st_size, metadata)

    def _report_unmatched(self, field: str, pattern: str) -> None:
        fixed = pattern
        while _MAGIC & set(fixed):
            fixed = os.path.dirname(fixed)
        mapped = self.mapped(fixed)
        is_listed = os.path.isabs(mapped) and os.path.isdir(mapped) and os.access(mapped, os.R_OK | os.X_OK)
        if fixed != pattern and is_listed:
            self.findings.add("gap", "no-file-matched", field=field, detail=pattern)
        else:
            self.findings.add("loss", "missing-file", field=field, detail=f"{pattern} ({_HINT})")


def name_with_extension(name: str, extension: str | None) -> str:
    """`name`, ending in the extension that was logged."""
    return name if not extension or name.lower().endswith(f".{extension.lower()}") else f"{name}.{extension}"


def base_name(path: str) -> str:
    """The last component of a path of this or another system."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def image_extension(content: bytes) -> str:
    """By the first bytes, as the server names the images it hands out; "bin" if it is no known image."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[:256].lstrip().startswith((b"<svg", b"<?xml")):
        return "svg"
    return next((extension for start, extension in _SIGNATURES if content.startswith(start)), "bin")


def _printable(name: str) -> str:
    """File names of this disk may hold bytes that are no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _files_below(path: str, field: str, findings: FindingLog) -> list[str]:
    """A file, or all files below a folder, as the client finds them. What of it cannot be listed is a loss."""
    if not os.path.isdir(path):
        return [path]

    def tell(error: OSError) -> None:
        findings.add("loss", "missing-file", field=field, detail=f"{error.filename}: {error.strerror}")

    return [os.path.join(folder, name) for folder, _, names in os.walk(path, onerror=tell) for name in names]


def _sha1(path: Path) -> str:
    digest = sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
