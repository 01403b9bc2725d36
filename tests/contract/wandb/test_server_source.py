"""Source `wandb` passes the suite on a server that the vendor's own `wandb sync` filled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide, Want, migration_key
from shardmig.adapters.conformance import SourceSuite, field_digests, plain_run
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.connection import Connection
from shardmig.adapters.wandb.options import parse_options
from shardmig.adapters.wandb.source import open_source
from shardmig.adapters.wandb.syncing import shared_sync
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import NotFound
from shardmig.records import (
    ArchivePaths,
    Chunk,
    Fields,
    Finding,
    Header,
    LoadOptions,
    ProjectId,
    RunRef,
    Selection,
)
from tests.contract.wandb.foreign_runs import Recording
from tests.servers.wandb.server import WandbServer
from tests.servers.wandb.store import Run

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("wandb-server")]


class TestServerSource(SourceSuite):
    @pytest.fixture(autouse=True)
    def _server(self, wandb: WandbServer) -> None:
        self.wandb = wandb

    def open_source(self, folder: Path) -> ReadSide:
        if not self.wandb.store.runs:
            _fill(self.wandb)
        return open_source({"base-url": self.wandb.url})

    def snapshot(self, folder: Path) -> object:
        return {key: (dict(run.files), str(run.lines), str(run.config)) for key, run in self.wandb.store.runs.items()}


def test_what_the_client_synced_comes_back_as_what_it_recorded(wandb: WandbServer, tmp_path: Path) -> None:
    run = Recording("synced", "one", display_name="a run", run_group="g", tags=["a"], entity="team")
    run.config({"lr": 0.1, "deep": {"a": 1}})
    for step in range(0, 3_000_000_000, 30_000_000):
        run.row(step, {"loss": 1 / (step + 1), "nan": float("nan"), "deep": {"x": step}})
    run.stats(run.start_ms, {"cpu": 1.5})
    run.exit()
    folder = run.write(tmp_path / "wandb")
    shared_sync(Connection(parse_options({})).environment()).send(folder, 60)
    wandb.requests.clear()
    synced, local = _read("team/one", {}), _read("team/one", {"path": str(tmp_path / "wandb")})
    assert wandb.requests["graphql HistoryPage"] < 20
    for key in (("metrics/loss", "float_series"), ("metrics/nan", "float_series"), ("metrics/deep.x", "float_series")):
        assert field_digests(synced)[key] == field_digests(local)[key]
    for name in ("config/lr", "config/deep/a", "sys/custom_run_id", "sys/name", "sys/tags"):
        assert [key for key in field_digests(synced) if key[0] == name]


def test_artifacts_and_system_metrics_come_from_the_server_too(wandb: WandbServer) -> None:
    _fill(wandb)
    rows = {key: digest.rows for key, digest in field_digests(_read("team/one", {})).items()}
    assert rows["artifacts/model:v0", "file_set"] == 1
    assert rows["system/cpu", "float_series"] == 3
    assert rows["files/notes.txt", "file"] == 1
    without = field_digests(_read("team/one", {"system-metrics": "no"}))
    assert ("system/cpu", "float_series") not in without


def test_a_file_of_which_the_server_gave_less_than_it_lists_is_fetched_again(wandb: WandbServer) -> None:
    _fill(wandb)
    whole = field_digests(_read("team/one", {}))
    wandb.short_files = 3
    assert field_digests(_read("team/one", {})) == whole
    assert wandb.short_files == 0


def test_what_the_server_no_longer_has_of_system_metrics_and_artifacts_is_told(wandb: WandbServer) -> None:
    _fill(wandb)
    wandb.graph.most_events = 1
    wandb.graph.deleted_artifacts.add("model")
    chunks = _read("team/one", {})
    gaps = {(one.code, one.field, one.count) for one in _findings(chunks) if one.kind == "gap"}
    assert gaps == {("file-not-here", "artifacts/model:v0", 1), ("series-sampled", "system", 2)}


def test_of_very_many_system_metrics_a_sample_is_read_and_told(wandb: WandbServer) -> None:
    _fill(wandb)
    event = '{{"_timestamp": {0}, "system.cpu": {0}.5}}'
    for run in wandb.store.runs.values():
        run.lines["wandb-events.jsonl"] = {number: event.format(number) for number in range(100_007)}
    chunks = _read("team/two", {})
    assert field_digests(chunks)["system/cpu", "float_series"].rows == 100_000
    assert [(one.code, one.count) for one in _findings(chunks) if one.code == "series-sampled"] == [
        ("series-sampled", 7)
    ]


def test_what_was_said_of_an_artifact_comes_from_the_server_too(wandb: WandbServer) -> None:
    _fill(wandb)
    wandb.store.runs["team", "one", "r1"].used = [f"set{number:02}" for number in range(60)]
    (fields,) = [chunk.fields for chunk in _read("team/one", {}) if isinstance(chunk, Fields)]
    told = {field.path: field.value for field in fields}
    assert json.loads(str(told["artifacts/model:v0"])) == {
        "type": "model",
        "description": "about model",
        "metadata": {"accuracy": 0.5},
        "aliases": ["best"],
    }
    assert told["sys/wandb/used_artifacts"] == [f"team/data/set{number:02}:v3" for number in range(60)]


def test_numbers_that_the_server_gives_as_texts_are_numbers_at_any_depth(wandb: WandbServer) -> None:
    _fill(wandb)
    run = wandb.store.runs["team", "one", "r1"]
    run.lines["wandb-history.jsonl"] = {0: '{"_step": 0, "_timestamp": 1, "deep": {"loss": "NaN", "word": "no"}}'}
    run.summary = {"loss": "-Infinity", "deep": {"loss": "NaN"}}
    chunks = _read("team/one", {})
    digests = field_digests(chunks)
    assert ("metrics/deep.loss", "float_series") in digests
    assert ("metrics/deep.word", "string_series") in digests
    assert {key for key in digests if key[0].startswith("summary/")} == {
        ("summary/loss", "float"),
        ("summary/deep/loss", "float"),
    }


def test_an_entity_that_is_not_there_is_no_empty_one(wandb: WandbServer) -> None:
    _fill(wandb)
    with pytest.raises(NotFound, match="nobody"):
        list(open_source({"entity": "nobody"}).list_projects(Selection()))


def test_a_project_that_is_not_given_fails_alone_and_nobody_takes_the_others_for_all(wandb: WandbServer) -> None:
    _fill(wandb)
    brought = plain_run()
    header = brought[0]
    assert isinstance(header, Header)
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), header.run.project)
    target = open_target({}, LoadOptions(step_multiplier=1))
    target.write_run(migration_key(header.run), "d", iter(brought), nowhere, None)
    wandb.graph.hidden_projects.add("two")
    source = open_source({})
    assert set(source.list_projects(Selection())) == {"team/one", "team/plain", "team/two", "ws/plain"}
    assert len(list(source.list_runs(ProjectId("team/one"), Selection()))) == 2
    with pytest.raises(NotFound, match="two"):
        list(source.list_runs(ProjectId("team/two"), Selection()))
    listed = source.list_runs(ProjectId("ws/plain"), Selection())
    assert next(listed).id == "RUN-1"
    with pytest.raises(NotFound, match="two"):
        next(listed)


def test_a_run_whose_notes_or_config_people_changed_is_another_version(wandb: WandbServer) -> None:
    _fill(wandb)
    versions = [_first_run().fingerprint]
    run = wandb.store.runs["team", "one", "r1"]
    for change in ({"notes": "well done"}, {"config": {"lr": {"value": 0.2}}}, {"summary": {"loss": 0.4}}):
        for name, value in change.items():
            setattr(run, name, value)
        versions.append(_first_run().fingerprint)
    assert len(set(versions)) == 4
    run.tags = ["b", "a"]
    run.config = {"b": {"value": 1}, "a": {"value": 2}}
    before = _first_run().fingerprint
    run.tags, run.config = ["a", "b"], {"a": {"value": 2}, "b": {"value": 1}}
    assert _first_run().fingerprint == before


def _first_run() -> RunRef:
    return next(open_source({}).list_runs(ProjectId("team/one"), Selection()))


def _findings(chunks: list[Chunk]) -> list[Finding]:
    return list(getattr(chunks[-1], "findings", []))


def _read(project: str, options: dict[str, str]) -> list[Chunk]:
    source = open_source(options)
    run = next(source.list_runs(ProjectId(project), Selection()))
    return [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]


def _fill(wandb: WandbServer) -> None:
    """Runs as clients made them."""
    for project, name, count in (("one", "r1", 130), ("one", "r2", 3), ("two", "r1", 1)):
        run, _ = wandb.store.upsert({"project": project, "name": name, "displayName": f"run {name}", "groupName": "g"})
        _fill_run(run, count)


def _fill_run(run: Run, count: int) -> None:
    run.config = {"lr": {"value": 0.1}, "deep": {"value": {"a": [1, 2]}}}
    run.summary = {"loss": 0.5, "_wandb": {"runtime": 12}}
    run.state = "finished"
    row = '{{"_step": {0}, "_timestamp": {1}, "loss": {0}.5, "word": "w{0}", "flag": true, "odd": "NaN"}}'
    lines = {number: row.format(number, 1_700_000_000 + number) for number in range(count)}
    run.lines["wandb-history.jsonl"] = lines
    event = '{{"_timestamp": {0}, "_runtime": 1, "system.cpu": {0}.5}}'
    run.lines["wandb-events.jsonl"] = {number: event.format(number) for number in range(3)}
    run.files = {"notes.txt": b"notes", "config.yaml": b"lr: 0.1", "weights.bin": b"weights"}
    run.artifacts["model"] = {"weights.bin": "weights.bin", "deep/config.yaml": "config.yaml"}
