"""Several worker processes load into one store at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.conformance.runs import field_digests, plain_run
from shardmig.adapters.zenml import open_target
from shardmig.archive.files import DigestSink
from shardmig.records import Chunk, LoadOptions
from tests.contract.zenml.world import run_of, write
from tests.servers.zenml import child_processes, use_zenml

pytestmark = pytest.mark.xdist_group("zenml")

_RUNS = 5


def test_two_processes_make_one_model_and_each_tag_once(zenml: Path) -> None:
    _together(zenml, [[plain_run(run_id=f"RUN-{number}-{run}") for run in range(_RUNS)] for number in range(2)], {})
    _check()


def test_two_processes_with_runs_of_one_name_keep_both(zenml: Path) -> None:
    chunks = [plain_run("ws/one", "RUN-1"), plain_run("ws/two", "RUN-1")]
    options = {"model-name-template": "all"}
    _together(zenml, [[some] for some in chunks], options)
    target = open_target(options, LoadOptions(step_multiplier=1))
    for some in chunks:
        held = target.find_run(migration_key(run_of(some)))
        assert held is not None
        assert held.state == "complete"
        assert target.read_facts(held)["name"] == "RUN-1"
        assert field_digests(piece.chunk for piece in target.read_run(held, Want(), DigestSink())) == field_digests(
            some
        )
    target.close()


def _together(zenml: Path, work: list[list[list[Chunk]]], options: dict[str, str]) -> None:
    children = [child_processes().Process(target=_load, args=(zenml, runs, options)) for runs in work]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * len(work)


def _load(zenml: Path, runs: list[list[Chunk]], options: dict[str, str]) -> None:
    use_zenml(zenml)
    for chunks in runs:
        write(chunks, options=options)


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
