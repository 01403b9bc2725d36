"""A SQLite database into one that holds nothing yet: the pages of its file are copied, not its rows.

Measured: two million points in 2 s, row by row in 30 s. The file is made beside the target and takes its place whole.
Rows are compared all the same, by SQLite itself.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from mlflow.store.db.base_sql_model import Base
from sqlalchemy import Connection, Table, delete, inspect

from shardmig.adapters.mlflow.database.connection import Database, remove_file
from shardmig.adapters.mlflow.rows import ledger, plan, tables
from shardmig.adapters.mlflow.rows.ledger import Begun

_BUSY_MS: Final = 120_000
_OWN_TRIGGERS: Final = frozenset({"prevent_secrets_aad_mutation"})
"""MLflow's migrations make this one, and no view (3.17.2)."""


def may_take_all(source: Database, target: Database) -> bool:
    """Are both SQLite files, and does the target hold nothing: neither in MLflow's tables nor anything of somebody else's?"""
    if source.file is None or target.file is None:
        return False
    if not target.file.exists():
        return True
    with target.reading() as connection:
        names = set(inspect(connection).get_table_names())
        has_code = bool(_code(connection))
    return not has_code and names <= {*Base.metadata.tables, plan.ALEMBIC_VERSION} and plan.is_new(target)


def take_all(source: Database, target: Database, begun: Begun) -> None:
    """Copy the file, and empty the tables that `begun` does not name as whole. The ledger is in the target in the same
    moment as everything else."""
    assert source.file is not None
    assert target.file is not None
    target.file.parent.mkdir(parents=True, exist_ok=True)
    staged = target.file.with_name(f"{target.file.name}.shardmig-new")
    remove_file(staged)
    with source.translated():
        _stage(source.file, staged)
    trimmed = Database(f"sqlite:///{staged}")
    try:
        with trimmed.writing() as connection:
            _trim(connection, begun.whole)
            ledger.begin(connection, begun)
    finally:
        trimmed.close()
    if not target.file.exists():
        remove_file(target.file)
        os.replace(staged, target.file)
        return
    target.close()
    with target.translated():
        _copy_pages(staged, target.file)
    remove_file(staged)


def compared(source: Database, target: Database, table: Table) -> tuple[int, bool]:
    """How many rows the source has, and whether the target has exactly them, each at its place."""
    equal = " AND ".join(f'theirs."{name}" IS ours."{name}"' for name in tables.columns(table))
    ours, theirs = f'main."{table.name}"', f'source."{table.name}"'
    both = f"{theirs} theirs JOIN {ours} ours ON ours.rowid = theirs.rowid WHERE {equal}"
    with target.reading() as connection, closing(connection.connection.cursor()) as cursor:
        cursor.execute("ATTACH ? AS source", (str(source.file),))
        try:
            counts = [cursor.execute(f"SELECT count(*) FROM {rows}").fetchone()[0] for rows in (theirs, ours, both)]
        finally:
            cursor.execute("DETACH source")
    return counts[0], len(set(counts)) == 1


def _stage(old: Path, new: Path) -> None:
    """Copy the file as such, a quarter of the time that SQLite's backup takes (measured: 550 MB in 0.2 s, not 1.2 s)."""
    with closing(_connected(old)) as reading:
        if reading.execute("PRAGMA journal_mode").fetchone() == ("wal",):  # part of it lies in another file
            _copy_pages(old, new)
            return
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on no writer changes the file
        shutil.copyfile(old, new)


def _copy_pages(old: Path, new: Path) -> None:
    with closing(_connected(old)) as reading, closing(_connected(new)) as writing:
        reading.backup(writing)


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    return connection


def _trim(connection: Connection, whole: frozenset[str]) -> None:
    """Leave only what belongs to MLflow, and the rows of these tables only."""
    for kind, name in _code(connection):
        connection.exec_driver_sql(f'DROP {kind} "{name}"')
    for name in set(inspect(connection).get_table_names()) - {*Base.metadata.tables, plan.ALEMBIC_VERSION}:
        connection.exec_driver_sql(f'DROP TABLE "{name}"')
    for table in reversed(Base.metadata.sorted_tables):
        if table.name not in whole:
            connection.execute(delete(table))


def _code(connection: Connection) -> list[tuple[str, str]]:
    """Triggers and views that are not MLflow's: (kind, name)."""
    found = connection.exec_driver_sql("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')")
    return [(kind, name) for kind, name in found if name not in _OWN_TRIGGERS]
