"""Several worker processes load into one store at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.conformance.runs import field_digests, plain_run
from shardmig.adapters.zenml import open_target
from shardmig.archive.files import DigestSink
from shardmig.records import LoadOptions
from tests.contract.zenml.world import run_of, write

pytestmark = pytest.mark.xdist_group("zenml")

_RUNS = 5


@pytest.fixture(autouse=True)
def _store(zenml: Path) -> None:
    """A new store as ZenML's own; what is imported now, the children need not."""
    open_target({}, LoadOptions()).close()


def test_two_processes_make_one_model_and_each_tag_once() -> None:
    children = [multiprocessing.get_context("fork").Process(target=_load, args=(number,)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    _check()


def test_two_processes_with_runs_of_one_name_keep_both() -> None:
    chunks = [plain_run("ws/one", "RUN-1"), plain_run("ws/two", "RUN-1")]
    children = [
        multiprocessing.get_context("fork").Process(target=write, args=(some, None, {"model-name-template": "all"}))
        for some in chunks
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    target = open_target({"model-name-template": "all"}, LoadOptions(step_multiplier=1))
    for some in chunks:
        held = target.find_run(migration_key(run_of(some)))
        assert held is not None
        assert held.state == "complete"
        assert target.read_facts(held)["name"] == "RUN-1"
        assert field_digests(piece.chunk for piece in target.read_run(held, Want(), DigestSink())) == field_digests(
            some
        )
    target.close()


def _load(number: int) -> None:
    for run in range(_RUNS):
        write(plain_run(run_id=f"RUN-{number}-{run}"))


def _check() -> None:
    from zenml.client import Client

    client = Client()
    assert [model.name for model in client.list_models().items] == ["ws/plain"]
    assert sorted(tag.name for tag in client.list_tags().items) == ["group", "one", "two words"]
    versions = client.list_model_versions("ws/plain", size=50, hydrate=True).items
    assert sorted(one.name or "" for one in versions) == sorted(
        f"RUN-{n}-{run}" for n in range(2) for run in range(_RUNS)
    )
    assert all([tag.name for tag in one.tags] == ["group", "one", "two words"] for one in versions)
