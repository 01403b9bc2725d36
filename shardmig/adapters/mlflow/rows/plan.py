"""What is to be copied, and what stands against it: decided before the first row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import Table, func, inspect, select, text

from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.database.schema import EXPERIMENTS, why_not_bulk
from shardmig.adapters.mlflow.rows import tables
from shardmig.adapters.mlflow.rows.digests import Content
from shardmig.adapters.mlflow.rows.mapping import Rewriting
from shardmig.adapters.mlflow.rows.sides import Row, Side
from shardmig.errors import TargetConflict, UsageError

AsCopied = Callable[[Table, list[Row]], list[Row]]
"""Rows of the source as the target gets them, those that it does not get left out."""

ALEMBIC_VERSION: Final = "alembic_version"
DEFAULT_EXPERIMENT: Final = 0
"""MLflow gives every new database one experiment, with this id."""


def check_schema(side: str, database: Database) -> None:
    """Raises UsageError unless it is at the schema revision of the installed MLflow. `side`: source or target."""
    if reason := why_not_bulk(database):
        raise UsageError(
            f"the {side} cannot be copied row by row: {reason}",
            hint="`mlflow db upgrade` on a copy of it, or shardmig migrate, which goes through an archive",
        )


def all_rows(side: Side, table: Table) -> Iterator[list[Row]]:
    """Every row of a table, page by page."""
    place = None
    while True:
        with side.database.reading() as connection:
            rows, place = side.page(connection, table, place)
        if not rows:
            return
        yield rows


def _as_they_are(_: Table, page: list[Row]) -> list[Row]:
    return page


def content_of(side: Side, table: Table, changed: AsCopied = _as_they_are) -> Content:
    """What a table holds, each page of its rows changed so."""
    content = Content()
    for page in all_rows(side, table):
        content = content.with_rows(changed(table, page))
    return content


def is_new(database: Database) -> bool:
    """Has nobody used this database yet? What MLflow puts into every new one does not count."""
    with database.reading() as connection:
        for table in tables.copied():
            rows = select(func.count()).select_from(table)
            if table.name in tables.SEEDED:
                column, value = tables.SEEDED[table.name]
                rows = rows.where(table.c[column] != value)
            if inspect(connection).has_table(table.name) and connection.scalar(rows):
                return False
    return True


def count(database: Database, table: Table) -> int:
    """How many rows a table has."""
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def experiment_ids(source: Side, target: Side) -> dict[int, int]:
    """{id in the source: id in the target} of those that cannot keep their id."""
    theirs = _experiment_names(source.database)
    ours = {} if is_new(target.database) else _experiment_names(target.database)
    greatest = max([experiment for experiment in (*theirs, *ours) if experiment <= target.max_experiment_id], default=0)
    changed = {}
    for experiment in sorted(theirs):
        if experiment in ours or experiment > target.max_experiment_id:
            if experiment == DEFAULT_EXPERIMENT and theirs[experiment] == ours.get(experiment):
                continue  # both have MLflow's own: their runs come together
            greatest += 1
            changed[experiment] = greatest
    return changed


def shares_default(source: Database, target: Database) -> bool:
    """Is the default experiment of both the same, and so not copied?"""
    theirs, ours = _experiment_names(source), _experiment_names(target)
    return DEFAULT_EXPERIMENT in theirs and theirs[DEFAULT_EXPERIMENT] == ours.get(DEFAULT_EXPERIMENT)


def check_nothing_twice(source: Side, target: Side, as_copied: AsCopied) -> None:
    """Raises TargetConflict, with examples, where the target holds something of the same id or name as a row to come."""
    for table in tables.copied():
        for key in tables.own_keys(table):
            if both := _keys(source, table, key, as_copied) & _keys(target, table, key):
                named = ", ".join(sorted(repr(_told(key, one)) for one in both)[:3]) + (" …" if len(both) > 3 else "")
                raise TargetConflict(
                    f"the target has {len(both)} of the source's {table.name} already: {named}",
                    hint="copy into another database, or use shardmig migrate with --name-prefix",
                )


def check_roots(source: Side, roots: Sequence[tuple[str, str]]) -> None:
    """Raises UsageError for a root below which no file of the source lies."""
    left = list(roots)
    for table in filter(Rewriting({}, roots).touches, tables.copied()):
        for page in all_rows(source, table):
            left = [root for root in left if Rewriting({}, [root]).rows(table, page) == page]
            if not left:
                return
    if left:
        with source.database.reading() as connection:
            one = connection.scalar(select(EXPERIMENTS.c.artifact_location).limit(1))
        raise UsageError(
            f"--artifact-root: no artifacts of the source lie below {left[0][0]}",
            hint=f"give it as the database has it; those of one experiment lie in {one}",
        )


def left_out(database: Database) -> dict[str, int]:
    """The rows of each table that is not copied, where there are any: what is volatile, and what the installed MLflow
    does not know (the users of its basic authentication, where they lie in the same database)."""
    known = {table.name for table in tables.copied()} | {ALEMBIC_VERSION}
    counts = {}
    with database.reading() as connection:
        for name in sorted(set(inspect(connection).get_table_names()) - known):
            counts[name] = int(connection.scalar(select(func.count()).select_from(text(f'"{name}"'))) or 0)
    return {name: count for name, count in counts.items() if count}


def _experiment_names(database: Database) -> dict[int, str]:
    with database.reading() as connection:
        found = connection.execute(select(EXPERIMENTS.c.experiment_id, EXPERIMENTS.c.name))
        return {row.experiment_id: row.name for row in found}


def _keys(side: Side, table: Table, key: tuple[str, ...], changed: AsCopied = _as_they_are) -> set[Row]:
    """The values of these columns, of rows that have them all."""
    at = [tables.columns(table).index(name) for name in key]
    keys = {tuple(row[one] for one in at) for page in all_rows(side, table) for row in changed(table, page)}
    return {one for one in keys if None not in one}


def _told(key: tuple[str, ...], values: Row) -> str:
    return " ".join(str(value) for name, value in zip(key, values, strict=True) if name != "workspace")
