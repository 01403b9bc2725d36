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
    """The store. A SQLite database is not migrated: raises UsageError when another release of ZenML wrote it, and for
    reading when there is none."""
    _give_source_root()
    own = GlobalConfiguration().get_store_configuration()
    is_own = options.store_url in ("", own.url)
    config = own if is_own else _configuration(options.store_url)
    store = _open_current(config, only_read=only_read) if config.url.startswith(_SQLITE) else None
    if store is None:
        with _one_at_a_time(config.url):
            if config.url.startswith(_SQLITE):
                _make_database(config)
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
    """A SQLite database as it is; None: it is yet to be made."""
    path = Path(config.url.removeprefix(_SQLITE))
    held = _revisions(path)
    if only_read and not path.exists():
        raise UsageError(f"there is no ZenML database {path}", hint="set $ZENML_CONFIG_PATH or the option store-url")
    if held and held == _known_revisions():
        return open_local(config)
    if held or only_read:
        raise UsageError(
            f"the ZenML database {path} is of another release than the installed ZenML",
            hint="install the release of ZenML that wrote it, or let ZenML migrate it, or a copy of it",
        )
    return None


def _make_database(config: StoreConfiguration) -> None:
    """Make a database that is not there beside its place: a process that is killed leaves one that is half made, which
    ZenML takes for that of a release that is too old. Raises UsageError where one lies there already."""
    path = Path(config.url.removeprefix(_SQLITE))
    if path.exists():
        if _is_half_made(path):
            raise UsageError(
                f"the ZenML database {path} is of no release: whoever made it was stopped",
                hint="remove it, it is made anew; or let ZenML 0.54 migrate it, if it is that old",
            )
        return
    making = path.with_name(f"{path.name}.making")
    for left in path.parent.glob(f"{making.name}*"):
        left.unlink()
    release(BaseZenStore.create_store(config.model_copy(update={"url": f"{_SQLITE}{making}"})))
    making.rename(path)


def _is_half_made(path: Path) -> bool:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=60)) as connection:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return tables > 0 and not _revisions(path)


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
