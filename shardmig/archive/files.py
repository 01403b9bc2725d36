"""Files of an archive: stored under names that never collide, and given out only from inside the archive.

```
<archive.files>/<sanitize(project)>/[models/]<sanitize(run)>/<readable field path>~<16 hex digits>.<extension>
```
The digits are a digest of field path, type, step, time and file name: two fields never share a file, on no file system.
Where the archive holds another version of the run, the new one's version is in the digest too: what is exported anew
never overwrites what the published run has.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from functools import cached_property
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
from shardmig.archive.places import Place, file_sha256, root_of
from shardmig.archive.published import PublishedRun
from shardmig.errors import BadInput, HostilePath, NotFound, Unavailable
from shardmig.records import ArchivePaths, FieldType, FileRef, ProjectId, RunRef

_READ_BYTES: Final = 1 << 20
_MAX_SEGMENT_BYTES: Final = 80
_MAX_SEGMENTS: Final = 8
_EXTENSION: Final = re.compile(r"(?:\.tar)?\.[A-Za-z0-9]{1,16}$")
_DRIVE: Final = re.compile(r"^[A-Za-z]:")


class ArchiveFiles:
    """FileSink and FileStore of one project."""

    def __init__(self, archive: ArchivePaths, project: ProjectId) -> None:
        self._archive, self._project = archive, project
        self._versions: dict[RunRef, str] = {}

    @cached_property
    def _root(self) -> Path:
        return project_folder(self._archive.files, self._project)

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
        identity = _identity(path, field_type, name, step, time_ms) + self._version(run)
        stored = _stored_name(run, path, name, step, identity)
        with disk_errors(f"file {path!r} of {run.label}"):
            passing = Passing(content, name)
            self._keep(stored, passing)
        return FileRef(
            path=path,
            type=field_type,
            stored=stored,
            name=name,
            size_bytes=passing.size_bytes,
            sha256=passing.sha256,
            step=step,
            time_ms=time_ms,
        )

    def put_tree(
        self, run: RunRef, path: str, field_type: FieldType, members: Iterable[tuple[str, BinaryIO | Path]]
    ) -> FileRef:
        """As FileSink.put_tree: the whole tree is written beside its place and renamed."""
        stored = _stored_name(run, path, "", None, _identity(path, field_type, "", None, None) + self._version(run))
        tree = _TreeDigest()

        def passing() -> Iterator[Passing]:
            names: set[str] = set()
            for told, content in members:
                refuse_hostile(told, path)
                name = _plain(told)
                if name in names:
                    raise BadInput(f"two members of a file set share the name {name!r}", run=run.label, field=path)
                names.add(name)
                member = Passing(content, name)
                yield member
                tree.add(name, member.size_bytes, member.sha256)

        try:
            with disk_errors(f"files {path!r} of {run.label}"):
                self._keep_tree(stored, passing())
        except HostilePath as error:
            error.run, error.field = run.label, path
            raise
        return tree.ref(path, field_type, stored)

    def path(self, ref: FileRef) -> Path:
        """As FileStore.path. Names written on Windows are understood."""
        refuse_hostile(ref.stored, ref.path)
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

    def expect(self, refs: Sequence[FileRef]) -> None:
        """All of these, of one run, are about to be asked for: a store that answers slowly may ask for them at once."""

    def prove(self, ref: FileRef) -> None:
        """Raise BadInput if what `path` gives has another digest than its row says. A row without one proves nothing."""
        if not ref.sha256:
            return
        measured = _measured(ref, self.members(ref), is_tree=self.path(ref).is_dir(), with_hash=True)
        if measured.sha256 != ref.sha256:
            raise BadInput(f"{ref.stored} has other bytes than its row says", field=ref.path)

    def held(self, ref: FileRef) -> tuple[Place, bool]:
        """Where the archive holds it, and whether it is a tree; nothing is fetched. Raises as `path`."""
        found = self.path(ref)
        return found, found.is_dir()

    def held_members(self, ref: FileRef) -> Iterator[tuple[str, Place]]:
        """As `members`, where the archive holds them."""
        return self.members(ref)

    def _version(self, run: RunRef) -> str:
        """What tells this version's files from those of another one that is published; "" where none is."""
        if run not in self._versions:
            folder = project_folder(root_of(self._archive.data), run.project, run.scope)
            held = PublishedRun(folder, sanitize(run.id))
            self._versions[run] = f"\0{run.fingerprint}" if _is_other_version(held, run) else ""
        return self._versions[run]

    def _keep(self, stored: str, content: Passing) -> None:
        """Put a file into its place."""
        target = self._root / stored
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(content, staged(target))
        staged(target).replace(target)
        sync_folder(target.parent)

    def _keep_tree(self, stored: str, members: Iterable[Passing]) -> None:
        """Put a tree into its place."""
        target = self._root / stored
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staged(target), ignore_errors=True)
        staged(target).mkdir()
        for content in members:
            member = staged(target) / content.name
            member.parent.mkdir(parents=True, exist_ok=True)
            _write(content, member)
        _replace_tree(staged(target), target)

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


class Passing:
    """The blocks of a content, counted and digested as they pass. Read once, to the end.

    Raises NotFound for a file that cannot be opened, Unavailable for one that breaks off.
    """

    def __init__(self, content: BinaryIO | Path, name: str) -> None:
        self._content = content
        self._digest = hashlib.sha256()
        self.name = name
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        if not isinstance(self._content, Path):
            yield from self._blocks(self._content)
            return
        try:
            opened = open(self._content, "rb")  # noqa: SIM115 - closed by the with below
        except OSError as error:
            raise NotFound(f"the file {self.name!r} cannot be read: {error.strerror}") from error
        with opened:
            yield from self._blocks(opened)

    @property
    def sha256(self) -> str:
        """The SHA-256 of what has passed, in hex."""
        return self._digest.hexdigest()

    def forget(self) -> tuple[int, str]:
        """Size and SHA-256 of it all: digested is enough."""
        for _ in self:
            pass
        return self.size_bytes, self.sha256

    def _blocks(self, content: BinaryIO) -> Iterator[bytes]:
        while block := self._next_block(content):
            self._digest.update(block)
            self.size_bytes += len(block)
            yield block

    def _next_block(self, content: BinaryIO) -> bytes:
        try:
            return content.read(_READ_BYTES)
        except OSError as error:
            raise Unavailable(f"the file {self.name!r} cannot be read to its end: {error}") from error


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
        size, sha256 = Passing(content, name).forget()
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
            refuse_hostile(name, path)
            tree.add(_plain(name), *Passing(content, name).forget())
        return tree.ref(path, field_type, "")


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
    """A reference of unknown size, hash or shape, completed from what the archive holds. Raises as ArchiveFiles.path."""
    found, is_tree = store.held(ref)
    if not is_tree and ref.size_bytes >= 0:
        _refuse_other_size(found, ref, found.stat().st_size)
    if is_tree and ref.size_bytes >= 0:
        _refuse_other_size(found, ref, sum(member.stat().st_size for _, member in store.held_members(ref)))
    if ref.size_bytes >= 0 and ref.sha256:
        return ref
    return _measured(ref, store.held_members(ref), is_tree=is_tree, with_hash=with_hash)


def _measured(ref: FileRef, members: Iterable[tuple[str, Place]], *, is_tree: bool, with_hash: bool) -> FileRef:
    """A reference with the size and hash that its members have."""
    tree = _TreeDigest()
    for name, member in members:
        known = (member.stat().st_size, file_sha256(member) if with_hash else "")
        tree.add(name, *known)
        if not is_tree:
            return msgspec.structs.replace(ref, name=ref.name or name, size_bytes=known[0], sha256=known[1])
    whole = tree.ref(ref.path, ref.type, ref.stored)
    return whole if with_hash else msgspec.structs.replace(whole, sha256="")


def _refuse_other_size(found: Place, ref: FileRef, size_bytes: int) -> None:
    if size_bytes != ref.size_bytes:
        raise BadInput(f"{found} has {size_bytes} bytes, its row says {ref.size_bytes}", field=ref.path)


def _is_other_version(held: PublishedRun, run: RunRef) -> bool:
    try:
        receipt = held.receipt if held.exists() else None
    except BadInput:  # damaged: it names no files any more
        return False
    return receipt is not None and receipt.run.fingerprint != run.fingerprint


def _identity(path: str, field_type: FieldType, name: str, step: Decimal | None, time_ms: int | None) -> str:
    """What tells a file of a run from every other one."""
    at = ("" if step is None else plain_step(step), "" if time_ms is None else str(time_ms))
    return "\0".join((path, field_type, name, *at))


def _stored_name(run: RunRef, path: str, name: str, step: Decimal | None, identity: str) -> str:
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


def _plain(name: str) -> str:
    """The name of a member as it is read back: `./a//b` lies at `a/b`."""
    return PurePosixPath(name).as_posix()


def refuse_hostile(name: str, field: str) -> None:
    """Raise HostilePath for a file name that is not relative, or leads upwards."""
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


def _write(content: Passing, target: Path) -> None:
    with open(target, "wb") as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
