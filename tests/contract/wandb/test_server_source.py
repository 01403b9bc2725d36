"""Source `wandb` passes the suite on a server that the vendor's own `wandb sync` filled."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance import SourceSuite, field_digests
from shardmig.adapters.wandb.connection import Connection
from shardmig.adapters.wandb.options import parse_options
from shardmig.adapters.wandb.source import open_source
from shardmig.adapters.wandb.syncing import shared_sync
from shardmig.archive.files import DigestSink
from shardmig.records import Chunk, ProjectId, Selection
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
