"""Experiments of Lightning as a source: those that litlogger logged, and those that shardmig brought there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import ReadSide, Want, migration_key
from shardmig.adapters.conformance import SourceSuite, plain_run, rich_run
from shardmig.adapters.conformance.runs import MULTIPLIER
from shardmig.adapters.litlogger import open_source, open_target
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.options import parse_options
from shardmig.adapters.litlogger.shown import MediaOfRun
from shardmig.adapters.litlogger.source import LightningSource
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import Denied
from shardmig.records import (
    ArchivePaths,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    FloatPoints,
    Header,
    LoadOptions,
    ProjectId,
    RunId,
    Selection,
)
from tests.contract.litlogger.experiments import TEAMSPACE, log_experiments
from tests.contract.litlogger.runs import opened, sample
from tests.servers.lightning.server import Lightning, lightning_server

pytestmark = pytest.mark.xdist_group("lightning")

BARE = {"requests-per-s": "0"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lightning]:
    """A server with experiments of litlogger's and of shardmig's. Not to be changed."""
    folder = tmp_path_factory.mktemp("logged")
    with lightning_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        log_experiments(running, folder)
        target = open_target(BARE, LoadOptions(step_multiplier=MULTIPLIER))
        files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), ProjectId("ws/rich"))
        parent = None
        for chunks in (rich_run(files), plain_run(), plain_run(run_id="RUN-2", parent="RUN-1")):
            header = chunks[0]
            assert isinstance(header, Header)
            own = parent if header.run.parent else None
            parent = target.write_run(migration_key(header.run), "d" * 32, iter(chunks), files, own).id
        target.close()
        yield running


@pytest.fixture(autouse=True)
def _credentials(filled: Lightning, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in filled.environment.items():
        monkeypatch.setenv(name, value)


class TestSource(SourceSuite):
    @pytest.fixture(autouse=True)
    def _server(self, filled: Lightning) -> None:
        self.lightning = filled

    def open_source(self, folder: Path) -> ReadSide:
        return open_source(BARE)

    def snapshot(self, folder: Path) -> object:
        return self.lightning.store.dump()


@pytest.fixture
def source() -> Iterator[LightningSource]:
    opened = open_source(BARE)
    assert isinstance(opened, LightningSource)
    yield opened
    opened.close()


class Read:
    """One run as it was read."""

    def __init__(self, source: ReadSide, project: str, name: str, want: Want | None = None) -> None:
        runs = {run.id: run for run in source.list_runs(ProjectId(project), Selection())}
        self.run = next(run for run_id, run in runs.items() if run_id == name)
        self.fields: dict[str, Field] = {}
        self.files: list[FileRef] = []
        self.points: dict[str, list[tuple[Decimal, int, float]]] = {}
        for piece in source.read_runs([self.run], want or Want(), DigestSink()):
            match piece.chunk:
                case Fields(fields):
                    self.fields |= {field.path: field for field in fields}
                case Files(refs):
                    self.files += refs
                case FloatPoints() as points:
                    for path, one in points.series():
                        rows = zip(one.steps.to_decimals(), one.times_ms.tolist(), one.values.tolist(), strict=True)
                        self.points.setdefault(path, []).extend(rows)
                case End(findings):
                    self.findings = findings


def test_teamspaces_are_projects_beside_the_projects_of_what_was_brought(source: LightningSource) -> None:
    found = list(source.list_projects(Selection()))
    assert {TEAMSPACE, "unused", "ws/plain", "ws/rich"} <= set(found)
    assert [run.id for run in source.list_runs(ProjectId(TEAMSPACE), Selection())] == ["first", "second"]


def test_a_teamspace_that_is_denied_says_so_and_stops_no_other(source: LightningSource, filled: Lightning) -> None:
    """It would be left out in silence otherwise."""
    [unused] = [one for one in filled.store.teamspaces.values() if one.name == "unused"]
    unused.is_denied = True
    try:
        listed = set(source.list_projects(Selection()))
        assert {TEAMSPACE, "unused"} <= listed
        assert len(list(source.list_runs(ProjectId(TEAMSPACE), Selection()))) == 2
        with pytest.raises(Denied):
            list(source.list_runs(ProjectId("unused"), Selection()))
    finally:
        unused.is_denied = False


def test_an_experiment_of_litlogger_is_read_whole(source: LightningSource, filled: Lightning) -> None:
    first = Read(source, TEAMSPACE, "first")
    held = filled.store.dump()[f"{TEAMSPACE}/first"]
    assert first.findings == []
    texts = {path: field.value for path, field in first.fields.items() if path.startswith("metadata/")}
    assert texts == {f"metadata/{name}": value for name, value in held["tags"].items()}
    assert texts["metadata/note"] == "two\nlines"
    assert (first.fields["sys/name"].value, first.fields["sys/state"].value) == ("first", "inactive")
    assert first.fields["sys/creation_time"].type == "datetime"
    for name, rows in held["series"].items():
        found = first.points[f"metrics/{name}"]
        assert [(int(step), repr(value)) for step, _, value in found] == [
            (step, repr(value)) for step, _, value in rows
        ]
        assert all(time_ms > 1_700_000_000_000 for _, time_ms, _ in found)
    assert len(first.points["metrics/train/loss"]) == 120


def test_its_files_and_media_keep_their_paths_steps_and_bytes(source: LightningSource) -> None:
    first = Read(source, TEAMSPACE, "first")
    refs = {(ref.path, ref.type, ref.step): ref.sha256 for ref in first.files}
    hello = sha256(b"hello").hexdigest()
    assert refs[("artifacts/notes", "file", None)] == hello
    assert refs[("artifacts/reports/0", "file", None)] == refs[("artifacts/reports/1", "file", None)] == hello
    assert refs[("media/remark", "file", None)] == sha256(b"static").hexdigest()
    assert refs[("media/remarks", "file_series", Decimal(10))] == sha256(b"at 10").hexdigest()


def test_points_without_stored_times_have_none(source: LightningSource) -> None:
    second = Read(source, TEAMSPACE, "second")
    [(step, time_ms, value)] = second.points["metrics/only"]
    assert (int(step), value) == (0, 1.5)
    assert time_ms < 0


def test_an_experiment_and_its_copy_are_told_apart(source: LightningSource, filled: Lightning) -> None:
    chunks = plain_run(project=TEAMSPACE, run_id="first")
    assert isinstance(chunks[0], Header)
    run, target = chunks[0].run, open_target(BARE, LoadOptions(step_multiplier=1))
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), run.project)
    target.write_run(migration_key(run), "d" * 32, iter(chunks), nowhere, None)
    try:
        listed = [one.id for one in source.list_runs(ProjectId(TEAMSPACE), Selection())]
        assert [one.partition("~")[0] for one in listed] == ["first", "second", "first"]
        copy = Read(source, TEAMSPACE, listed[-1])
        assert "params/lr" in copy.fields
        assert [one.code for one in copy.findings if one.kind == "note"] == ["copy-beside-original"]
    finally:
        held = target.find_run(migration_key(run))
        assert held is not None
        target.discard_run(held)
        target.close()


def test_files_that_people_added_to_an_experiment_that_was_brought_come_with_it(
    source: LightningSource, tmp_path: Path
) -> None:
    """The run's manifest does not know them. What it shows of its own files is not theirs."""
    run, target = sample(tmp_path), opened()
    one = run.files.put(run.run, "artifacts/one.txt", "file", io.BytesIO(b"own"), name="one.txt")  # type: ignore[attr-defined]
    run.chunks.insert(2, Files([one]))  # as that of an experiment that was copied from Lightning to Lightning
    run.written(target)
    held = target.find_run(migration_key(run.run))
    assert held is not None
    try:
        cloud = Cloud(parse_options(BARE))
        stream = cloud.stream(*held.id.split("/"))
        (tmp_path / "theirs").write_text("theirs")
        drive = Drive(cloud, stream, stream.cluster_id)
        drive.put(tmp_path / "theirs", "reports/theirs.txt")
        drive.put(tmp_path / "theirs", "one.txt")
        MediaOfRun(cloud, stream, drive, is_new=False).put(tmp_path / "theirs", "look", "look at 3", "image/png", 3)
        cloud.close()
        read = Read(source, run.run.project, run.run.id)
    finally:
        target.discard_run(held)
        target.close()
    theirs = sha256(b"theirs").hexdigest()
    own = {ref.path for chunk in run.chunks if isinstance(chunk, Files) for ref in chunk.files}
    assert [(ref.path, ref.step, ref.sha256) for ref in read.files if ref.path not in own] == [
        ("artifacts/one.txt (2)", None, theirs),
        ("artifacts/reports/theirs.txt", None, theirs),
        ("media/look", Decimal(3), theirs),
    ]
    assert len(read.files) == 7
    assert [one.code for one in read.findings if one.kind == "loss"] == []


def test_the_files_of_a_copy_lie_apart_from_those_of_its_original_in_an_archive(
    source: LightningSource, filled: Lightning, tmp_path: Path
) -> None:
    """Both may have a file under one name, and an update of either removes what lies with it and is its no more."""
    original = next(one for one in filled.store.streams.values() if one.name == "first")
    run = sample(tmp_path, "first", ProjectId(TEAMSPACE))
    target = opened()
    run.written(target)
    held = target.find_run(migration_key(run.run))
    assert held is not None
    archived = ArchiveFiles(ArchivePaths(str(tmp_path / "d"), str(tmp_path / "f")), ProjectId(TEAMSPACE))
    try:
        listed = {one.locator: one for one in source.list_runs(ProjectId(TEAMSPACE), Selection())}
        folders = {
            locator: {
                ref.stored.partition("/")[0]
                for piece in source.read_runs([one], Want(), archived)
                if isinstance(piece.chunk, Files)
                for ref in piece.chunk.files
            }
            for locator, one in listed.items()
        }
    finally:
        target.discard_run(held)
        target.close()
    assert folders[held.id]
    assert folders[held.id].isdisjoint(folders[f"{original.project}/{original.id}"])


def test_a_fork_that_was_brought_names_its_parent_again(source: LightningSource) -> None:
    forked = Read(source, "ws/plain", "RUN-2")
    assert forked.run.parent == "RUN-1"
    assert forked.fields["sys/forking/parent"].value == "RUN-1"


def test_metadata_that_somebody_changed_stops_no_listing(source: LightningSource, filled: Lightning) -> None:
    """A creation time may have been any text in the run that was brought, too."""
    [tags] = [one.tags for one in filled.store.streams.values() if ("shardmig.run_id", "RUN-2") in _pairs(one.tags)]
    before = [dict(tag) for tag in tags]
    tags.append({"name": "sys/creation_time", "value": "yesterday", "fromCode": True})
    tags[:] = [tag | ({"value": "of others"} if tag["name"] == "shardmig.scope" else {}) for tag in tags]
    try:
        listed = {run.id: run for run in source.list_runs(ProjectId("ws/plain"), Selection())}
    finally:
        tags[:] = before
    assert set(listed) == {"RUN-1", "RUN-2"}
    assert listed[RunId("RUN-2")].created_ms is None


def _pairs(tags: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(tag["name"], tag["value"]) for tag in tags}
