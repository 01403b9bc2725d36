"""The same over a real ZenML server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.conformance.runs import fact_fields, field_digests, last_point_ms, plain_run, rich_run
from shardmig.adapters.zenml import open_source, open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, Chunk, LoadOptions, ProjectId, Selection
from tests.contract.zenml.world import DIGEST, run_of
from tests.servers.zenml import use_zenml

pytestmark = [pytest.mark.xdist_group("zenml"), pytest.mark.server]


@pytest.fixture
def options(zenml_server: str, tmp_path: Path) -> dict[str, str]:
    """Of a new ZenML project on the server; the client knows of the server by its option only."""
    use_zenml(tmp_path / "zenml")
    from zenml.config.store_config import StoreConfiguration
    from zenml.models import ProjectRequest
    from zenml.zen_stores.base_zen_store import BaseZenStore

    kind = BaseZenStore.get_store_type(zenml_server)
    store = BaseZenStore.create_store(StoreConfiguration(type=kind, url=zenml_server))
    project = store.create_project(ProjectRequest(name=f"project-{uuid.uuid4().hex}"))
    return {"store-url": zenml_server, "project": project.name}


@pytest.fixture
def target(options: dict[str, str]) -> Iterator[WriteSide]:
    """All runs go to one model."""
    target = open_target(options | {"model-name-template": "all"}, LoadOptions(step_multiplier=1))
    yield target
    target.close()


def test_a_rich_run_comes_back_exactly_through_target_and_source(
    options: dict[str, str], target: WriteSide, tmp_path: Path
) -> None:
    paths = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    files = ArchiveFiles(paths, ProjectId("ws/rich"))
    chunks = rich_run(files)
    _write(target, chunks, files)
    assert _read(target, chunks) == field_digests(chunks)
    held = target.find_run(migration_key(run_of(chunks)))
    assert held is not None
    expected = target.expected_facts(run_of(chunks), fact_fields(chunks), None, last_point_ms(chunks))
    assert target.read_facts(held) == expected
    source = open_source(options)
    (run,) = source.list_runs(ProjectId("ws/rich"), Selection())
    found = field_digests(piece.chunk for piece in source.read_runs([run], Want(), DigestSink()))
    source.close()
    assert found == field_digests(chunks)


def test_runs_of_one_name_and_runs_that_are_written_anew_stay_apart(target: WriteSide) -> None:
    one, two = plain_run("ws/one", "RUN-1"), plain_run("ws/two", "RUN-1")
    _write(target, one)
    _write(target, two[:-1])  # without its End
    for chunks in (two, one):
        _write(target, chunks)
        held = target.find_run(migration_key(run_of(chunks)))
        assert held is not None
        assert held.state == "complete"
        assert target.read_facts(held)["name"] == "RUN-1"
        assert _read(target, chunks) == field_digests(chunks)


def _write(target: WriteSide, chunks: list[Chunk], files: ArchiveFiles | None = None) -> None:
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/plain"))
    target.write_run(migration_key(run_of(chunks)), DIGEST, iter(chunks), files or nowhere, None)


def _read(target: WriteSide, chunks: list[Chunk]) -> object:
    held = target.find_run(migration_key(run_of(chunks)))
    assert held is not None
    return field_digests(piece.chunk for piece in target.read_run(held, Want(), DigestSink()))
