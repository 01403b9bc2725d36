"""What reading asks of a run that W&B's own client made, be it a folder or on a server. Knows neither."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec

from shardmig.adapters.wandb.scan import Row
from shardmig.adapters.wandb.source.own import Own
from shardmig.adapters.wandb.stored import StoredRun
from shardmig.records import Finding


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What W&B says of a run itself. `state`: as W&B's words; "" = unknown."""

    id: str
    entity: str
    project: str
    name: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    host: str = ""
    user: str = ""
    tags: list[str] = []
    sweep: str = ""
    state: str = ""
    created_ms: int | None = None
    runtime_s: float | None = None
    parent: str = ""
    fork_step: float | None = None
    commit: str = ""
    remote: str = ""
    used: list[str] = []
    """Artifacts that it read."""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that the run made: its members' names and how to fetch each (a local path, or an address; a server is asked
    for them while they are gone through). `lacks`: why some of them are not known; "" = all are."""

    name: str
    type: str
    members: Iterable[tuple[str, str]]
    description: str = ""
    metadata: str = ""
    aliases: list[str] = []
    tags: list[str] = []
    references: dict[str, str] = {}
    lacks: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What W&B says of it beside its files. `metadata` as it was logged; `references`: members that lie elsewhere."""
        try:
            metadata = json.loads(self.metadata or "{}")
        except ValueError:
            metadata = self.metadata
        names = {"aliases": sorted(self.aliases), "tags": sorted(self.tags)}
        told = {"description": self.description, "metadata": metadata, **names, "references": self.references}
        return {"type": self.type} | {name: value for name, value in told.items() if value}


class Aside(Protocol):
    """Takes what is met while the rows are read."""

    def stat(self, time_ms: int, key: str, text: str) -> None:
        """A measurement of the computer."""
        ...

    def line(self, stream: str, time_ms: int, text: str) -> None:
        """Something printed."""
        ...


@runtime_checkable
class ForeignRun(Protocol):
    """One run."""

    def info(self) -> RunInfo:
        """The run itself."""
        ...

    def config(self) -> dict[str, Any]:
        """The whole config, nested."""
        ...

    def summary(self) -> dict[str, Any]:
        """The whole summary, nested."""
        ...

    def rows(self, aside: Aside) -> Iterator[Row]:
        """The history in the order in which it was written; everything else goes to `aside`, at the latest with the last
        row."""
        ...

    def files(self) -> list[str]:
        """The paths of all run files, sorted."""
        ...

    def get(self, path: str, file: Path) -> None:
        """Copy a run file to a new local file. Raises NotFound."""
        ...

    def artifacts(self) -> Iterator[Artifact]:
        """The artifacts that the run made."""
        ...

    def member(self, address: str, file: Path) -> None:
        """Copy an artifact's member to a new local file. Raises NotFound."""
        ...

    def findings(self) -> list[Finding]:
        """What the source itself no longer has, once everything was read."""
        ...


class Brought(NamedTuple):
    """A run that shardmig wrote."""

    stored: StoredRun
    others: Callable[[Own], ForeignRun]
    """What is there beside that."""
