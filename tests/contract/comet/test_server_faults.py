"""Sending to a server that fails: what arrived is read back, and nothing is taken for whole that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.conformance.runs import field_digests, plain_run
from shardmig.adapters.registry import open_target as open_patient_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import AuthFailed, Denied, Unavailable
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    FloatPoints,
    Header,
    LoadOptions,
    ProjectId,
    RunId,
    RunRef,
    Steps,
)
from tests.servers.comet.server import CometServer

pytestmark = pytest.mark.xdist_group("comet")

LOAD = LoadOptions(step_multiplier=1)
REPLACE = LoadOptions(step_multiplier=1, on_existing="replace")
NOWHERE = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/plain"))
DIGEST = "d" * 32


def _target(server: CometServer, **options: str) -> Any:
    return open_target(
        {"url": server.url, "settle-s": "0.4", "requests-per-s": "0"}
        | {k.replace("_", "-"): v for k, v in options.items()},
        LOAD,
    )


def _write(target: Any, chunks: list[Chunk]) -> Any:
    return target.write_run(migration_key(_run(chunks)), DIGEST, iter(chunks), NOWHERE, None)


def _run(chunks: list[Chunk]) -> RunRef:
    assert isinstance(chunks[0], Header)
    return chunks[0].run


def _read(target: Any, chunks: list[Chunk]) -> list[Chunk]:
    held = target.find_run(migration_key(_run(chunks)))
    return [piece.chunk for piece in target.read_run(held, Want(), DigestSink())]


def _long_run(points: int) -> list[Chunk]:
    run = RunRef(project=ProjectId("ws/long"), id=RunId("LONG-1"), created_ms=1_700_000_000_000)
    steps = np.arange(points, dtype=np.int64)
    lengths = np.array([points], dtype=np.int64)
    values = np.sin(steps / 100)
    series = FloatPoints(["metrics/long"], lengths, Steps(steps), 1_700_000_000_000 + steps, values)
    return [Header(run, "test", "1"), Fields([Field("params/lr", "float", 0.5)]), series, End()]


@pytest.mark.parametrize("fault", ["503", "drop", "500", "429"])
def test_a_server_that_stumbles_gets_everything_in_the_end(comet: CometServer, fault: str) -> None:
    comet.faults.path = "batch/logger"
    comet.faults.upcoming = [fault]
    chunks = plain_run()
    target = _target(comet)
    _write(target, chunks)
    assert comet.faults.injected == 1
    assert field_digests(_read(target, chunks)) == field_digests(chunks)


def test_metrics_that_were_taken_twice_leave_the_run_partial_and_the_next_attempt_makes_it_whole(
    comet: CometServer,
) -> None:
    comet.faults.path = "batch/logger/experiment/metric"
    comet.faults.upcoming = ["committed"]  # the vendor's client sends the batch again
    chunks = plain_run()
    target = _target(comet)
    with pytest.raises(Unavailable, match=r"points of metrics/loss"):
        _write(target, chunks)
    assert target.find_run(migration_key(_run(chunks))).state == "partial"
    _write(target, chunks)
    assert target.find_run(migration_key(_run(chunks))).state == "complete"
    assert field_digests(_read(target, chunks)) == field_digests(chunks)
    [experiment] = comet.experiments.values()
    assert len(experiment.metrics["metrics/loss"]) == 10


@pytest.mark.parametrize(
    ("path", "status", "lacks"),
    [
        ("batch/logger/experiment/metric", 400, "points"),
        ("batch/logger/experiment/parameter", 400, "parameters"),
        ("asset/upload", 429, "assets"),
        ("visualizations/upload", 429, "assets"),
    ],
)
def test_what_the_uploader_lost_in_silence_is_found_by_reading_back(
    comet: CometServer, tmp_path: Path, path: str, status: int, lacks: str
) -> None:
    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), ProjectId("ws/plain"))
    chunks = plain_run()
    (tmp_path / "pixel.png").write_bytes(b"no picture")
    from shardmig.records import Files

    ref = files.put(_run(chunks), "images/one", "file", tmp_path / "pixel.png", name="pixel.png")
    chunks.insert(2, Files([ref]))
    comet.faults.failing[path] = status
    target = _target(comet)
    key = migration_key(_run(chunks))
    with pytest.raises(Unavailable, match=lacks):
        target.write_run(key, DIGEST, iter(chunks), files, None)
    held = target.find_run(key)
    assert held is None or held.state == "partial"
    comet.faults.failing.clear()
    target.write_run(key, DIGEST, iter(chunks), files, None)
    assert target.find_run(key).state == "complete"


def test_a_run_whose_replacement_failed_is_told_to_be_gone(comet: CometServer) -> None:
    chunks = plain_run()
    _write(_target(comet), chunks)
    replacing = open_target({"url": comet.url, "settle-s": "0.4", "requests-per-s": "0"}, REPLACE)
    comet.faults.failing["batch/logger/experiment/metric"] = 400
    with pytest.raises(Unavailable, match="which was to be replaced, is deleted already"):
        replacing.write_run(migration_key(_run(chunks)), "e" * 32, iter(chunks), NOWHERE, None)
    comet.faults.failing.clear()
    replacing.write_run(migration_key(_run(chunks)), "e" * 32, iter(chunks), NOWHERE, None)
    assert field_digests(_read(replacing, chunks)) == field_digests(chunks)


def test_points_that_the_uploader_gave_up_are_not_taken_for_sampled_away(comet: CometServer) -> None:
    chunks = _long_run(15_100)
    comet.faults.path = "batch/logger/experiment/metric"
    comet.faults.upcoming = ["400"]
    target = _target(comet)
    with pytest.raises(Unavailable, match="15100 points of metrics/long"):
        _write(target, chunks)
    _write(target, chunks)
    [experiment] = comet.experiments.values()
    assert len(experiment.metrics["metrics/long"]) == 15_100


def test_assets_that_the_server_throttled_are_sent_again(comet: CometServer) -> None:
    comet.faults.path = "asset/upload"
    comet.faults.upcoming = ["429"]
    chunks = plain_run()
    target = _target(comet)
    _write(target, chunks)
    assert comet.faults.injected == 1
    assert target.find_run(migration_key(_run(chunks))).state == "complete"
    [experiment] = comet.experiments.values()
    assert len(experiment.metrics["metrics/loss"]) == 10


def test_an_error_that_the_uploader_left_with_a_whole_run_is_told(comet: CometServer) -> None:
    comet.faults.path = "batch/logger/experiment/parameter"
    comet.faults.upcoming = ["400"]
    chunks = plain_run()
    target = _target(comet)
    written = _write(target, chunks)
    assert target.find_run(migration_key(_run(chunks))).state == "complete"
    [experiment] = comet.experiments.values()
    assert "parameters batch" in str(experiment.error)
    assert [(one.kind, one.code) for one in written.findings] == [("note", "error-shown")]


def test_reading_waits_as_long_as_the_server_asks(comet: CometServer) -> None:
    chunks = plain_run()
    _write(_target(comet), chunks)
    comet.faults.upcoming = ["429", "500", "drop", "cut"]
    comet.faults.path = "api/rest"
    target = open_patient_target(AdapterSpec("comet", {"url": comet.url, "requests-per-s": "0"}), LOAD)
    assert field_digests(_read(target, chunks)) == field_digests(chunks)
    assert comet.faults.injected == 4


def test_an_unknown_key_stops_the_load(comet: CometServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_API_KEY", "another-key")
    with pytest.raises(AuthFailed):
        _write(_target(comet), plain_run())


def test_a_workspace_that_does_not_exist_is_denied(comet: CometServer) -> None:
    with pytest.raises(Denied, match="workspace"):
        _write(_target(comet, workspace="nobody-{workspace}"), plain_run())


def test_the_key_may_come_from_a_file_or_from_comets_own_configuration(
    comet: CometServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMET_API_KEY")
    with pytest.raises(AuthFailed):
        _target(comet).find_run(migration_key(_run(plain_run())))
    key_file = tmp_path / "key"
    key_file.write_text(comet.api_key + "\n")
    _write(_target(comet, key_file=str(key_file)), plain_run())
    config = tmp_path / ".comet.config"
    config.write_text(f"[comet]\napi_key={comet.api_key}\nurl_override={comet.url}\nworkspace=default\n")
    monkeypatch.setenv("COMET_CONFIG", str(config))
    configured = open_target({}, LOAD)
    assert configured.find_run(migration_key(_run(plain_run()))) is not None


def test_experiments_lie_where_the_templates_say(comet: CometServer) -> None:
    comet.workspaces.add("team-ws")
    _write(_target(comet, workspace="team-{workspace}", project="from-{project}/{sys_name}"), plain_run())
    [experiment] = comet.experiments.values()
    assert (experiment.workspace, experiment.offline) == ("team-ws", True)
    assert experiment.project.startswith("from-plain-name of RUN-1")


def test_all_points_are_sent_and_a_sample_of_them_is_whole_with_the_sidecar(comet: CometServer) -> None:
    chunks = _long_run(15_100)
    target = _target(comet, points_per_upload="8000")
    written = _write(target, chunks)
    [experiment] = comet.experiments.values()
    assert len(experiment.metrics["metrics/long"]) == 15_100
    assert [(one.kind, one.code, one.field) for one in written.findings] == [
        ("approximation", "series-sampled", "metrics/long")
    ]
    comet.most_values = 15_000
    assert field_digests(_read(target, chunks)) == field_digests(chunks)
    changed = experiment.metrics["metrics/long"][0]
    changed["metricValue"] += 1
    assert field_digests(_read(target, chunks)) != field_digests(chunks), "a change on the server is seen"


def test_a_server_that_samples_at_once_still_makes_the_run_complete(comet: CometServer) -> None:
    comet.most_values = 12_000
    chunks = _long_run(15_050)
    target = _target(comet)
    _write(target, chunks)
    assert target.find_run(migration_key(_run(chunks))).state == "complete"
    assert field_digests(_read(target, chunks)) == field_digests(chunks)
