"""Which of the traces that are asked for next are here: one request for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from shardmig.adapters.base import migration_key
from shardmig.errors import Permanent
from shardmig.records import MigrationKey, RunRef


class Sought:
    """What is known of some traces, until they are written to. `fetch` gives the infos of those of some ids that are
    here."""

    def __init__(self, fetch: Callable[[list[str]], Iterable[Any]]) -> None:
        self._fetch = fetch
        self._ids: dict[MigrationKey, str] = {}
        self._infos: dict[str, Any] | None = None

    def expect(self, runs: Iterable[RunRef]) -> None:
        """These are asked for next. A trace has the same id everywhere."""
        self._ids = {migration_key(run): str(run.id) for run in runs}
        self._infos = None

    def id_of(self, key: MigrationKey) -> str | None:
        """Which trace would carry this key, of those that something is known of."""
        self._look_up()
        return self._ids.get(key)

    def info(self, id_: str) -> Any:
        """Of one that something is known of; None: it is not here."""
        return (self._infos or {}).get(id_)

    def is_absent(self, id_: str) -> bool:
        """Is it known not to be here?"""
        return self._infos is not None and id_ in self._ids.values() and id_ not in self._infos

    def forget(self, id_: str) -> None:
        """It is written to: it must be asked for again."""
        self._ids = {key: known for key, known in self._ids.items() if known != id_}

    def _look_up(self) -> None:
        if self._infos is not None or not self._ids:
            return
        try:
            self._infos = {info.trace_id: info for info in self._fetch(list(self._ids.values()))}
        except (NotImplementedError, Permanent):  # folders, and servers that are older than this request
            self._ids = {}
