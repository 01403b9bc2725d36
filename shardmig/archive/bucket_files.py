"""Files of an archive in an object store: streamed into it, and fetched to disk where a target wants a file.

Names are those on disk. A file appears whole or not at all; whether a tree, which is many objects, is whole, its row in
the archive tells.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Final

from shardmig.archive.files import ArchiveFiles, Passing, refuse_hostile
from shardmig.archive.layout import disk_errors, project_folder, staged
from shardmig.archive.places import root_of
from shardmig.archive.store import ObjectPath
from shardmig.errors import NotFound
from shardmig.records import ArchivePaths, FileRef, ProjectId

_WORTH_A_LIST: Final = 4


def files_of(archive: ArchivePaths, project: ProjectId, scratch: Path | None = None) -> ArchiveFiles:
    """FileSink and FileStore of one project. `scratch`: the folder for what is fetched from an object store (default:
    the system's temporary one)."""
    root = root_of(archive.files)
    return ArchiveFiles(archive, project) if isinstance(root, Path) else BucketFiles(archive, root, project, scratch)


class BucketFiles(ArchiveFiles):
    """What is fetched lies in a mirror on disk, under the names of the archive, as long as this object lives."""

    def __init__(self, archive: ArchivePaths, root: ObjectPath, project: ProjectId, scratch: Path | None) -> None:
        super().__init__(archive, project)
        self._bucket = project_folder(root, project)
        self._scratch = scratch
        self._seen: dict[str, ObjectPath] = {}

    @cached_property
    def _root(self) -> Path:
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        mirror = tempfile.mkdtemp(prefix="shardmig-files-", dir=self._scratch)
        weakref.finalize(self, shutil.rmtree, mirror, ignore_errors=True)
        return Path(mirror) / self._bucket.name

    def path(self, ref: FileRef) -> Path:
        """As FileStore.path. What was fetched is not asked for again."""
        refuse_hostile(ref.stored, ref.path)
        target = self._root / ref.stored
        if not target.exists():
            found, is_tree = self.held(ref)
            with disk_errors(f"a copy of {found}"):
                draft = staged(target)
                shutil.rmtree(draft, ignore_errors=True)
                (draft if is_tree else draft.parent).mkdir(parents=True, exist_ok=True)
                for name, member in self.held_members(ref):
                    _fetch(member, draft / name if is_tree else draft)
                draft.replace(target)
        return super().path(ref)

    def expect(self, refs: Sequence[FileRef]) -> None:
        """As ArchiveFiles.expect: one list instead of a request a file."""
        folders = [ref.stored.replace("\\", "/").split("/")[:-1] for ref in refs]
        if len(refs) < _WORTH_A_LIST:
            return
        both = zip(min(folders), max(folders), strict=False)
        common = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], both)]
        if common and {"", ".", ".."}.isdisjoint(common):
            below = self._bucket / "/".join(common)
            self._seen |= {found.relative_to(self._bucket): found for found in below.below()}

    def held(self, ref: FileRef) -> tuple[ObjectPath, bool]:
        """As ArchiveFiles.held."""
        refuse_hostile(ref.stored, ref.path)
        for name in dict.fromkeys((ref.stored, ref.stored.replace("\\", "/"))):
            name = PurePosixPath(name).as_posix()
            found = self._bucket / name
            if not ref.is_tree and (file := self._seen.get(name) or found.looked()) is not None:
                return file, False
            if found.is_dir() or (ref.is_tree and ref.size_bytes == 0):
                return found, True
        raise NotFound(f"there is no file {self._bucket / ref.stored}", field=ref.path, hint="is --files-path right?")

    def held_members(self, ref: FileRef) -> Iterator[tuple[str, ObjectPath]]:
        """As ArchiveFiles.held_members."""
        found, is_tree = self.held(ref)
        if not is_tree:
            yield ref.name or found.name, found
            return
        for member in sorted(found.below()):
            name = member.relative_to(found)
            refuse_hostile(name, ref.path)
            yield name, member

    def _keep(self, stored: str, content: Passing) -> None:
        (self._bucket / stored).write(content)

    def _keep_tree(self, stored: str, members: Iterable[Passing]) -> None:
        tree = self._bucket / stored
        written = set()
        for content in members:
            member = tree / PurePosixPath(content.name).as_posix()
            member.write(content)
            written.add(member)
        for left in set(tree.below()) - written:
            left.unlink()


def _fetch(file: ObjectPath, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as copy:
        copy.writelines(file.blocks())
