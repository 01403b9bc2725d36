"""Exports as a user types them, from a server that the vendor's client wrote to."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest

import shardmig
from shardmig.archive.handles import FieldHandle
from shardmig.archive.namespace import Archive, Run
from shardmig.cli.app import execute
from tests.contract.neptune2.vendor import OTHER, POINTS, PROJECT
from tests.processes import workers_of
from tests.servers.neptune2.entities import Attribute, Series
from tests.servers.neptune2.server import NeptuneServer

_POINTS = 120_000
PAGE = Path(__file__).parents[3] / "docs" / "neptune2.md"


def start(server: NeptuneServer, folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """`shardmig export --source neptune2 …` in a process of its own."""
    command = [sys.executable, "-m", "shardmig", "export", "--source", "neptune2", "-d", "data", "-f", "files"]
    environment = os.environ | {"NEPTUNE_API_TOKEN": server.api_token} | settings
    return subprocess.Popen(
        [*command, "--no-progress", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def exported(server: NeptuneServer, folder: Path, *arguments: str) -> Archive:
    """The archive of an export that succeeded."""
    process = start(server, folder, "--workers", "1", *arguments)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return shardmig.open_archive(folder / "data", folder / "files")


def field(run: Run, path: str) -> FieldHandle:
    """A field, which is no namespace."""
    found = run[path]
    assert isinstance(found, FieldHandle)
    return found


def test_an_export_holds_what_the_client_wrote(neptune2: NeptuneServer, tmp_path: Path) -> None:
    archive = exported(neptune2, tmp_path, "--include-archived-runs")
    assert sorted(archive) == [OTHER, PROJECT]
    project = archive[PROJECT]
    assert sorted(project) == ["VIS-1", "VIS-2"]
    assert sorted(project.scope("models")) == ["VIS-MOD"]
    assert sorted(project.scope("model_versions")) == ["VIS-MOD-1", "VIS-MOD-2"]
    run = project["VIS-1"]
    assert field(run, "params/float").fetch() == 0.1
    assert field(run, "metrics/loss").fetch_values().num_rows == POINTS

    for file in tmp_path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert neptune2.api_token.encode() not in content, f"{file} holds the token"
            assert neptune2.api_key.encode() not in content, f"{file} holds the token's key"


def test_a_killed_worker_is_continued_inside_its_run(empty_neptune2: NeptuneServer, tmp_path: Path) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    steps = [float(number) for number in range(_POINTS)]
    entity.attributes["m"] = Attribute("floatSeries", Series(steps, list(range(_POINTS)), steps))
    empty_neptune2.faults.latency_s = 0.01
    options = ("-p", PROJECT, "--workers", "1", "--source-option", "connections=1")
    process = start(empty_neptune2, tmp_path, *options, SHARDMIG_CHUNK_POINTS="2000")
    deadline = time.monotonic() + 60
    while empty_neptune2.requests["getFloatSeriesValues"] < _POINTS // 2000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(min(workers_of(process.pid)), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    run = shardmig.open_archive(tmp_path / "data", tmp_path / "files")[PROJECT]["VIS-1"]
    values = field(run, "m").fetch_values()
    assert values.num_rows == _POINTS
    assert pc.sum(values["value"]).as_py() == sum(steps)
    assert empty_neptune2.requests["getFloatSeriesValues"] < _POINTS // 1000 + 50


def test_retry_fetches_only_the_field_that_was_lost(
    empty_neptune2: NeptuneServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    entity = empty_neptune2.store.add_entity(empty_neptune2.store.add_project(PROJECT, "VIS"), "run")
    steps = [float(number) for number in range(3_000)]
    for name in ("a", "b", "c"):
        entity.attributes[name] = Attribute("floatSeries", Series(steps, list(range(3_000)), steps))
    empty_neptune2.faults.failing = {"getFloatSeriesValues b": 404}
    place = ("-d", "data", "-f", "files", "--engine", "inline", "--no-progress", "--json")
    assert execute(["export", "--source", "neptune2", "-p", PROJECT, *place]) == 3
    [failed] = json.loads(capsys.readouterr().out)["failed"]
    assert failed["outcome"]["failure"]["field"] == "b"
    empty_neptune2.faults.failing = {}
    empty_neptune2.requests.clear()
    assert execute(["retry", "--failed", *place]) == 0
    asked = empty_neptune2.requests
    assert (asked["getExperimentAttributes"], asked["getFloatSeriesValues"]) == (1, 3)
    run = shardmig.open_archive(tmp_path / "data", tmp_path / "files")[PROJECT]["VIS-1"]
    for name in ("a", "b", "c"):
        assert field(run, name).fetch_values()["value"].to_pylist() == steps


def test_the_commands_of_the_documentation_are_understood(
    empty_neptune2: NeptuneServer, sqlite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDMIG_ENGINE", "inline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{sqlite_file}")
    project = empty_neptune2.store.add_project("my-team/vision", "VIS")
    empty_neptune2.store.add_project("my-team/sandbox", "BOX")
    empty_neptune2.store.add_entity(project, "run").put("lr", "float", 0.1)
    empty_neptune2.store.add_entity(project, "model", custom_id="MOD").put("signature", "string", "image")
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("shardmig ")]
    assert len(lines) == 5
    for line in lines:
        assert execute(shlex.split(line)[1:]) == 0, line
