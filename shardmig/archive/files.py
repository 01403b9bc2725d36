"""Files of an archive: stored under names that never collide, and given out only from inside the archive.

```
<archive.files>/<sanitize(project)>/[models/]<sanitize(run)>/<readable field path>~<16 hex digits>.<extension>
```
The digits are a digest of field path, type, step, time and file name: two fields never share a file, on no file system.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import msgspec

from shardmig.archive.digest import plain_step
from shardmig.archive.layout import (
    cut_bytes,
    digest16,
    disk_errors,
    project_folder,
    sanitize,
    staged,
    sync_folder,
)
from shardmig.errors import BadInput, HostilePath, NotFound, Unavailable
from shardmig.records import ArchivePaths, FieldType, FileRef, ProjectId, RunRef

_READ_BYTES: Final = 1 << 20
_MAX_SEGMENT_BYTES: Final = 80
_MAX_SEGMENTS: Final = 8
_EXTENSION: Final = re.compile(r"(?:\.tar)?\.[A-Za-z0-9]{1,16}$")
_DRIVE: Final = re.compile(r"^[A-Za-z]:")

_Take = Callable[[bytes], object]


class ArchiveFiles:
    """FileSink and FileStore of one project."""

    def __init__(self, archive: ArchivePaths, project: ProjectId) -> None:
        self._root = project_folder(archive.files, project)

    def put(
        self,
        run: RunRef,
        path: str,
        field_type: FieldType,
        content: BinaryIO | Path,
        *,
        name: str,
        step: Decimal | None = None,
        time_ms: int | None = None,
    ) -> FileRef:
        """As FileSink.put: streamed, digested, synced, then renamed into place."""
        stored = _stored_name(run, path, field_type, name, step, time_ms)
        target = self._root / stored
        with disk_errors(f"file {path!r} of {run.label}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            size, sha256 = _store(content, staged(target), name)
            staged(target).replace(target)
            sync_folder(target.parent)
        return FileRef(
            path=path,
            type=field_type,
            stored=stored,
            name=name,
            size_bytes=size,
            sha256=sha256,
            step=step,
            time_ms=time_ms,
        )

    def put_tree(
        self, run: RunRef, path: str, field_type: FieldType, members: Iterable[tuple[str, BinaryIO | Path]]
    ) -> FileRef:
        """As FileSink.put_tree: the whole tree is written beside its place and renamed."""
        stored = _stored_name(run, path, field_type, "", None, None)
        target = self._root / stored
        with disk_errors(f"files {path!r} of {run.label}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(staged(target), ignore_errors=True)
            staged(target).mkdir()
            tree = _TreeDigest()
            for name, content in members:
                _refuse_hostile(name, path)
                member = staged(target) / name
                if member.exists():
                    raise BadInput(f"two members of a file set share the name {name!r}", run=run.label, field=path)
                member.parent.mkdir(parents=True, exist_ok=True)
                tree.add(name, *_store(content, member, name))
            _replace_tree(staged(target), target)
        return tree.ref(path, field_type, stored)

    def path(self, ref: FileRef) -> Path:
        """As FileStore.path. Names written on Windows are understood."""
        _refuse_hostile(ref.stored, ref.path)
        found = self._root / ref.stored
        if not found.exists() and "\\" in ref.stored:
            found = self._root / ref.stored.replace("\\", "/")
        return self._inside(found, ref)

    def members(self, ref: FileRef) -> Iterator[tuple[str, Path]]:
        """As FileStore.members. A link that leads out of the archive is hostile."""
        found = self.path(ref)
        if found.is_file():
            yield ref.name or found.name, found
            return
        names = sorted(
            (Path(folder) / name).relative_to(found).as_posix()
            for folder, folders, files in os.walk(found)
            for name in (*files, *(name for name in folders if (Path(folder) / name).is_symlink()))
        )
        for name in names:
            yield name, self._inside(found / name, ref)

    def _inside(self, found: Path, ref: FileRef) -> Path:
        root = self._root.parent.resolve() / self._root.name  # a project's folder that is itself a link leads out
        try:
            real = found.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(
                f"there is no file {found}",
                field=ref.path,
                hint="is --files-path right?",
            ) from None
        except (OSError, RuntimeError) as error:
            raise HostilePath(f"the file {ref.stored!r} cannot be followed: {error}", field=ref.path) from error
        if root not in real.parents:
            raise HostilePath(f"the file {ref.stored!r} leads out of the archive, to {real}", field=ref.path)
        mode = real.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise HostilePath(f"the file {ref.stored!r} is a device, a pipe or a socket", field=ref.path)
        return real


class DigestSink:
    """A FileSink that stores nothing: what verify compares with."""

    def put(
        self,
        run: RunRef,  # noqa: ARG002 - the contract of FileSink
        path: str,
        field_type: FieldType,
        content: BinaryIO | Path,
        *,
        name: str,
        step: Decimal | None = None,
        time_ms: int | None = None,
    ) -> FileRef:
        """The reference that a storing sink would give, without a stored name."""
        size, sha256 = _read(content, name, _forget)
        return FileRef(
            path=path, type=field_type, stored="", name=name, size_bytes=size, sha256=sha256, step=step, time_ms=time_ms
        )

    def put_tree(
        self,
        run: RunRef,  # noqa: ARG002
        path: str,
        field_type: FieldType,
        members: Iterable[tuple[str, BinaryIO | Path]],
    ) -> FileRef:
        """As `put`, for a tree."""
        tree = _TreeDigest()
        for name, content in members:
            _refuse_hostile(name, path)
            tree.add(name, *_read(content, name, _forget))
        return tree.ref(path, field_type, "")


def _forget(_: bytes) -> None:
    """Digested is enough."""


class _TreeDigest:
    """Size and hash of a tree from its members'."""

    def __init__(self) -> None:
        self._size_bytes = 0
        self._lines: list[str] = []

    def add(self, name: str, size_bytes: int, sha256: str) -> None:
        self._size_bytes += size_bytes
        self._lines.append(f"{name}\0{sha256}\n")

    def ref(self, path: str, field_type: FieldType, stored: str) -> FileRef:
        sha256 = hashlib.sha256("".join(sorted(self._lines)).encode("utf-8", "surrogatepass")).hexdigest()
        return FileRef(
            path=path, type=field_type, stored=stored, size_bytes=self._size_bytes, sha256=sha256, is_tree=True
        )


def described(store: ArchiveFiles, ref: FileRef, *, with_hash: bool) -> FileRef:
    """A reference of unknown size, hash or shape, completed from what lies on disk. Raises as ArchiveFiles.path."""
    found = store.path(ref)
    is_tree = found.is_dir()
    if not is_tree and ref.size_bytes >= 0 and found.stat().st_size != ref.size_bytes:
        raise BadInput(f"{found} has {found.stat().st_size} bytes, its row says {ref.size_bytes}", field=ref.path)
    if ref.size_bytes >= 0 and ref.sha256:
        return ref
    tree = _TreeDigest()
    for name, member in store.members(ref):
        known = _read(member, name, _forget) if with_hash else (member.stat().st_size, "")
        tree.add(name, *known)
        if not is_tree:
            return msgspec.structs.replace(ref, name=ref.name or name, size_bytes=known[0], sha256=known[1])
    whole = tree.ref(ref.path, ref.type, ref.stored)
    return whole if with_hash else msgspec.structs.replace(whole, sha256="")


def _stored_name(
    run: RunRef, path: str, field_type: FieldType, name: str, step: Decimal | None, time_ms: int | None
) -> str:
    identity = "\0".join(
        (path, field_type, name, "" if step is None else plain_step(step), "" if time_ms is None else str(time_ms))
    )
    segments = [_clean(segment) for segment in path.split("/") if segment][:_MAX_SEGMENTS] or ["_"]
    if step is not None:
        segments.append(f"step_{plain_step(step)}")
    found = _EXTENSION.search(name)
    leaf = f"{segments[-1]}~{digest16(identity)}{found[0] if found else ''}"
    scope = () if run.scope == "runs" else (run.scope,)
    return str(PurePosixPath(*scope, sanitize(run.id), *segments[:-1], leaf))


def _clean(segment: str) -> str:
    """A folder name that no file system objects to. Never holds `~`, so it is never the name of a file here."""
    kept = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in segment)
    return cut_bytes(kept, _MAX_SEGMENT_BYTES).strip(".") or "_"


def _refuse_hostile(name: str, field: str) -> None:
    segments = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or _DRIVE.match(name) or "\0" in name or ".." in segments or not name.strip("./\\"):
        raise HostilePath(f"the file name {name!r} leads out of the archive", field=field)


def _replace_tree(tree: Path, target: Path) -> None:
    for folder, _, _ in os.walk(tree, topdown=False):
        sync_folder(Path(folder))
    if target.exists():
        shutil.rmtree(target)
    tree.replace(target)
    sync_folder(target.parent)


def _store(content: BinaryIO | Path, target: Path, name: str) -> tuple[int, str]:
    with open(target, "wb") as file:
        known = _read(content, name, file.write)
        file.flush()
        os.fsync(file.fileno())
    return known


def _read(content: BinaryIO | Path, name: str, take: _Take) -> tuple[int, str]:
    """(size, SHA-256) of a file, each block given to `take`."""
    if isinstance(content, Path):
        try:
            opened = open(content, "rb")  # noqa: SIM115 - closed by the with below
        except OSError as error:
            raise NotFound(f"the file {name!r} cannot be read: {error.strerror}") from error
        with opened:
            return _read(opened, name, take)
    digest = hashlib.sha256()
    size = 0
    while block := _next_block(content, name):
        digest.update(block)
        size += len(block)
        take(block)
    return size, digest.hexdigest()


def _next_block(content: BinaryIO, name: str) -> bytes:
    try:
        return content.read(_READ_BYTES)
    except OSError as error:
        raise Unavailable(f"the file {name!r} cannot be read to its end: {error}") from error
