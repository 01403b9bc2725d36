"""A tracking database: its engine, its transactions, and its errors as shardmig's. Knows no table."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy import Connection, event, exc
from sqlalchemy.engine import make_url

from shardmig.adapters.mlflow.database.turns import turn
from shardmig.errors import (
    AdapterError,
    AuthFailed,
    BadInput,
    DiskFull,
    Fatal,
    Unavailable,
)

LOCK_WAIT_S: Final = 120
"""How long a writer waits for the others: many transactions of `store.ROWS_A_TRANSACTION` rows."""
PAGE_CACHE_KIB: Final = 32_768
"""SQLite's page cache. Its default of 2 MB makes index pages go out and come in again (measured: 10 to 20 % slower)."""

_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_SQLITE_REFUSED: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_SQLITE_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN})
_POSTGRES_CLASSES: Final[dict[str, type[AdapterError]]] = {
    "08": Unavailable,  # connection
    "40": Unavailable,  # serialization failure, deadlock
    "53": Unavailable,  # too many connections, out of memory
    "55": Unavailable,  # lock not available
    "57": Unavailable,  # shut down, cancelled
    "28": AuthFailed,
    "3D": Fatal,  # no such database
    "22": BadInput,
    "23": BadInput,
}
_POSTGRES_STATES: Final[dict[str, type[AdapterError]]] = {"53100": DiskFull, "42501": AuthFailed}


class Database:
    """Connections to one tracking database. One thread at a time; `close` releases them."""

    def __init__(self, uri: str) -> None:
        """Connects to nothing yet. `uri` names its driver, see `uri.driver_uri`."""
        self.is_sqlite = uri.startswith("sqlite")
        path = make_url(uri).database if self.is_sqlite else None
        self.file = None if not path or path == ":memory:" or path.startswith("file:") else Path(path)
        """Of SQLite, where it has one."""
        options = {"connect_args": {"timeout": LOCK_WAIT_S}} if self.is_sqlite else {"pool_pre_ping": True}
        self.engine = sqlalchemy.create_engine(uri, pool_size=1, max_overflow=1, **options)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back on any error.

        On SQLite it takes the write lock at once: a transaction that reads first and asks for the lock later would
        fail without waiting when another one wrote in between. Workers take turns before, because SQLite only polls
        for its lock (measured with four writers: one of them waited 8 s, with turns 0.9 s).
        """
        with self.translated(), self._turn(), self.engine.connect() as connection, connection.begin():
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from. On SQLite every statement stands alone, so that no lock outlives it."""
        with self.translated(), self.engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection; idempotent."""
        self.engine.dispose()

    def _turn(self) -> AbstractContextManager[None]:
        return turn("write", os.path.realpath(self.file)) if self.file else nullcontext()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns errors of SQLAlchemy and of the driver (rows and COPY go past SQLAlchemy for speed) into ours."""
        try:
            yield
        except exc.DBAPIError as error:
            raise _shardmig_error(error.orig or error) from error
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise _shardmig_error(error) from error


def remove_file(file: Path) -> None:
    """Remove a SQLite file, or what is left beside one: SQLite would play a journal back into the next file of this name."""
    for end in ("", "-journal", "-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `writing` says so
    # Looked up for every row, foreign keys take a fifth of a bulk insert (measured): who writes looks once whether the run is
    # there. Said and not left to the default, which is what SQLite was compiled with.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")


def _shardmig_error(error: BaseException) -> AdapterError:
    message = f"tracking database: {str(error).strip() or type(error).__name__}"
    if isinstance(error, sqlite3.Error):
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
            message += ": may the file be read and its folder be written, or is the disk full?"
        return _sqlite_class(error)(message)
    return _postgres_class(error)(message)


def _sqlite_class(error: sqlite3.Error) -> type[AdapterError]:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _SQLITE_BUSY:
        return Unavailable
    if code == sqlite3.SQLITE_FULL:
        return DiskFull
    if code in _SQLITE_REFUSED:
        return AuthFailed
    return Fatal if code in _SQLITE_BROKEN else BadInput


def _postgres_class(error: BaseException) -> type[AdapterError]:
    state = getattr(error, "sqlstate", None) or ""
    if not state:  # a connection that could not be made or broke: libpq tells the reason as text only
        refused = any(words in str(error) for words in ("authentication failed", "no password", "does not exist"))
        return AuthFailed if refused else Unavailable
    return _POSTGRES_STATES.get(state) or _POSTGRES_CLASSES.get(state[:2], BadInput)
