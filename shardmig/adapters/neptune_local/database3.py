"""Reads the sqlite databases of neptune-scale (versions v1 to v5): identity, operations, upload requests.

The database is never opened where it lies if that could write: with a -wal (a killed client leaves nearly everything
in it) a copy is opened, else the file itself as immutable.
"""

from __future__ import annotations

import heapq
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from google.protobuf.message import DecodeError

from shardmig.adapters.neptune_local.messages3 import messages

SNAPSHOT: Final = 0
CREATE: Final = 1
_HEAD_ROWS: Final = 16


class Identity(NamedTuple):
    """Which run a database belongs to, and what its beginning says. `created`: the message that made the run."""

    version: str
    project: str
    run_id: str
    first_ms: int | None
    created: Any | None


Row = tuple[int, int, int, int, bytes]
"""One operation, not decoded: time in ms, number of its database, sequence id, kind, message. As sqlite gives it: a
named tuple a row would cost as much as decoding it."""


class UploadRequest(NamedTuple):
    """A file that the client was to upload."""

    source_path: str
    mime_type: str
    size_bytes: int
    is_temporary: bool


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot change the original. The copy, if one is made, lies in `scratch` until the end."""
    beside = [one for one in (Path(f"{path}-wal"), Path(f"{path}-journal")) if one.exists() and one.stat().st_size]
    if not beside:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        # Without the -shm: sqlite rebuilds it from the -wal, a copied one may be older.
        for one in (path, *beside):
            shutil.copyfile(one, Path(folder, one.name))
        with closing(sqlite3.connect(Path(folder, path.name))) as connection:
            yield connection


def identify(connection: sqlite3.Connection) -> Identity | None:
    """None: not a database of neptune-scale, or one that was killed before it held anything. A first record that is
    damaged tells nothing; reading the run finds it again. Raises sqlite3.Error if it has operations of nobody knows
    which run."""
    tables = _tables(connection)
    if "run_operations" not in tables:
        return None
    query = "SELECT version, project, run_id FROM metadata ORDER BY id LIMIT 1"
    row = connection.execute(query).fetchone() if "metadata" in tables else None
    if row is None:
        if connection.execute("SELECT 1 FROM run_operations LIMIT 1").fetchone():
            raise sqlite3.DatabaseError("it does not say of which run it is")
        return None
    head = list(rows(connection, 0, 0, limit=_HEAD_ROWS))
    created = next((message for _, _, _, kind, message in head if kind == CREATE), None)
    message = None if created is None else _parsed(created)
    return Identity(str(row[0]), str(row[1]), str(row[2]), head[0][0] if head else None, message)


def rows(connection: sqlite3.Connection, database: int, after: int, *, limit: int = -1) -> Iterator[Row]:
    """Operations with a sequence id above `after`, in order."""
    return connection.execute(
        "SELECT timestamp, ?, sequence_id, operation_type, operation FROM run_operations"
        " WHERE sequence_id > ? ORDER BY sequence_id LIMIT ?",
        (database, after, limit),
    )


def merged_rows(connections: Sequence[sqlite3.Connection], after: Sequence[int]) -> Iterator[Row]:
    """The operations of all databases of a run, ordered by the time of writing; which is next depends on `after`
    alone."""
    if len(connections) == 1:
        return rows(connections[0], 0, after[0])
    streams = [rows(connection, number, after[number]) for number, connection in enumerate(connections)]
    return heapq.merge(*streams, key=itemgetter(0))


def missing_rows(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many operations are gone: before the first that is left, and after it. A client that was online deletes
    what the server has acknowledged."""
    count, first, last = connection.execute(
        "SELECT count(*), coalesce(min(sequence_id), 0), coalesce(max(sequence_id), 0) FROM run_operations"
    ).fetchone()
    highest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'run_operations'").fetchone()
    last = max(last, highest[0] if highest else 0)
    if not count:
        return last, 0
    return first - 1, last - first + 1 - count


def upload_requests(connection: sqlite3.Connection) -> dict[str, UploadRequest]:
    """By destination. Databases of version v1 have none."""
    if "file_upload_requests" not in _tables(connection):
        return {}
    found = connection.execute(
        "SELECT destination, source_path, mime_type, size_bytes, is_temporary FROM file_upload_requests ORDER BY id"
    )
    return {row[0]: UploadRequest(row[1], row[2], row[3], bool(row[4])) for row in found}


def _parsed(created: bytes) -> Any | None:
    try:
        return messages().Run.FromString(created)
    except DecodeError:
        return None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
