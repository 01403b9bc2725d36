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
        self._begun = begun or self._begin(digest)

    def execute(self) -> Copied:
        """Copy what is not there yet, and compare everything."""
        begun = self._begun
        copied = {table.name: self._copied(table) for table in tables.copied()}
        compared = [self._compared(table, copied[table.name]) for table in tables.copied()]
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

    def _begin(self, digest: str) -> Begun:
        new = plan.is_new(self._target.database)
        if not new:
            plan.check_nothing_twice(self._source, self._target)
        begun = Begun(
            source=digest,
            roots=self._roots,
            experiments=plan.experiment_ids(self._source, self._target),
            before={} if new else {table.name: self._content(table) for table in tables.copied()},
            is_new=new,
            shares_default=not new and plan.shares_default(self._source.database, self._target.database),
        )
        with self._target.database.writing() as connection:
            for table in tables.copied():
                if new and table.name in tables.SEEDED:
                    connection.execute(delete(table))
            ledger.begin(connection, begun)
        return begun

    def _copied(self, table: Table) -> Content:
        """What is copied of a table, now or earlier."""
        if table.name in self._begun.whole:
            self._seen(table.name, plan.count(self._source.database, table))
            return Content()
        rewriting = Rewriting(self._begun.experiments, self._begun.roots)
        return self._copy(table, _is_wanted(table, self._begun), rewriting, self._progress.get(table.name))

    def _copy(
        self, table: Table, is_wanted: Callable[[Row], bool], rewriting: Rewriting, progress: Progress | None
    ) -> Content:
        progress = progress or Progress()
        while not progress.is_done:
            with self._source.database.reading() as connection:
                rows, place = self._source.page(connection, table, progress.place or None)
            is_done = not rows
            rows = rewriting.rows(table, list(filter(is_wanted, rows)))
            progress = Progress(place, progress.content.with_rows(rows), is_done)
            with self._target.database.writing() as connection:
                if rows:
                    self._target.insert(connection, table, rows)
                ledger.note(connection, table.name, progress)
            self._seen(table.name, len(rows))
        return progress.content

    def _compared(self, table: Table, copied: Content) -> TableCopy:
        if table.name in self._begun.whole:
            return TableCopy(str(table.name), *whole.compared(self._source.database, self._target.database, table))
        held = self._content(table).without(self._begun.before.get(table.name, Content()))
        return TableCopy(str(table.name), copied.rows, held == copied)

    def _content(self, table: Table) -> Content:
        return plan.content_of(self._target, table)


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
