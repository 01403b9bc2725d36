"""What a ZenML store may hold: runs that shardmig brought, and model versions of ZenML's own users."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from shardmig.adapters.base import FileStore, migration_key
from shardmig.adapters.conformance.runs import plain_run, rich_run
from shardmig.adapters.zenml import open_target
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Chunk, Header, LoadOptions, ProjectId, RunRef, TargetRunId

DIGEST = "d" * 32


def run_of(chunks: list[Chunk]) -> RunRef:
    """The run that these chunks are."""
    assert isinstance(chunks[0], Header)
    return chunks[0].run


def write(
    chunks: list[Chunk], files: FileStore | None = None, options: Mapping[str, str] = MappingProxyType({})
) -> TargetRunId:
    """Load a run into the store that is ZenML's own."""
    target = open_target(options, LoadOptions(step_multiplier=1))
    try:
        run = run_of(chunks)
        nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), run.project)
        return target.write_run(migration_key(run), DIGEST, iter(chunks), files or nowhere, None).id
    finally:
        target.close()


def fill(folder: Path) -> None:
    """Two projects that were brought, and two models of others; archive files go below `folder`."""
    paths = ArchivePaths(str(folder / "archive" / "data"), str(folder / "archive" / "files"))
    files = ArchiveFiles(paths, ProjectId("ws/rich"))
    write(rich_run(files), files)
    for run_id in ("RUN-1", "RUN-2"):
        write(plain_run(run_id=run_id))
    write(plain_run("ws/forks", "RUN-3", parent="RUN-1"))
    fill_by_hand("ws/plain", "baseline")
    fill_by_hand("models of others", "first")


def fill_by_hand(model: str, version: str) -> None:
    """What a user of ZenML does: a model version with metadata, tags, and artifacts of several materializers."""
    from zenml import log_metadata, save_artifact
    from zenml.client import Client
    from zenml.enums import ArtifactType
    from zenml.models import ModelVersionArtifactRequest

    client = Client()
    found = {one.name: one for one in client.list_models().items}
    owner = found.get(model) or client.create_model(name=model)
    made = client.create_model_version(owner.id, name=version, description="by hand", tags=["mine", "a b"])
    plain: dict[str, Any] = {"accuracy": 0.875, "epochs": 3, "ok": True, "note": "żółw"}
    nested: dict[str, Any] = {"lr": 0.001, "deep": {"er": "x"}, "list": [1, 2], "names": ["a", "b"]}
    log_metadata(plain, model_version_id=made.id)  # type: ignore[call-overload]
    log_metadata({"nested": nested}, model_version_id=made.id)  # type: ignore[call-overload]
    with TemporaryDirectory() as name:
        (Path(name) / "weights.bin").write_bytes(bytes(range(256)))
        one = save_artifact(Path(name) / "weights.bin", f"{model} weights", artifact_type=ArtifactType.MODEL)
    two = save_artifact({"a": [1, 2, 3]}, f"{model} config")
    gone = save_artifact("text", f"{model} gone")
    for artifact in (one, two, gone):
        link = ModelVersionArtifactRequest(model_version=made.id, artifact_version=artifact.id)
        client.zen_store.create_model_version_artifact_link(link)
    client.active_stack.artifact_store.rmtree(gone.uri)
