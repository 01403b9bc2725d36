"""A load that is killed at any commit of ZenML's database leaves nothing half and nothing doubled behind: whether the run
is one transaction, as in a local store, or many, as on a server."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from zenml.client import Client
from zenml.zen_stores.base_zen_store import BaseZenStore

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.conformance.runs import field_digests, plain_run
from shardmig.adapters.zenml import open_target
from shardmig.adapters.zenml.opening import Opened, open_store, release
from shardmig.adapters.zenml.options import StoreOptions, TargetOptions
from shardmig.adapters.zenml.target import ZenmlTarget
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, Chunk, LoadOptions, ProjectId
from tests.contract.zenml.world import DIGEST, run_of
from tests.servers.zenml import child_processes, use_zenml

pytestmark = pytest.mark.xdist_group("zenml")

_NOWHERE = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/plain"))


_KILLED = 9


@pytest.mark.parametrize(
    ("way", "replaced", "every"),
    [("local", False, 6), ("server", False, 3), ("server", True, 9)],
    ids=["local", "server", "server-replaced"],
)
def test_killed_before_any_commit_the_same_command_again_ends_well(
    zenml: Path, way: str, replaced: bool, every: int
) -> None:
    with closing(_target(way)) as target:
        commits = range(0, 100, every)
        runs = 1 + next(n for n, left in enumerate(commits) if not _is_killed(zenml, way, target, left, replaced))
        assert runs * every > 10
        assert _counts() == (1, runs, 2 * runs)
        held = target.find_run(migration_key(run_of(plain_run(run_id="RUN-0"))))
        assert held is not None
        target.discard_run(held)
    assert _counts() == (1, runs - 1, 2 * runs - 2)
    assert len(list(zenml.rglob("manifest.json"))) == runs - 1


def test_a_load_that_was_killed_while_the_database_was_made_is_begun_again(tmp_path: Path) -> None:
    """ZenML makes it in many steps, and takes what a killed process leaves for that of a release that is too old."""
    child = child_processes().Process(target=_make_and_die, args=(tmp_path / "zenml",))
    child.start()
    child.join(120)
    assert child.exitcode == _KILLED
    use_zenml(tmp_path / "zenml")
    chunks = plain_run()
    with closing(_target("local")) as target:
        _write(target, chunks)
        held = target.find_run(migration_key(run_of(chunks)))
        assert held is not None
        assert held.state == "complete"


def _make_and_die(zenml: Path) -> None:
    """Load a run into a store that is yet to be made, in a process that dies when its tables are there."""
    use_zenml(zenml)

    def before_statement(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("INSERT INTO alembic_version"):
            os._exit(_KILLED)

    event.listen(Engine, "before_cursor_execute", before_statement)
    with closing(_target("local")) as target:
        _write(target, plain_run())


def _is_killed(zenml: Path, way: str, target: WriteSide, commits: int, replaced: bool) -> bool:
    """Kill the load of a run before that commit, repeat it, and look at what is there."""
    chunks = plain_run(run_id=f"RUN-{commits}")
    key = migration_key(run_of(chunks))
    with closing(_target(way)) as before:
        if replaced:
            _write(before, chunks, "a" * 32)
    child = child_processes().Process(target=_write_and_die, args=(zenml, way, chunks, commits))
    child.start()
    child.join(60)
    killed = child.exitcode == _KILLED
    assert killed or child.exitcode == 0
    if killed:
        held = target.find_run(key)
        assert held is None or held.state == "partial" or (replaced and held.digest == "a" * 32)
    _write(target, chunks)
    held = target.find_run(key)
    assert held is not None
    assert (held.state, held.digest) == ("complete", DIGEST)
    assert field_digests(piece.chunk for piece in target.read_run(held, Want(), DigestSink())) == field_digests(chunks)
    return killed


def _write(target: WriteSide, chunks: list[Chunk], digest: str = DIGEST) -> None:
    target.write_run(migration_key(run_of(chunks)), digest, iter(chunks), _NOWHERE, None)


def _target(way: str) -> WriteSide:
    load = LoadOptions(step_multiplier=1, on_existing="replace")
    return open_target({}, load) if way == "local" else ZenmlTarget(_ordinary_store, TargetOptions(), load)


def _ordinary_store() -> Opened:
    """The same database through ZenML's own class, without transactions of ours: what a server does."""
    opened = open_store(StoreOptions())
    release(opened.store)
    config = opened.store.config
    return opened._replace(
        store=BaseZenStore.create_store(config, skip_default_registrations=True, skip_migrations=True)
    )


def _counts() -> tuple[int, int, int]:
    client = Client()
    versions, artifacts = client.list_model_versions(), client.list_artifact_versions()
    return client.list_models().total, versions.total, artifacts.total


def _write_and_die(zenml: Path, way: str, chunks: list[Chunk], commits: int) -> None:
    """Load a run in a process that dies before its n-th commit of changes."""
    use_zenml(zenml)
    left = commits

    def before_commit(*_: Any) -> None:
        nonlocal left
        if left == 0:
            os._exit(_KILLED)
        left -= 1

    for kind in ("commit", "release_savepoint"):
        event.listen(Engine, kind, before_commit)
    with closing(_target(way)) as target:
        _write(target, chunks)
