"""What the life of a run asks of W&B, be it a folder of run folders or a server. Knows neither."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from shardmig.adapters.wandb.facts import Block, HeldFacts
from shardmig.adapters.wandb.scan import Row
from shardmig.records import MigrationKey, TargetRunId


class StoredRun(Protocol):
    """One run as W&B holds it."""

    @property
    def id(self) -> TargetRunId:
        """How the store finds it again."""
        ...

    @property
    def block(self) -> Block | None:
        """What shardmig wrote into its config; None: it was made by something else."""
        ...

    @property
    def superseded(self) -> Sequence[TargetRunId]:
        """Older complete runs of its key, which a load that replaced them had no time to remove."""
        ...

    def config(self) -> dict[str, Any]:
        """The whole config."""
        ...

    def rows(self) -> Iterator[Row]:
        """Its whole history, in order of steps."""
        ...

    def facts(self) -> HeldFacts:
        """What W&B says of the run itself."""
        ...

    def get(self, path: str, file: Path) -> None:
        """Copy a run file to a new local file. Raises NotFound."""
        ...


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A run folder that was written, with `rows` rows and `values` numbers of history and these keys of the config, and where
    it is to go."""

    folder: Path
    run_id: str
    entity: str
    project: str
    rows: int
    values: int
    config: Set[str] = frozenset()


class RunStore(Protocol):
    """The operations on runs. Raises AdapterError classes, never a vendor's exception."""

    def find(self, key: MigrationKey) -> StoredRun | None:
        """The run that carries the key. A complete one comes before partial ones, and the newest of them before others."""
        ...

    def get(self, run_id: TargetRunId) -> StoredRun:
        """A run by its id. Raises NotFound."""
        ...

    marks_later: ClassVar[bool]
    """Is a run marked complete only when it is published? Else its log says so already."""

    def new_id(self, block: Block, entity: str, project: str) -> str:
        """W&B's run id for a run that is to be written. From now on `find` may find it, partial. A complete run of its key
        stays as it is."""
        ...

    def publish(self, staged: Staged, block: Block) -> TargetRunId:
        """Take over a run folder. Afterwards `find` finds the run in the block's state, and all of it arrived. Once a complete
        one is whole there, those of its key that were there before are removed."""
        ...

    def set_parent(self, run: StoredRun, parent: TargetRunId) -> None:
        """Note in the block of a complete run who its parent is."""
        ...

    def discard(self, run_id: TargetRunId) -> None:
        """Remove a run; one that is not there is no error."""
        ...

    def url(self, run_id: TargetRunId) -> str:
        """Where people see a run; "" = nowhere yet."""
        ...

    def staging(self, run_id: str) -> AbstractContextManager[Path]:
        """An empty folder on the disk for a run folder that is being written, gone at the end."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...
