"""A server that the vendor's uploader filled is a source that passes the suite."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide, Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.comet.source import open_source
from shardmig.adapters.comet.upload import upload
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.conformance.runs import field_digests, plain_run, rich_run
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import AuthFailed, BadInput, Denied
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    Header,
    LoadOptions,
    ProjectId,
    RunId,
    RunRef,
    Selection,
)
from tests.contract.comet.archives import OLD_KEY, SAMPLES, VENDOR_KEY, metric, old_messages, write_archive
from tests.servers.comet.server import CometServer, comet_server

pytestmark = pytest.mark.xdist_group("comet")

ALL = Selection(include_archived=True)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CometServer]:
    """A server with experiments of the vendor's clients, one of them archived, and one that shardmig brought. Tests only
    read it."""
    folder = tmp_path_factory.mktemp("comet")
    with comet_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("COMET_API_KEY", server.api_key)
        server.workspaces |= {"ws", "old"}
        write_archive(folder / f"{OLD_KEY}.zip", OLD_KEY, old_messages())
        later = [metric("loss", 1 / (1 + step), step) for step in range(60)]
        write_archive(folder / "later.zip", "b" * 32, later, workspace="old", start_time=1_650_000_000_000)
        for archive in (SAMPLES / f"{VENDOR_KEY}.zip", *SAMPLES.glob("*-*.zip"), *sorted(folder.glob("*.zip"))):
            workspace, project = ("ws", "vision") if archive.parent == SAMPLES else ("old", "vision")
            upload(archive, api_key=server.api_key, url=server.url, workspace=workspace, project=project)
        server.experiments["b" * 32].archived = True
        chunks, files = _rich(folder)
        target = open_target(
            {"url": server.url, "workspace": "{workspace}", "requests-per-s": "0"}, LoadOptions(step_multiplier=100)
        )
        target.write_run(migration_key(_run(chunks)), "d" * 32, iter(chunks), files, None)
        target.close()
        yield server


def _rich(folder: Path) -> tuple[list[Chunk], ArchiveFiles]:
    files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), ProjectId("ws/rich"))
    return rich_run(files), files


def _run(chunks: list[Chunk]) -> RunRef:
    assert isinstance(chunks[0], Header)
    return chunks[0].run


class TestServer(SourceSuite):
    @pytest.fixture(autouse=True)
    def _filled(self, filled: CometServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COMET_API_KEY", filled.api_key)
        self._server = filled

    def open_source(self, folder: Path) -> ReadSide:
        return open_source({"url": self._server.url, "requests-per-s": "0"})

    def snapshot(self, folder: Path) -> object:
        return copy.deepcopy(self._server.experiments)

    def test_what_shardmig_brought_is_given_as_it_was(self, tmp_path: Path) -> None:
        chunks, _ = _rich(tmp_path)
        source = self.open_source(tmp_path)
        assert "ws/rich" in list(source.list_projects(ALL))
        [run] = source.list_runs(ProjectId("ws/rich"), ALL)
        found = [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]
        assert field_digests(found) == field_digests(chunks)

    def test_an_experiment_of_the_vendors_client_has_all_that_it_logged(self, tmp_path: Path) -> None:
        fields = self._fields(tmp_path, "ws/vision", VENDOR_KEY)
        assert fields["params/lr"] == Field("params/lr", "string", "0.1")
        assert fields["params/list"].value == "[1, 'a']"
        assert fields["others/note"].value == "another fact"
        assert fields["sys/name"].value == "first run"
        assert fields["sys/tags"].value == ["tag one", "two"]
        assert fields["sys/failed"].value is False
        assert fields["graph"].value == "a -> b"
        assert fields["remote_assets/elsewhere"].value == "s3://bucket/key"
        assert fields["asset_metadata/assets/docs/notes.txt/4"].value == '{"a":1}'

    def test_system_metrics_can_be_left_out(self, tmp_path: Path) -> None:
        with_them, without = (
            open_source({"url": self._server.url, "system-metrics": choice, "requests-per-s": "0"})
            for choice in ("yes", "no")
        )
        system = {path for path, _ in _keys(with_them) if path.startswith("system_metrics/")}
        assert system
        assert {path for path, _ in _keys(with_them)} - {path for path, _ in _keys(without)} == system

    def test_a_run_that_was_not_loaded_to_its_end_is_refused(self, tmp_path: Path) -> None:
        with comet_server() as server:
            os_chunks = [*plain_run()[:-1]]
            target = open_target({"url": server.url, "requests-per-s": "0"}, LoadOptions(step_multiplier=1))
            target.write_run(migration_key(_run(os_chunks)), "d" * 32, iter(os_chunks), _nowhere(), None)
            source = open_source({"url": server.url, "requests-per-s": "0"})
            [run] = source.list_runs(ProjectId("ws/plain"), ALL)
            with pytest.raises(BadInput, match="never loaded to its end"):
                list(source.read_runs([run], Want(), DigestSink()))

    def test_an_experiment_that_was_renamed_is_another_version(self, tmp_path: Path) -> None:
        experiment = self._server.experiments[VENDOR_KEY]
        name, before = experiment.others["Name"], self._listed(self.open_source(tmp_path), ProjectId("ws/vision"))
        experiment.others["Name"] = "renamed"
        try:
            after = self._listed(self.open_source(tmp_path), ProjectId("ws/vision"))
        finally:
            experiment.others["Name"] = name
        changed = [old.id for old, new in zip(before, after, strict=True) if old.fingerprint != new.fingerprint]
        assert changed == [VENDOR_KEY]

    def test_an_unknown_key_is_told_at_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("COMET_API_KEY", "another")
        with pytest.raises(AuthFailed):
            list(self.open_source(tmp_path).list_projects(ALL))

    def test_a_metric_that_cannot_be_read_is_a_loss_of_that_metric(self, tmp_path: Path) -> None:
        self._server.faults.failing["metrics/get-metric"] = 400
        try:
            source = self.open_source(tmp_path)
            run = next(run for run in source.list_runs(ProjectId("ws/vision"), ALL))
            *_, end = (piece.chunk for piece in source.read_runs([run], Want(), DigestSink()))
        finally:
            self._server.faults.failing.clear()
        assert isinstance(end, End)
        lost = {finding.field for finding in end.findings if finding.kind == "loss"}
        assert {"metrics/loss", "metrics/odd", "metrics/train_acc"} <= lost

    def test_a_run_or_project_that_cannot_be_looked_at_stops_no_other(self, tmp_path: Path) -> None:
        """The run is listed, and fails when it is read; of the projects each tells for itself."""
        for endpoint, listed in (("experiment/log-other", {VENDOR_KEY}), ("rest/v2/experiments", set())):
            self._server.faults.failing[endpoint] = 403
            try:
                source = self.open_source(tmp_path)
                projects = list(source.list_projects(ALL))
                assert {"ws/vision", "old/vision"} <= set(projects)
                runs = {str(run.id) for run in self._listed(source, ProjectId("ws/vision"))}
            finally:
                self._server.faults.failing.clear()
            assert runs == listed

    def _listed(self, source: ReadSide, project: ProjectId) -> list[RunRef]:
        try:
            return list(source.list_runs(project, ALL))
        except Denied:
            return []

    def _fields(self, folder: Path, project: str, key: str) -> dict[str, Field]:
        source = self.open_source(folder)
        run = next(run for run in source.list_runs(ProjectId(project), ALL) if run.id == RunId(key))
        chunks = (piece.chunk for piece in source.read_runs([run], Want(), DigestSink()))
        return {field.path: field for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}


def _keys(source: ReadSide) -> set[tuple[str, str]]:
    run = next(run for run in source.list_runs(ProjectId("old/vision"), ALL) if run.id == OLD_KEY)
    return set(field_digests(piece.chunk for piece in source.read_runs([run], Want(), DigestSink())))


def _nowhere() -> ArchiveFiles:
    return ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/plain"))
