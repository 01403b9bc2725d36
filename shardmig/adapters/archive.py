"""Archives as a source: what `--source archive` reads, to repack or filter them into another archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from shardmig.adapters.base import FileSink, Want
from shardmig.archive.bucket_files import files_of
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.layout import archive_paths
from shardmig.archive.places import root_of
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.remembered import ListingMemory
from shardmig.errors import UsageError
from shardmig.records import SCOPES, ArchivePaths, End, FileRef, Files, Finding, Piece, ProjectId, RunRef, Selection
from shardmig.selection import Matcher


def open_source(options: Mapping[str, str]) -> ArchiveSource:
    """From `data` (the folder with the project folders, or the one that holds data/ and files/) and `files` (default:
    its sibling). `memory`: a file that remembers listings. Raises UsageError."""
    if not options.get("data"):
        raise UsageError("the source `archive` needs the folder of the archive", hint="--source archive PATH")
    archive = archive_paths(options["data"], options.get("files") or None)
    if not root_of(archive.data).is_dir():
        raise UsageError(
            f"there is no archive at {archive.data}", hint="name the folder that holds the project folders"
        )
    return ArchiveSource(archive, ListingMemory(Path(options["memory"]) if "memory" in options else None))


class ArchiveSource:
    """The read side of an archive. It can resume inside a run and never writes, but into the memory of its listings."""

    def __init__(self, archive: ArchivePaths, memory: ListingMemory) -> None:
        self._archive = archive
        self._memory = memory
        self._reader = ArchiveReader(archive, memory=memory)

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """As ReadSide.list_projects."""
        matcher = Matcher(selection)
        yield from (project for project in self._reader.projects() if matcher.wants_project(project))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide.list_runs: runs, then models, then model versions."""
        matcher = Matcher(selection)
        for scope in SCOPES:
            yield from (run for run in self._reader.runs(project, scope) if matcher.wants_run(run))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """As ReadSide.read_runs, each run in canonical order. Every file goes through `files`, and its bytes are compared
        with the digest that the archive has of it."""
        for run in runs:
            yield from self._read_run(run, want, files)

    def close(self) -> None:
        """Save what was listed; nothing is held open."""
        self._memory.save()

    def _read_run(self, run: RunRef, want: Want, files: FileSink) -> Iterator[Piece]:
        store = files_of(self._archive, run.project)
        lost: list[Finding] = []
        for piece in self._reader.read(run, want, hash_files=False):
            chunk = piece.chunk
            if isinstance(chunk, Files):
                copied = [_copied(run, ref, store, files) for ref in chunk.files]
                lost += [
                    Finding("loss", "damaged-file", old.path, detail=f"{old.stored} has other bytes than were exported")
                    for old, new in zip(chunk.files, copied, strict=True)
                    if old.sha256 not in ("", new.sha256)
                ]
                chunk = Files(copied)
            elif isinstance(chunk, End):
                chunk = End([*chunk.findings, *lost])
            yield msgspec.structs.replace(piece, chunk=chunk)


def _copied(run: RunRef, ref: FileRef, store: ArchiveFiles, files: FileSink) -> FileRef:
    if ref.is_tree:
        return files.put_tree(run, ref.path, ref.type, store.members(ref))
    path: Path = store.path(ref)
    return files.put(run, ref.path, ref.type, path, name=ref.name or path.name, step=ref.step, time_ms=ref.time_ms)
