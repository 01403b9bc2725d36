"""Artifacts that lie in S3: read and written past the tracking server, and through it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from mlflow import MlflowClient

from shardmig.adapters.mlflow.artifacts import artifacts_at
from shardmig.adapters.mlflow.s3 import PART_BYTES
from shardmig.errors import AdapterError, Denied, NotFound, Unavailable
from tests.contract.mlflow_source.copies import Copy
from tests.servers.mlflow import mlflow_server
from tests.servers.s3.faults import Failure
from tests.servers.s3.server import Bucket, Server, s3_server

pytestmark = pytest.mark.xdist_group("mlflow-s3")

FILES: Final = {
    "model/weights.bin": os.urandom(PART_BYTES + 1),
    "model/MLmodel": b"flavors: {}\n",
    "ünï/日本/φ.txt": "ünï".encode(),
    "100%.txt": b"%",
    "no extension": b"1",
    "empty.bin": b"",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty one, to which this environment leads."""
    server.proxy.forget()
    for name, text in (server.environment | {"AWS_MAX_ATTEMPTS": "2"}).items():
        monkeypatch.setenv(name, text)
    return server.bucket()


@pytest.fixture
def copy(bucket: Bucket, sqlite_template: Path, tmp_path: Path) -> Copy:
    """A database with a run whose artifacts lie in the bucket, and one in which its experiment has another place there."""
    copy = Copy(tmp_path, f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/target.db")
    for uri, location in ((copy.source, "old"), (copy.target, "new")):
        shutil.copy(sqlite_template, uri.removeprefix("sqlite:///"))
        MlflowClient(uri).create_experiment("in S3", artifact_location=f"{bucket.url}/{location}")
    client = MlflowClient(copy.source)
    run = client.create_run(client.get_experiment_by_name("in S3").experiment_id).info.run_id  # type: ignore[union-attr]
    for path, content in FILES.items():
        local = tmp_path / "made" / path
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(content)
    client.log_artifacts(run, str(tmp_path / "made"))
    client.set_terminated(run)
    return copy


def held(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    """The artifacts of runs below a prefix, but shardmig's own."""
    found = {key.partition("/artifacts/")[2]: content for key, content in bucket.content(prefix).items()}
    return {path: content for path, content in found.items() if not path.startswith("shardmig/")}


def test_artifacts_go_from_one_place_to_another_past_any_server(copy: Copy, bucket: Bucket) -> None:
    bucket.proxy.fail("committed-then-cut", lambda asked: asked.is_a("PUT", "MLmodel"))
    bucket.proxy.fail("503", lambda asked: asked.is_a("GET", "MLmodel"))
    bucket.proxy.fail("cut-body", lambda asked: asked.is_a("GET", "weights.bin"))
    copy.migrate("--engine", "inline")
    assert held(bucket, "new/") == FILES
    assert copy.verify("--engine", "inline") == ["equal"] * 3


def test_artifacts_go_through_a_server_both_ways(copy: Copy, bucket: Bucket, sqlite_template: Path) -> None:
    folder = copy.folder / "server"
    folder.mkdir()
    database = Path(shutil.copy(sqlite_template, folder / "mlflow.db"))
    with mlflow_server(folder, database, workers=1, artifacts=f"{bucket.url}/behind") as behind:
        there = Copy(folder, copy.source, behind.uri)
        there.migrate("--engine", "inline")
        assert held(bucket, "behind/") == FILES
        assert there.verify("--engine", "inline") == ["equal"] * 3
        back = Copy(copy.folder, behind.uri, copy.target)
        back.migrate("--engine", "inline")
        assert held(bucket, "new/") == FILES


def test_a_file_that_is_there_is_not_sent_again(bucket: Bucket, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("small", "in parts", "whole parts")}
    for name, size in (("small", 10), ("in parts", PART_BYTES + 10), ("whole parts", PART_BYTES)):
        files[name].write_bytes(os.urandom(size))
    for _ in range(2):
        store = artifacts_at(f"{bucket.url}/1/run/artifacts", None)
        for name, file in files.items():
            store.put(file, f"folder/{name}")
        sent = bucket.proxy.count("PUT")
        assert sent == 4  # three files, one of them in two parts
    files["small"].write_bytes(b"0123456789")
    artifacts_at(f"{bucket.url}/1/run/artifacts", None).put(files["small"], "folder/small")
    assert bucket.proxy.count("PUT") == sent + 1
    assert bucket.content("1/run/artifacts/folder/") == {name: file.read_bytes() for name, file in files.items()}


@pytest.mark.parametrize(("failure", "error"), [("403", Denied), ("503", Unavailable), ("reset", Unavailable)])
def test_refusals_of_s3_are_told(bucket: Bucket, tmp_path: Path, failure: Failure, error: type[AdapterError]) -> None:
    bucket.put("at/there", b"1")
    store = artifacts_at(f"{bucket.url}/at", None)
    bucket.proxy.fail(failure, lambda asked: asked.is_a("HEAD") or asked.is_a("GET"), times=99)
    with pytest.raises(error):
        store.get("there", tmp_path / "file")
    with pytest.raises(error):
        store.put(Path(__file__), "new")
    bucket.proxy.forget()
    with pytest.raises(NotFound):
        store.get("not there", tmp_path / "file")
