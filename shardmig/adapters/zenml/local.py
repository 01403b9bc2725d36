"""ZenML's SQLite store, which can put what several calls write into one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection, Engine
from zenml.config.store_config import StoreConfiguration
from zenml.zen_stores.sql_zen_store import SqlZenStore


class LocalStore(SqlZenStore):
    """Left alone, ZenML commits after each row: twenty waits for the disk a run, and for other workers."""

    _bound: Connection | None = None

    @property
    def engine(self) -> Engine:
        """What ZenML's sessions are opened on."""
        return super().engine if self._bound is None else cast("Engine", self._bound)

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction: all that is written within comes into the database at its end, or, with an exception, nothing.

        ZenML's own commits and roll-backs are those of savepoints meanwhile. Other writers wait, so do nothing else within.
        """
        with super().engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            raw.isolation_level = (
                None  # else the driver begins by itself, and too late: two readers cannot both write then
            )
            try:
                whole = connection.begin()
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                part = connection.begin_nested()
                self._bound = connection
                try:
                    yield
                finally:
                    self._bound = None
                part.commit()
                whole.commit()
            except BaseException:
                connection.invalidate()  # closing it rolls everything back, in whatever state ZenML left it
                raise
            raw.isolation_level = ""


def open_local(config: StoreConfiguration) -> LocalStore:
    """A SQLite store whose tables are there and up to date."""
    arguments: dict[str, Any] = {"config": config, "skip_default_registrations": True, "skip_migrations": True}
    return LocalStore(**arguments)
