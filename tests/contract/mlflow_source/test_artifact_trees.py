"""Files that cannot be reached, listed or read whole are told; whatever else there is arrives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import TraceInfo, TraceLocation, TraceState

from shardmig.adapters.base import Want
from shardmig.adapters.mlflow.artifacts import artifacts_at
from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.source import open_source
from shardmig.adapters.mlflow.source.files import FileStore
from shardmig.adapters.mlflow.source.tree import files_below, files_in
from shardmig.archive.files import DigestSink
from shardmig.errors import BadInput, NotFound, Permanent, Unavailable
from shardmig.records import End, Fields, Files, Finding, Selection, TargetRunId
from tests.contract.mlflow_source.copies import Copy
from tests.servers.http import answering
from tests.servers.in_front import Forwarding, InFront
from tests.servers.mlflow import MlflowServer, mlflow_http, mlflow_server
from tests.servers.s3.server import s3_server
from tests.servers.tracking_databases import sqlite_file, sqlite_template

__all__ = ["mlflow_http", "sqlite_file", "sqlite_template"]

pytestmark = pytest.mark.xdist_group("mlflow-server")


class Read(NamedTuple):
    """What came of one run or object, by its scope and id."""

    fields: set[str]
    files: set[str]
    findings: list[Finding]

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Kinds, codes and fields."""
        return [(one.kind, one.code, one.field) for one in self.findings]


def read(uri: str, **options: str) -> dict[tuple[str, str], Read]:
    """All that a source has."""
    source = open_source({"tracking-uri": uri} | {name.replace("_", "-"): text for name, text in options.items()})
    everything = Selection(include_archived=True)
    runs = [run for project in source.list_projects(everything) for run in source.list_runs(project, everything)]
    found: dict[tuple[str, str], Read] = {(run.scope, run.id): Read(set(), set(), []) for run in runs}
    for piece in source.read_runs(runs, Want(), DigestSink()):
        of = found[piece.run.scope, piece.run.id]
        if isinstance(piece.chunk, Fields):
            of.fields.update(field.path for field in piece.chunk.fields)
        elif isinstance(piece.chunk, Files):
            of.files.update(ref.path for ref in piece.chunk.files)
        elif isinstance(piece.chunk, End):
            of.findings.extend(piece.chunk.findings)
    source.close()
    return found


def read_run(uri: str, run: str, **options: str) -> Read:
    return read(uri, objects="runs", **options)["runs", run]


def new_run(uri: str, experiment: str, files: Mapping[str, bytes] | None = None) -> str:
    """A run with one param, in an experiment that may be there. `files`: its artifacts."""
    client = MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    id_ = known.experiment_id if known is not None else client.create_experiment(experiment)
    run: str = client.create_run(id_).info.run_id
    client.log_param(run, "lr", "0.1")
    for path, content in (files or {}).items():
        local = Path("made", path)
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(content)
        client.log_artifact(run, str(local), path.rpartition("/")[0] or None)
    shutil.rmtree("made", ignore_errors=True)
    client.set_terminated(run)
    return run


def new_trace(uri: str, experiment: str, name: str, state: TraceState) -> str:
    """A trace whose spans would be in a file, and are not."""
    info = TraceInfo(name, TraceLocation.from_experiment_id(experiment), 1_700_000_000_000, state)
    MlflowClient(uri)._tracking_client.store.start_trace(info)
    return name


# Behind the server of a database


@pytest.fixture(params=["another server", "nothing"])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What $MLFLOW_TRACKING_URI names."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if request.param == "another server":
        server: MlflowServer = request.getfixturevalue("mlflow_http")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    return str(request.param)


def test_a_store_whose_package_is_not_installed_fails_alone_and_says_so(sqlite_file: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("far", artifact_location="gs://bucket/x")).info.run_id
    client.log_param(run, "lr", "0.1")
    found = read_run(uri, run)
    assert found.told == [("loss", "artifacts-not-listed", "artifacts")]
    assert "params/lr" in found.fields


@pytest.mark.server
@pytest.mark.usefixtures("environment")
def test_files_behind_the_server_of_a_database_are_told_for_each_object(sqlite_file: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("behind", artifact_location="mlflow-artifacts:/7")
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "lr", "0.1")
    model = client.create_logged_model(experiment, "model").model_id
    client.create_registered_model("registered")
    client.create_model_version("registered", "mlflow-artifacts:/somewhere")
    trace = new_trace(uri, experiment, "trace", TraceState.OK)
    lost = ("loss", "artifacts-not-listed", "artifacts")
    found = read(uri)
    assert found["runs", run].told == [lost]
    assert "params/lr" in found["runs", run].fields
    assert "--source mlflow http" in found["runs", run].findings[0].detail
    assert found["logged_models", model].told == [lost]
    assert found["registered_models", "registered"].told == [("loss", "artifacts-not-listed", "versions/1/files")]
    assert found["traces", trace].told == [lost, ("loss", "artifact-unreadable", "spans")]
    left_out = read(uri, no_artifacts="yes")
    assert left_out["runs", run].told == [("gap", "file-left-out", "artifacts")]
    assert left_out["logged_models", model].told == [("gap", "file-left-out", "artifacts")]


# Folders that are not on this machine


def test_a_database_that_was_brought_without_its_files_tells_so(sqlite_file: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    shutil.move(sqlite_file, there)
    with chdir(there):
        run = new_run(f"sqlite:///{there}/mlflow.db", "one", {"a.txt": b"a"})
    here = f"sqlite:///{shutil.move(there / 'mlflow.db', tmp_path)}"
    assert read_run(here, run).files == {"artifacts/a.txt"}
    shutil.rmtree(there)
    found = read_run(here, run)
    assert found.told == [("loss", "artifacts-not-listed", "artifacts")]
    assert "not on this machine" in found.findings[0].detail
    assert read_run(here, run, no_artifacts="yes").told == [("gap", "file-left-out", "artifacts")]


def test_a_disk_that_is_not_mounted_is_told(sqlite_file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    uri = f"sqlite:///{sqlite_file}"
    MlflowClient(uri).create_experiment("on a disk", artifact_location=f"{disk}/mlruns/1")
    run = new_run(uri, "on a disk", {"a.txt": b"a"})
    shutil.rmtree(disk)
    disk.mkdir()
    assert read_run(uri, run).told == [("loss", "artifacts-not-listed", "artifacts")]


def test_runs_without_artifacts_are_silent(sqlite_file: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    alone = new_run(uri, "a database without any artifact")
    assert read_run(uri, alone).told == []
    new_run(uri, "with", {"a.txt": b"a"})
    bare = new_run(uri, "with")
    silent = read(uri, objects="runs")
    assert [silent["runs", run].told for run in (bare, alone)] == [[], []]


@pytest.mark.parametrize(
    "uri",
    ["./mlruns/1/run/artifacts", "mlruns/1/traces/tr-1/artifacts", "/gone/model", "file:///gone/a/1/run/artifacts"],
)
def test_places_that_are_not_here_are_told(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="not on this machine"):
        list(files_below(uri, None))


def test_spans_of_a_trace_that_ended_are_told_if_their_file_is_missing(sqlite_file: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    experiment = MlflowClient(uri).create_experiment("traced")
    for state in (TraceState.OK, TraceState.ERROR, TraceState.IN_PROGRESS):
        new_trace(uri, experiment, state.value, state)
    found = read(uri, objects="traces")
    lost = ("loss", "artifact-unreadable", "spans")
    told = {name: found["traces", name].told for name in ("OK", "ERROR", "IN_PROGRESS")}
    assert told == {"OK": [lost], "ERROR": [lost], "IN_PROGRESS": []}


# Downloads


class Cutting(Forwarding):
    """Cuts answers with an artifact, as long as there are some to cut."""

    server: CuttingServer

    def send(self, status: int, content: bytes, headers: Any = None, *, is_cut: bool = False) -> None:
        if "/mlflow-artifacts/artifacts/" in self.path and self.command == "GET" and self.server.cuts > 0:
            self.server.cuts -= 1
            is_cut = True
        super().send(status, content, headers or {}, is_cut=is_cut)


class CuttingServer(InFront):
    cuts = 0


@pytest.fixture
def in_front(mlflow_http: MlflowServer) -> Iterator[CuttingServer]:
    with answering(CuttingServer(mlflow_http, Cutting)) as server:
        yield server


@pytest.fixture
def http(in_front: CuttingServer) -> Iterator[HttpClient]:
    client = HttpClient(in_front.url, Login(Credentials()), connections=1, timeout_s=20)
    yield client
    client.close()


def artifacts_of_server(server: MlflowServer, run: str) -> Path:
    """Where it keeps those of a run."""
    [folder] = server.database.parent.glob(f"artifacts/*/{run}/artifacts")
    return folder


@pytest.mark.server
def test_a_download_that_is_cut_is_tried_again(in_front: CuttingServer, sqlite_file: Path, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    new_run(in_front.url, "cut", {"big.bin": content})
    in_front.cuts = 1
    copy = Copy(tmp_path, in_front.url, f"sqlite:///{sqlite_file}")
    copy.migrate("--engine", "inline", "--objects", "runs", "--experiments", "cut")
    assert in_front.cuts == 0
    [arrived] = (tmp_path / "mlruns").glob("*/*/artifacts/big.bin")
    assert arrived.read_bytes() == content
    assert copy.verify("--engine", "inline") == ["equal"]


@pytest.mark.server
def test_a_download_that_is_always_cut_is_an_error(in_front: CuttingServer, http: HttpClient, tmp_path: Path) -> None:
    run = MlflowClient(in_front.url).get_run(new_run(in_front.url, "always cut", {"a.txt": b"abcdef"}))
    in_front.cuts = 1
    artifacts = artifacts_at(run.info.artifact_uri, http)
    with pytest.raises(Unavailable, match="3 bytes before its end"):
        artifacts.get("a.txt", tmp_path / "a")
    artifacts.get("a.txt", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"abcdef"


@pytest.mark.server
def test_who_is_sent_elsewhere_by_a_proxy_takes_its_page_for_no_file(
    in_front: CuttingServer, http: HttpClient, tmp_path: Path
) -> None:
    run = MlflowClient(in_front.url).get_run(new_run(in_front.url, "elsewhere", {"a.txt": b"abcdef"}))
    in_front.refuses = lambda path, _: 302 if "mlflow-artifacts" in path else None
    artifacts = artifacts_at(run.info.artifact_uri, http)
    with pytest.raises(BadInput, match="302"):
        artifacts.get("a.txt", tmp_path / "a")
    (tmp_path / "b").touch()
    with pytest.raises(BadInput, match="302"):
        artifacts.put(tmp_path / "b", "b")


# Folders that cannot be listed


@pytest.mark.server
def test_a_folder_that_a_server_cannot_list_is_told_and_takes_no_other_with_it(mlflow_http: MlflowServer) -> None:
    run = new_run(mlflow_http.uri, "odd folders", {"aA/own.txt": b"1", "z/last.txt": b"2", "100%/x": b"3"})
    root = artifacts_of_server(mlflow_http, run)
    odd = ("a%41", "a#b", "z/ends?", "c\x01")
    for name in odd:
        (root / name).mkdir()
        (root / name / "lost.txt").touch()
    found = read_run(mlflow_http.uri, run)
    assert found.files == {"artifacts/aA/own.txt", "artifacts/z/last.txt", "artifacts/100%/x"}
    assert found.told == [("loss", "artifacts-not-listed", "artifacts")]
    assert [name for name in odd if repr(name) not in found.findings[0].detail] == []


@pytest.mark.server
def test_a_folder_that_a_server_cannot_list_is_listed_in_s3(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as s3:
        for name, text in s3.environment.items():
            monkeypatch.setenv(name, text)
        bucket = s3.bucket()
        with mlflow_server(tmp_path, sqlite_file, workers=1) as server:
            client = MlflowClient(server.uri)
            client.create_experiment("in S3", artifact_location=f"{bucket.url}/at")
            run = new_run(server.uri, "in S3")
            for path in ("a%41/1.txt", "a#b/deep/2.txt", "z/3.txt"):
                bucket.put(f"at/{run}/artifacts/{path}", b"x")
            found = read_run(server.uri, run)
    assert found.files == {"artifacts/a%41/1.txt", "artifacts/a#b/deep/2.txt", "artifacts/z/3.txt"}
    assert found.told == []


def beyond_what_a_path_may_name(folder: Path) -> None:
    """Make a file so deep below that nobody can name it."""
    held = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=held)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = below
    os.close(os.open("lost.txt", os.O_CREAT, dir_fd=held))
    os.close(held)


def test_a_folder_on_disk_that_cannot_be_listed_is_told_and_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "last.txt").touch()
    beyond_what_a_path_may_name(tmp_path / "a")
    found: list[str] = []
    with pytest.raises(Permanent, match=f"{tmp_path}/a/ddd.*File name too long"):
        found.extend(files_in(tmp_path))
    assert found == ["z/last.txt"]
    with pytest.raises(Permanent, match="Not a directory"):
        list(files_below(str(tmp_path / "z" / "last.txt"), None))


def test_a_folder_of_params_that_cannot_be_listed_fails_its_run_alone(tmp_path: Path) -> None:
    runs = [tmp_path / "1" / (digit * 32) for digit in "01"]
    for run in runs:
        (run / "params").mkdir(parents=True)
        (run / "meta.yaml").write_text("run_id: x\nstatus: 3\nstart_time: 5\nend_time: null\n")
    (tmp_path / "1" / "meta.yaml").write_text("experiment_id: '1'\nname: one\n")
    beyond_what_a_path_may_name(runs[0] / "params")
    store = FileStore(tmp_path)
    assert sorted(run.id for run in store.search_runs(["1"], only_migrated=False)) == [run.name for run in runs]
    assert store.get_run(TargetRunId(runs[1].name)).start_ms == 5
    with pytest.raises(Permanent, match="File name too long"):
        store.get_run(TargetRunId(runs[0].name))


def test_a_link_to_a_folder_is_followed_but_not_in_circles(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "artifacts", tmp_path / "elsewhere"
    for folder in (root / "a", root / "b", elsewhere):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    for link, to in {
        root / "a" / "here": root,
        root / "a" / "other": root / "b",
        root / "b" / "other": root / "a",
        root / "linked": elsewhere,
        elsewhere / "back": root,
        root / "itself": root / "itself",
    }.items():
        link.symlink_to(to)
    assert list(files_in(root)) == ["itself", "a/file", "a/other/file", "b/file", "b/other/file", "linked/file"]
    (root / "up").symlink_to(tmp_path)
    with pytest.raises(Permanent, match="up is a link to a folder around it"):
        list(files_in(root))


def test_artifacts_behind_links_are_read(sqlite_file: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    run = new_run(uri, "linked", {"a.txt": b"a"})
    [folder] = tmp_path.glob("mlruns/*/*/artifacts")
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "weights.bin").write_bytes(b"w" * 1000)
    (folder / "checkpoints").symlink_to(tmp_path / "big")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    found = read_run(uri, run)
    assert found.files == {"artifacts/a.txt", "artifacts/checkpoints/weights.bin"}
    assert found.told == [("loss", "artifact-unreadable", "artifacts/gone.txt")]
