"""How far a copy came: a table in the target, written in the same transactions as the rows.

So a copy that was killed goes on exactly behind its last page. The table is dropped when the copy has ended.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Column, Connection, MetaData, Table, Text, delete, insert, inspect, select

from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.rows.digests import Content

_LEDGER: Final = Table("shardmig_copy", MetaData(), Column("name", Text, primary_key=True), Column("state", Text))
_COPY: Final = "#copy"


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided when the copy began. `before`: the target's rows at that time, by table. `shares_default`: the
    source's default experiment becomes part of the target's. `whole`: the tables that came with the file."""

    source: str
    roots: list[tuple[str, str]]
    experiments: dict[int, int]
    is_new: bool
    shares_default: bool
    before: dict[str, Content]
    whole: frozenset[str] = frozenset()


class Progress(msgspec.Struct, frozen=True):
    """How far one table came: the place behind the last row."""

    place: list[Any] = []
    is_done: bool = False


def read_ledger(database: Database) -> tuple[Begun | None, dict[str, Progress]]:
    """What an earlier execution began, None if none did, and how far each table came."""
    with database.reading() as connection:
        if not inspect(connection).has_table(_LEDGER.name):
            return None, {}
        states = {row.name: row.state for row in connection.execute(select(_LEDGER))}
    begun = msgspec.json.decode(states.pop(_COPY), type=Begun) if _COPY in states else None
    return begun, {name: msgspec.json.decode(state, type=Progress) for name, state in states.items()}


def begin(connection: Connection, begun: Begun) -> None:
    """Open the ledger, in the caller's transaction."""
    _LEDGER.create(connection, checkfirst=True)
    _set(connection, _COPY, begun)


def note(connection: Connection, table: str, progress: Progress) -> None:
    """Keep how far a table came, in the transaction of its rows."""
    _set(connection, table, progress)


def end(connection: Connection) -> None:
    """The copy has ended, in the caller's transaction."""
    _LEDGER.drop(connection, checkfirst=True)


def _set(connection: Connection, name: str, state: Begun | Progress) -> None:
    connection.execute(delete(_LEDGER).where(_LEDGER.c.name == name))
    connection.execute(insert(_LEDGER).values(name=name, state=msgspec.json.encode(state).decode()))
