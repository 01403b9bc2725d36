"""A load that is killed at any commit of ZenML's database leaves nothing half and nothing doubled behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.conformance.runs import field_digests, plain_run
from shardmig.adapters.zenml import open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, LoadOptions, ProjectId
from tests.contract.zenml.world import DIGEST, run_of

pytestmark = pytest.mark.xdist_group("zenml")

_NOWHERE = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/plain"))
_CHUNKS = plain_run()
_KEY = migration_key(run_of(_CHUNKS))


class _Killed(BaseException):
    """What no code survives."""


@pytest.mark.parametrize(("replaced", "every"), [(False, 1), (True, 4)], ids=["new", "replaced"])
def test_killed_before_any_commit_the_same_command_again_ends_well(zenml: Path, replaced: bool, every: int) -> None:
    commits = 0
    while _is_killed(commits, zenml, replaced):
        commits += every
    assert commits > 10


def _is_killed(commits: int, zenml: Path, replaced: bool) -> bool:
    """Kill a load before that commit, repeat it, look at what is there, and clear up."""
    killed = False
    with closing(_target()) as target:
        if replaced:
            _write(target, "a" * 32)
        try:
            with _killing(commits):
                _write(target)
        except _Killed:
            killed = True
    with closing(_target()) as target:
        held = target.find_run(_KEY)
        if killed:
            assert held is None or held.state == "partial" or (replaced and held.digest == "a" * 32)
        _write(target)
        held = target.find_run(_KEY)
        assert held is not None
        assert (held.state, held.digest) == ("complete", DIGEST)
        assert field_digests(p.chunk for p in target.read_run(held, Want(), DigestSink())) == field_digests(_CHUNKS)
        assert _counts() == (1, 1, 2)
        target.discard_run(held)
        assert target.find_run(_KEY) is None
    assert _counts() == (1, 0, 0)
    assert not list(zenml.rglob("manifest.json"))
    return killed


def _write(target: WriteSide, digest: str = DIGEST) -> None:
    target.write_run(_KEY, digest, iter(_CHUNKS), _NOWHERE, None)


def _target() -> WriteSide:
    return open_target({}, LoadOptions(step_multiplier=1, on_existing="replace"))


def _counts() -> tuple[int, int, int]:
    from zenml.client import Client

    client = Client()
    versions, artifacts = client.list_model_versions(), client.list_artifact_versions()
    return client.list_models().total, versions.total, artifacts.total


@contextmanager
def _killing(commits: int) -> Iterator[None]:
    """The process dies before its n-th commit of changes."""
    from sqlalchemy import Engine, event

    left = commits

    def before_commit(connection: Any) -> None:
        nonlocal left
        if left == 0:
            raise _Killed
        left -= 1

    event.listen(Engine, "commit", before_commit)
    try:
        yield
    finally:
        event.remove(Engine, "commit", before_commit)
