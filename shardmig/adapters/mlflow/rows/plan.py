"""What is to be copied, and what stands against it: decided before the first row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import Table, func, inspect, select, text

from shardmig.adapters.mlflow.database.connection import Database
from shardmig.adapters.mlflow.database.schema import EXPERIMENTS, why_not_bulk
from shardmig.adapters.mlflow.rows import tables
from shardmig.adapters.mlflow.rows.digests import Content
from shardmig.adapters.mlflow.rows.sides import Row, Side
from shardmig.errors import TargetConflict, UsageError

ALEMBIC_VERSION: Final = "alembic_version"
DEFAULT_EXPERIMENT: Final = 0
"""MLflow gives every new database one experiment, with this id."""

_NAMED: Final = {
    "experiments": ("name",),
    "runs": ("run_uuid",),
    "registered_models": ("name",),
    "logged_models": ("model_id",),
    "trace_info": ("request_id",),
    "evaluation_datasets": ("dataset_id",),
}
"""What must not be in the target already, and how it is told."""


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


def content_of(side: Side, table: Table, seen: Callable[[int], None] = lambda _: None) -> Content:
    """What a table holds."""
    content = Content()
    for rows in all_rows(side, table):
        content = content.with_rows(rows)
        seen(len(rows))
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


def check_nothing_twice(source: Side, target: Side) -> None:
    """Raises TargetConflict, with examples, where the target holds something of the same id or name."""
    for table in tables.copied():
        if table.name not in _NAMED:
            continue
        theirs, ours = (_names(side.database, table) for side in (source, target))
        both = sorted(theirs & ours)
        if table.name == EXPERIMENTS.name and shares_default(source.database, target.database):
            both = [name for name in both if name != _experiment_names(source.database)[DEFAULT_EXPERIMENT]]
        if both:
            named = ", ".join(map(repr, both[:3])) + (" …" if len(both) > 3 else "")
            raise TargetConflict(
                f"the target has {len(both)} of the source's {table.name} already: {named}",
                hint="copy into another database, or use shardmig migrate with --name-prefix",
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


def _names(database: Database, table: Table) -> set[str]:
    with database.reading() as connection:
        return set(connection.scalars(select(table.c[_NAMED[table.name][0]])))
