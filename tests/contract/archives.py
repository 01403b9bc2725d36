"""Archives for tests, made as an export makes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shardmig.archive.reader import ArchiveReader
from shardmig.archive.spool import RunSpool
from shardmig.archive.writer import compact
from shardmig.records import ArchivePaths, Chunk, Header, Piece, Receipt, Selection


def archive_paths(folder: Path) -> ArchivePaths:
    """Where the archive of a test lies."""
    return ArchivePaths(str(folder / "archive" / "data"), str(folder / "archive" / "files"))


def publish(folder: Path, chunks: Iterable[Chunk]) -> Receipt:
    """Publish one run, whose files are stored already, in the archive below `folder`."""
    stream = list(chunks)
    header = stream[0]
    assert isinstance(header, Header)
    (folder / "spools").mkdir(exist_ok=True)
    spool = RunSpool(folder / "spools" / "run.spool")
    spool.restart()
    for chunk in stream:
        spool.append(Piece(header.run, chunk))
    spool.close()
    return compact(
        spool.path,
        archive_paths(folder),
        asked=Selection(),
        source=header.source,
        source_version=header.source_version,
        started_ms=0,
    )


def digests(archive: ArchivePaths) -> dict[str, str]:
    """What each run holds. All of them must have a receipt."""
    reader, found = ArchiveReader(archive), {}
    for project in reader.projects():
        for run in reader.runs(project):
            receipt = reader.receipt(run)
            assert receipt is not None
            found[run.label] = receipt.digest
    return found
