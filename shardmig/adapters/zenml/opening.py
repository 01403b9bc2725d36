"""Which store of ZenML, and how it is opened: as ZenML's own configuration says, or as an option does."""

from __future__ import annotations

import fcntl
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import create_engine
from zenml.config.global_config import GlobalConfiguration
from zenml.config.store_config import StoreConfiguration
from zenml.utils import source_utils
from zenml.zen_stores.base_zen_store import BaseZenStore
from zenml.zen_stores.migrations.alembic import Alembic

from shardmig.adapters.zenml.local import open_local
from shardmig.adapters.zenml.options import StoreOptions
from shardmig.errors import UsageError

_SQLITE: Final = "sqlite:///"
DEFAULT: Final = "default"
"""What ZenML calls the project and the stack that every store has."""


class Opened(NamedTuple):
    """A store, and what its configuration says is active there."""

    store: BaseZenStore
    project: UUID | str
    stack: UUID | str


def open_store(options: StoreOptions, *, only_read: bool = False) -> Opened:
    """The store. For reading, a database is neither made nor migrated: raises UsageError when it does not exist, or when
    another release of ZenML wrote it."""
    _give_source_root()
    own = GlobalConfiguration().get_store_configuration()
    is_own = options.store_url in ("", own.url)
    config = own if is_own else _configuration(options.store_url)
    store = _open_current(config, only_read=only_read) if config.url.startswith(_SQLITE) else None
    if store is None:
        with _one_at_a_time(config.url):
            store = BaseZenStore.create_store(config)
        if config.url.startswith(_SQLITE):
            release(store)
            store = open_local(config)
    active = GlobalConfiguration()
    project = active.active_project_id if is_own else None
    stack = active.active_stack_id if is_own else None
    return Opened(store, project or DEFAULT, stack or DEFAULT)


def _give_source_root() -> None:
    """ZenML imports the class of an artifact store from beside the main module, which a worker process has not."""
    try:
        source_utils.get_source_root()
    except RuntimeError:
        source_utils.set_custom_source_root(str(Path.cwd()))


def release(store: BaseZenStore) -> None:
    """Close the connections of a store; idempotent."""
    engine = getattr(store, "engine", None)  # a server's store has none
    if engine is not None:
        engine.dispose()


def _configuration(url: str) -> StoreConfiguration:
    kind = BaseZenStore.get_store_type(url)
    named = BaseZenStore.get_store_config_class(kind)(type=kind, url=url)
    config = GlobalConfiguration().get_store_configuration(baseline=named)
    if config.url != url:
        raise UsageError("the option store-url and $ZENML_STORE_URL name different stores", hint="unset one of them")
    return config


def _open_current(config: StoreConfiguration, *, only_read: bool) -> BaseZenStore | None:
    """A SQLite database as it is; None: it is yet to be made or migrated, which ZenML does."""
    path = Path(config.url.removeprefix(_SQLITE))
    held = _revisions(path)
    if only_read and not path.exists():
        raise UsageError(f"there is no ZenML database {path}", hint="set $ZENML_CONFIG_PATH or the option store-url")
    if held and held == _known_revisions():
        return open_local(config)
    if only_read:
        raise UsageError(
            f"the ZenML database {path} is of another release than the installed ZenML",
            hint="install the release of ZenML that wrote it, or let ZenML migrate a copy of it",
        )
    return None


def _revisions(path: Path) -> list[str]:
    """Of the database's schema; none: it is yet to be made."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=60)) as connection:
        try:
            return sorted(row[0] for row in connection.execute("SELECT version_num FROM alembic_version"))
        except sqlite3.OperationalError:
            return []


@cache
def _known_revisions() -> list[str]:
    """Of the schema of the installed ZenML. Its hundreds of migrations take half a second to look through (measured)."""
    return sorted(Alembic(create_engine("sqlite://")).head_revisions())


@contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """Two workers that open a new database at once would both make its tables."""
    name = blake2b(url.encode(), digest_size=8).hexdigest()
    with (Path(tempfile.gettempdir()) / f"shardmig-zenml-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
