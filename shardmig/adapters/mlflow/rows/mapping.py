"""What a copy rewrites: experiment ids that the target gives anew, and where files lie. Everything else stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table

from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.rows import tables
from shardmig.adapters.mlflow.rows.sides import Row

Change = Callable[[list[Any]], None]

_EXPERIMENT: Final = "experiment"
_ENDS: Final = (("source_type", "source_id"), ("destination_type", "destination_id"))


class Rewriting:
    """Rewrites rows of one copy. Pure. `experiments`: {id there: id here} of those that change; `roots`: (old, new)
    beginnings of URIs, the first that fits counts."""

    def __init__(self, experiments: Mapping[int, int], roots: Sequence[tuple[str, str]]) -> None:
        self._experiments = dict(experiments)
        self._roots = [pair for old, new in roots for pair in _spellings(old.rstrip("/"), new.rstrip("/"))]

    def rows(self, table: Table, rows: list[Row]) -> list[Row]:
        """The rows as the target gets them."""
        changes = self._changes(table)
        if not changes:
            return rows
        rewritten = []
        for row in rows:
            values = list(row)
            for change in changes:
                change(values)
            rewritten.append(tuple(values))
        return rewritten

    def touches(self, table: Table) -> bool:
        """May any row of this table change?"""
        return bool(self._changes(table))

    def uri(self, uri: Any) -> Any:
        """Where files lie afterwards."""
        if isinstance(uri, str):
            for old, new in self._roots:
                if is_below(uri, old):
                    return new + uri[len(old) :]
        return uri

    def _changes(self, table: Table) -> list[Change]:
        at = {name: position for position, name in enumerate(tables.columns(table))}
        changes: list[Change] = []
        if self._experiments:
            if "experiment_id" in at:
                changes.append(self._experiment_at(at["experiment_id"]))
            if table.name == "entity_associations":
                changes += [self._end_at(at[kind], at[end]) for kind, end in _ENDS]
            if table.name in tables.EXPERIMENT_LISTS:
                changes.append(self._tag_at(at, tables.EXPERIMENT_LISTS[table.name], self._experiment_list))
        if self._roots:
            changes += [self._uri_at(at[name]) for name in tables.URIS.get(table.name, ())]
            if table.name in tables.URI_TAGS:
                changes += [self._tag_at(at, key, self.uri) for key in tables.URI_TAGS[table.name]]
        return changes

    def _experiment_at(self, at: int) -> Change:
        def change(values: list[Any]) -> None:
            values[at] = self._experiments.get(values[at], values[at])

        return change

    def _end_at(self, kind: int, end: int) -> Change:
        def change(values: list[Any]) -> None:
            if values[kind] == _EXPERIMENT:
                values[end] = self._experiment_text(values[end])

        return change

    def _uri_at(self, at: int) -> Change:
        def change(values: list[Any]) -> None:
            values[at] = self.uri(values[at])

        return change

    def _tag_at(self, at: Mapping[str, int], key: str, rewrite: Callable[[Any], Any]) -> Change:
        key_at, value_at = at["key"], at["value"]

        def change(values: list[Any]) -> None:
            if values[key_at] == key:
                values[value_at] = rewrite(values[value_at])

        return change

    def _experiment_list(self, text: Any) -> Any:
        return ",".join(map(self._experiment_text, text.split(","))) if isinstance(text, str) else text

    def _experiment_text(self, text: str) -> str:
        return str(self._experiments.get(int(text), text)) if text.isdecimal() else text


def is_below(uri: str, root: str) -> bool:
    """Does it lie at or below the root, which has no slash at its end?"""
    return uri == root or uri.startswith(f"{root}/")


def _spellings(old: str, new: str) -> list[tuple[str, str]]:
    """A folder of this machine is the same as a path and as a file URI: databases hold what the server was told."""
    pairs = [(old, new)]
    if old.startswith("/"):
        pairs.append((Path(old).as_uri(), Path(new).as_uri() if new.startswith("/") else new))
    elif old.startswith("file:///"):
        pairs.append((str(on_this_machine(old)), str(on_this_machine(new) or new)))
    return pairs
