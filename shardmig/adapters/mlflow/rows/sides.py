"""Rows out of and into a tracking database, past SQLAlchemy's types: the same values whatever the database.

A row is a tuple of int, float, str, bytes and None in the order of `tables.columns`; truth values are 0 and 1, JSON
documents and days their text. A place is where a page of rows ended; it is kept as JSON.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Table

from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.rows import tables

Row = tuple[Any, ...]
Place = list[Any]

MAX_INT32: Final = 2**31 - 1


class Side(Protocol):
    """One of the two databases."""

    database: Database
    max_experiment_id: int

    def page(self, connection: Connection, table: Table, after: Place | None) -> tuple[list[Row], Place]:
        """The next rows behind a place (None: the first ones), and the place behind them. No rows: that was all."""
        ...

    def insert(self, connection: Connection, table: Table, rows: list[Row]) -> None:
        """Insert rows. Raises BadInput where one is there already."""
        ...

    def settle(self, connection: Connection) -> None:
        """Last of all: let the database's own counters go on behind the copied ids."""
        ...


def side_of(database: Database) -> Side:
    """The side for a database that the bulk path speaks to."""
    return _Sqlite(database) if database.is_sqlite else _Postgres(database)


class _Sqlite:
    max_experiment_id = 2**63 - 1

    def __init__(self, database: Database) -> None:
        self.database = database

    def page(self, connection: Connection, table: Table, after: Place | None) -> tuple[list[Row], Place]:
        names = ", ".join(f'"{name}"' for name in tables.columns(table))
        first = after[0] if after else -(2**63)
        behind = f'SELECT rowid FROM "{table.name}" WHERE rowid > ? ORDER BY rowid LIMIT ?'
        cursor = connection.connection.cursor()
        # The place comes first: a row that somebody appends in between belongs to the next page.
        place = list(cursor.execute(f"SELECT max(rowid) FROM ({behind})", (first, tables.page_rows(table))).fetchone())
        within = f'FROM "{table.name}" WHERE rowid > ? AND rowid <= ? ORDER BY rowid'
        return cursor.execute(f"SELECT {names} {within}", (first, *place)).fetchall(), place

    def insert(self, connection: Connection, table: Table, rows: list[Row]) -> None:
        names = tables.columns(table)
        listed = ", ".join(f'"{name}"' for name in names)
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(f'INSERT INTO "{table.name}" ({listed}) VALUES ({marks})', rows)

    def settle(self, connection: Connection) -> None:
        """SQLite's counters follow the greatest id by themselves."""


class _Postgres:
    max_experiment_id = MAX_INT32

    def __init__(self, database: Database) -> None:
        self.database = database

    def page(self, connection: Connection, table: Table, after: Place | None) -> tuple[list[Row], Place]:
        names, key = tables.columns(table), tables.key(table)
        listed = ", ".join(f'"{name}"::text' if name in tables.texts(table) else f'"{name}"' for name in names)
        keys = ", ".join(f'"{name}"' for name in key)
        behind = f"WHERE ({keys}) > ({', '.join(['%s'] * len(key))})" if after else ""
        found = connection.exec_driver_sql(
            f'SELECT {listed}, {keys} FROM "{table.name}" {behind} ORDER BY {keys} LIMIT %s',
            (*(after or ()), tables.page_rows(table)),
        ).fetchall()
        width, flags = len(names), tables.flags(table)
        place = list(found[-1][width:]) if found else list(after or ())
        return [_plain(tuple(row[:width]), flags) for row in found], place

    def insert(self, connection: Connection, table: Table, rows: list[Row]) -> None:
        listed = ", ".join(f'"{name}"' for name in tables.columns(table))
        flags = tables.flags(table)
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f'COPY "{table.name}" ({listed}) FROM STDIN') as copy:
            for row in rows:
                copy.write_row(_with_truth(row, flags) if flags else row)

    def settle(self, connection: Connection) -> None:
        for table in tables.copied():
            for column in table.primary_key.columns:
                name = connection.exec_driver_sql(
                    "SELECT pg_get_serial_sequence(%s, %s)", (table.name, column.name)
                ).scalar()
                if name is not None:
                    greatest = f'SELECT coalesce(max("{column.name}"), 0) + 1 FROM "{table.name}"'
                    connection.exec_driver_sql(f"SELECT setval(%s, ({greatest}), false)", (name,))


def _plain(row: Row, flags: tuple[int, ...]) -> Row:
    values = [
        bytes(value) if isinstance(value, memoryview) else float(value) if isinstance(value, Decimal) else value
        for value in row
    ]
    for at in flags:
        if values[at] is not None:
            values[at] = int(values[at])
    return tuple(values)


def _with_truth(row: Row, flags: tuple[int, ...]) -> Row:
    values = list(row)
    for at in flags:
        if values[at] is not None:
            values[at] = bool(values[at])
    return tuple(values)
