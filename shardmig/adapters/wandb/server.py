"""A W&B server as run store: runs are sent with the vendor's own `wandb sync`, and what arrived is read back.

`wandb sync` says that it has finished, with exit status 0, whatever the server answered (measured); a second sync of a run
that the server has appends all its rows again (measured); and it tries a run whose id was deleted for ever (measured). So
the run is created first, sent once into an empty run, counted, and marked complete last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec

from shardmig.adapters.staging import staging_folder
from shardmig.adapters.wandb.connection import Connection
from shardmig.adapters.wandb.facts import Block
from shardmig.adapters.wandb.naming import BLOCK
from shardmig.adapters.wandb.options import WandbOptions
from shardmig.adapters.wandb.queries import DELETE, FIND, GENERATIONS, UPSERT
from shardmig.adapters.wandb.server_run import ServerRun, md5_of, run_of
from shardmig.adapters.wandb.stored import Staged, StoredRun
from shardmig.adapters.wandb.syncing import shared_sync
from shardmig.errors import NotFound, Permanent, TargetConflict, Unavailable
from shardmig.records import MigrationKey, TargetRunId

PROJECTS_IN_PAGE: Final = 100
_LOOK_AGAIN_S: Final = 2.0


class ServerStore:
    """Runs of one server, as RunStore."""

    marks_later: ClassVar[bool] = True

    def __init__(self, options: WandbOptions) -> None:
        self._options = options
        self._connection = Connection(options, points_per_min=options.values_per_minute)
        self._replaced: list[TargetRunId] = []
        """Complete runs in whose place the one comes that is being written."""

    def find(self, key: MigrationKey) -> StoredRun | None:
        """As RunStore: by run id, in every project of the entities that may hold it."""
        found = sorted(self._of_key(key), key=lambda run: (run.is_complete, _number_of(run.name)))
        newest = found.pop() if found else None
        if newest is not None and newest.is_complete:
            newest.superseded = [run.id for run in found if run.is_complete]
        return newest

    def get(self, run_id: TargetRunId) -> ServerRun:
        """As RunStore."""
        return run_of(self._connection, run_id)

    def new_id(self, block: Block, entity: str, project: str) -> str:
        """As RunStore. Every partial run of this key is discarded, because rows that were sent cannot be sent again; but one
        that has none is gone on with: W&B gives no id twice, and there are few for a run."""
        owner = entity or str(self._connection.account["entity"])
        held = self._of_key(block.key, owner)
        complete = [run for run in held if run.is_complete]
        self._replaced = [run.id for run in complete]
        first = max((_number_of(run.name) + 1 for run in complete), default=0)
        for partial in (run for run in held if not run.is_complete and run.entity == owner):
            is_usable = partial.project == project and _number_of(partial.name) >= first
            if not (is_usable and _is_as_new(partial, block)):
                self.discard(partial.id)
        config = json.dumps({BLOCK: {"value": msgspec.to_builtins(block)}})
        for number in range(first, GENERATIONS):
            name = generation(block.key, number)
            try:
                asked = {"name": name, "project": project, "entity": owner, "config": config}
                self._connection.ask(UPSERT, asked)
            except TargetConflict:  # an id of a run that was deleted
                continue
            return name
        raise Permanent(
            f"run {block.key} was deleted or replaced in {owner}/{project} {GENERATIONS} times, and W&B gives no id twice",
            hint="load into another project with the option project or project-prefix",
        )

    def publish(self, staged: Staged, block: Block) -> TargetRunId:
        """As RunStore."""
        self._send(staged)
        entity = staged.entity or str(self._connection.account["entity"])
        run = self._arrived(staged, TargetRunId(f"{entity}/{staged.project}/{staged.run_id}"))
        if block.is_complete:
            self._set_block(run, block)
            while self._replaced:
                self.discard(self._replaced.pop())
        return run.id

    def set_parent(self, run: StoredRun, parent: TargetRunId) -> None:
        """As RunStore."""
        assert isinstance(run, ServerRun)
        if run.block is not None:
            self._set_block(run, msgspec.structs.replace(run.block, parent=parent))

    def discard(self, run_id: TargetRunId) -> None:
        """As RunStore. W&B never gives the id again."""
        try:
            run = self.get(run_id)
        except NotFound:
            return
        with suppress(NotFound):  # deleted by a request whose answer was lost
            self._connection.ask(DELETE, {"id": run.node["id"]})

    def url(self, run_id: TargetRunId) -> str:
        """As RunStore."""
        entity, _, rest = run_id.partition("/")
        project, _, name = rest.rpartition("/")
        app = self._connection.url.replace("://api.wandb.ai", "://wandb.ai")
        return f"{app}/{quote(entity)}/{quote(project)}/runs/{name}"

    @contextmanager
    def staging(self, run_id: str) -> Iterator[Path]:
        """As RunStore: a name as `wandb sync` expects it."""
        with staging_folder() as staging:
            folder = staging / f"offline-run-{run_id}"
            folder.mkdir()
            yield folder

    def close(self) -> None:
        """As RunStore. The vendor's processes are used again by the next store, and end with this one."""

    def _entities(self) -> list[str]:
        template = self._options.entity
        if template and "{" not in template:
            return [template]
        account = self._connection.account
        own = [str(account["entity"])]
        if template:
            own += [edge["node"]["name"] for edge in (account.get("teams") or {}).get("edges", [])]
        return list(dict.fromkeys(own))

    def _of_key(self, key: MigrationKey, *further: str) -> list[ServerRun]:
        """Every run that has an id made of this key. `further`: entities to look in beside those of the options."""
        entities = dict.fromkeys([*self._entities(), *further])
        return [run for entity in entities for run in self._named(entity, key)]

    def _named(self, entity: str, key: MigrationKey) -> Iterator[ServerRun]:
        """Every run of an entity that has an id made of this key."""
        names = {f"name{number}": generation(key, number) for number in range(GENERATIONS)}
        asked: dict[str, Any] = {"entity": entity, "perPage": PROJECTS_IN_PAGE, "cursor": None, **names}
        while True:
            models = self._connection.ask(FIND, asked).get("models") or {"edges": [], "pageInfo": {}}
            for edge in models["edges"]:
                node = edge["node"]
                runs = (node.get(f"run{number}") for number in range(GENERATIONS))
                yield from (ServerRun(self._connection, entity, node["name"], run) for run in runs if run)
            if not models["pageInfo"].get("hasNextPage"):
                return
            asked["cursor"] = models["pageInfo"]["endCursor"]

    def _send(self, staged: Staged) -> None:
        sync = shared_sync(self._connection.environment())
        self._connection.budget.take(staged.values)
        sync.send(staged.folder, self._options.sync_deadline_s)

    def _arrived(self, staged: Staged, run_id: TargetRunId) -> ServerRun:
        """The run, once all of it is seen there. Raises Unavailable when it is not: the run is written anew."""
        deadline = time.monotonic() + self._options.arrival_s
        while True:
            run = self.get(run_id)
            if not (missing := _missing(run, staged)):
                return run
            if time.monotonic() >= deadline or run.row_count > staged.rows:
                raise Unavailable(missing)
            time.sleep(_LOOK_AGAIN_S)

    def _set_block(self, run: ServerRun, block: Block) -> None:
        config = run.raw_config | {BLOCK: {"value": msgspec.to_builtins(block)}}
        self._connection.ask(UPSERT, {"id": run.node["id"], "config": json.dumps(config)})


_OWN_FILES: Final = frozenset({"config.yaml", "wandb-summary.json"})
"""wandb-core writes these into the folder while it sends it."""


def _missing(run: ServerRun, staged: Staged) -> str:
    """What of a run that was sent is not there as it was sent; "" = all is."""
    if run.row_count != staged.rows:
        return f"wandb sync sent {staged.rows} rows of history, and {run.row_count} are there"
    if lacking := staged.config - run.raw_config.keys():  # marking it complete would write what is seen now
        return f"wandb sync sent a config of {len(staged.config)} keys, and {min(lacking)!r} is not there"
    root = staged.folder / "files"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name in _OWN_FILES:
            continue
        held = run.listed.get(name)
        if held is None or held.size_bytes != path.stat().st_size or (held.md5 and held.md5 != md5_of(path)):
            return f"wandb sync sent {name}, and it is not there as it was sent"
    return ""


def _is_as_new(run: ServerRun, block: Block) -> bool:
    """Has a partial run no rows, and no files but of this content? Files that are sent again take their places."""
    is_same = run.block is not None and run.block.digest == block.digest
    return not run.row_count and (is_same or not run.node.get("fileCount"))


def generation(key: MigrationKey, number: int) -> str:
    """The run id for a key, after so many deletions."""
    return f"{key}-{number}" if number else key


def _number_of(name: str) -> int:
    """Of a run id that `generation` made."""
    return int(name.partition("-")[2] or 0)
