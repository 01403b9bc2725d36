"""One copy, from the first row to the proof that all are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec
from sqlalchemy import Table, delete

from shardmig.adapters.mlflow.database import prepare_database
from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.database.schema import EXPERIMENT_TAGS, EXPERIMENTS
from shardmig.adapters.mlflow.database.uri import driver_uri, is_bulk_dialect
from shardmig.adapters.mlflow.rows import ledger, plan, tables, whole
from shardmig.adapters.mlflow.rows.digests import Content
from shardmig.adapters.mlflow.rows.ledger import Begun, Progress
from shardmig.adapters.mlflow.rows.mapping import Rewriting
from shardmig.adapters.mlflow.rows.sides import Row, side_of
from shardmig.errors import TargetConflict, UsageError

Seen = Callable[[str, int], None]
"""Told the table and how many of its rows were copied or compared just now."""


class TableCopy(msgspec.Struct, frozen=True):
    """One table afterwards: rows copied, and whether the target holds exactly them."""

    name: str
    rows: int
    is_equal: bool


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy did. `experiments`: (id there, id here) of those that changed. `shares_default`: the target kept its own default experiment,
    with the source's runs in it. `left_out`: rows of tables that are not copied."""

    tables: list[TableCopy]
    experiments: list[tuple[int, int]]
    shares_default: bool
    left_out: dict[str, int]
    went_on: bool

    @property
    def is_equal(self) -> bool:
        """Does the target hold every row, exactly?"""
        return all(table.is_equal for table in self.tables)


def copy_database(source_uri: str, target_uri: str, roots: Sequence[tuple[str, str]], seen: Seen) -> Copied:
    """Copy every row of the source into the target and compare them afterwards. The source is only read.

    `roots`: (old, new) beginnings of artifact URIs. The same copy after a crash goes on where it stopped. A database
    that does not exist yet is made. Raises UsageError for other schema revisions and dialects, TargetConflict for
    what the target has already, AdapterError classes for what the databases refuse.
    """
    for uri in (source_uri, target_uri):
        if not is_bulk_dialect(driver_uri(uri)):
            raise UsageError(f"{uri.partition(':')[0]} databases cannot be copied row by row", hint="shardmig migrate")
    source, target = (Database(driver_uri(uri, bulk=True)) for uri in (source_uri, target_uri))
    try:
        copy = _Copy(source, target, list(roots), seen)
        copy.begin(source_uri, target_uri)
        return copy.execute()
    finally:
        source.close()
        target.close()


class _Copy:
    def __init__(self, source: Database, target: Database, roots: list[tuple[str, str]], seen: Seen) -> None:
        self._source = side_of(source)
        self._target = side_of(target)
        self._roots = roots
        self._seen = seen

    def begin(self, source_uri: str, target_uri: str) -> None:
        """See to it that the target has a ledger of this copy, and what `execute` needs. Raises as `copy_database`."""
        source, target = self._source.database, self._target.database
        plan.check_schema("source", source)
        plan.check_roots(self._source, self._roots)
        digest = blake2b(source_uri.encode(), digest_size=16).hexdigest()
        self._went_on = True
        if whole.may_take_all(source, target):
            self._went_on = False
            whole.take_all(source, target, self._whole(digest))
        prepare_database(target_uri)
        plan.check_schema("target", target)
        begun, self._progress = ledger.read_ledger(target)
        if begun is not None and (begun.source, begun.roots) != (digest, self._roots):
            raise TargetConflict(
                "another copy into this database has begun and not ended",
                hint="give that command again; or drop the table shardmig_copy and what it copied",
            )
        self._went_on &= begun is not None
        self._begun = begun or self._decided(digest)
        self._rewriting = Rewriting(self._begun.experiments, self._begun.roots)
        if begun is None:
            self._open_ledger()

    def execute(self) -> Copied:
        """Copy what is not there yet, and compare everything."""
        begun = self._begun
        for table in tables.copied():
            self._copied(table)
        compared = [self._compared(table) for table in tables.copied()]
        if all(table.is_equal for table in compared):
            with self._target.database.writing() as connection:
                self._target.settle(connection)
                ledger.end(connection)
        return Copied(
            tables=[table for table in compared if table.rows or not table.is_equal],
            experiments=sorted(begun.experiments.items()),
            shares_default=begun.shares_default,
            left_out=plan.left_out(self._source.database),
            went_on=self._went_on,
        )

    def _whole(self, digest: str) -> Begun:
        """The beginning of a copy of the file: whole are the tables in which no row changes."""
        rewriting = Rewriting({}, self._roots)
        return Begun(
            source=digest,
            roots=self._roots,
            experiments={},
            before={},
            is_new=True,
            shares_default=False,
            whole=frozenset(str(table.name) for table in tables.copied() if not rewriting.touches(table)),
        )

    def _decided(self, digest: str) -> Begun:
        source, target = self._source, self._target
        new = plan.is_new(target.database)
        return Begun(
            source=digest,
            roots=self._roots,
            experiments=plan.experiment_ids(source, target),
            before={},
            is_new=new,
            shares_default=not new and plan.shares_default(source.database, target.database),
        )

    def _open_ledger(self) -> None:
        """Look at what is in the target, and write the first line. Raises TargetConflict."""
        if not self._begun.is_new:
            plan.check_nothing_twice(self._source, self._target, self._as_copied)
            before = {table.name: plan.content_of(self._target, table) for table in tables.copied()}
            self._begun = msgspec.structs.replace(self._begun, before=before)
        with self._target.database.writing() as connection:
            for table in tables.copied():
                if self._begun.is_new and table.name in tables.SEEDED:
                    connection.execute(delete(table))
            ledger.begin(connection, self._begun)

    def _copied(self, table: Table) -> None:
        """Copy what is not there yet of a table."""
        if table.name in self._begun.whole:
            self._seen(table.name, plan.count(self._source.database, table))
            return
        progress = self._progress.get(table.name, Progress())
        while not progress.is_done:
            with self._source.database.reading() as connection:
                page, place = self._source.page(connection, table, progress.place or None)
            rows = self._as_copied(table, page)
            progress = Progress(place, is_done=not page)
            with self._target.database.writing() as connection:
                if rows:
                    self._target.insert(connection, table, rows)
                ledger.note(connection, table.name, progress)
            self._seen(table.name, len(rows))

    def _as_copied(self, table: Table, page: list[Row]) -> list[Row]:
        """The wanted rows of a page, as the target gets them."""
        return self._rewriting.rows(table, list(filter(_is_wanted(table, self._begun), page)))

    def _compared(self, table: Table) -> TableCopy:
        """Both sides are read once more: what was read while copying may have changed since."""
        if table.name in self._begun.whole:
            return TableCopy(str(table.name), *whole.compared(self._source.database, self._target.database, table))
        wanted = plan.content_of(self._source, table, self._as_copied)
        held = plan.content_of(self._target, table).without(self._begun.before.get(table.name, Content()))
        return TableCopy(str(table.name), wanted.rows, held == wanted)


def _is_wanted(table: Table, begun: Begun) -> Callable[[Row], bool]:
    """Which rows of a table are copied: not what describes a default that the target has too."""
    if begun.is_new or (table.name == EXPERIMENTS.name and not begun.shares_default):
        return lambda _: True
    if table.name == EXPERIMENT_TAGS.name and begun.shares_default:
        column, value = tables.SEEDED[EXPERIMENTS.name]
    elif table.name in tables.SEEDED:
        column, value = tables.SEEDED[table.name]
    else:
        return lambda _: True
    at = tables.columns(table).index(column)
    return lambda row: row[at] != value
