"""Exports as a user types them: whole, resumed, and without a trace of the token."""

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

import pytest

from shardmig.adapters.archive import open_source as open_archive_source
from shardmig.cli.app import execute
from tests.contract.neptune3.filling import CREATED_MS, add_long_series, append, assign, create, rich_project, upload
from tests.contract.neptune3.reading import list_all, read_all, same
from tests.processes import workers_of
from tests.servers.neptune3.server import Neptune3

PAGE = Path(__file__).parents[3] / "docs" / "neptune3.md"
FLOATS = "/api/leaderboard/v1/proto/attributes/series/float"


def start(folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """shardmig in a process of its own, with the server's token in its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "shardmig", *arguments],
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it said; it must have succeeded."""
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def assert_archived(server: Neptune3, folder: Path, project: str) -> None:
    """The archive in `folder` holds what the server holds."""
    source = open_archive_source({"data": str(folder / "data"), "files": str(folder / "files")})
    found = read_all(source, list_all(source, project), folder)
    assert found.keys() == {run.id for run in server.store.projects[project].runs.values()}
    for run_id, contents in found.items():
        assert same(contents.fields, server.store.dump(project, run_id)), run_id
    source.close()


def test_an_export_is_whole_repeatable_and_holds_no_token(server: Neptune3, tmp_path: Path) -> None:
    rich_project(server)
    command = ("export", "--source", "neptune3", "-p", "ws/rich", "-d", "data", "-f", "files", "--workers", "2")
    finish(start(tmp_path, *command))
    assert_archived(server, tmp_path, "ws/rich")
    server.requests.clear()
    finish(start(tmp_path, *command))
    assert not [path for path in server.requests if "series" in path], "a run that is there is not read again"
    token = server.token.encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and token in path.read_bytes()]


def test_a_killed_worker_goes_on_inside_its_run(server: Neptune3, tmp_path: Path) -> None:
    points = 100_000
    create(server, "ws/p", "long")
    add_long_series(server, "ws/p", "long", "m", points)
    server.latency_s = 0.02
    command = ("export", "--source", "neptune3", "-p", "ws/p", "-d", "data", "-f", "files", "--workers", "1")
    process = start(tmp_path, *command, SHARDMIG_CHUNK_POINTS="2000")
    wait_for_pages(server, 25, process)
    os.kill(min(workers_of(process.pid)), signal.SIGKILL)
    finish(process)
    assert_archived(server, tmp_path, "ws/p")
    pages = points // 2_000 + 1
    assert pages <= server.requests[FLOATS] < pages + 20


def test_a_server_that_is_down_for_seconds_delays_an_export(server: Neptune3, tmp_path: Path) -> None:
    for number in range(6):
        create(server, "ws/p", f"run-{number}")
        add_long_series(server, "ws/p", f"run-{number}", "m", 6_000)
    command = ("export", "--source", "neptune3", "-p", "ws/p", "-d", "data", "-f", "files", "--workers", "2")
    server.latency_s = 0.05
    process = start(tmp_path, *command, SHARDMIG_CHUNK_POINTS="1000")
    wait_for_pages(server, 3, process)
    server.faults.be_down(4.0)
    finish(process)
    assert server.faults.shown
    assert_archived(server, tmp_path, "ws/p")


def test_an_update_reads_the_runs_that_changed(
    server: Neptune3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        create(server, "ws/p", f"run-{number}")
    command = ["export", "--source", "neptune3", "-p", "ws/p", "-d", "data", "-f", "files", "--engine", "inline"]
    assert execute(command) == 0
    append(server, "ws/p", "run-2", "m", [(0, CREATED_MS, 1.0)])
    create(server, "ws/p", "run-4")
    server.requests.clear()
    assert execute([*command, "--update"]) == 0
    assert_archived(server, tmp_path, "ws/p")
    assert server.requests["/api/leaderboard/v1/proto/leaderboard/attributes/query"] == 2


def test_retry_fetches_only_the_field_that_was_lost(
    server: Neptune3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    create(server, "ws/p", "run")
    for name in ("a", "b", "c"):
        add_long_series(server, "ws/p", "run", name, 3_000)
    append(server, "ws/p", "run", "log", [(0, CREATED_MS, "line")])
    server.reader.broken["b"] = 400
    place = ("-d", "data", "-f", "files", "--engine", "inline", "--no-progress", "--json")
    assert execute(["export", "--source", "neptune3", "-p", "ws/p", *place]) == 3
    [failed] = json.loads(capsys.readouterr().out)["failed"]
    assert failed["outcome"]["failure"]["field"] == "b"
    server.reader.broken.clear()
    server.requests.clear()
    assert execute(["retry", "--failed", *place]) == 0
    assert [count for path, count in server.requests.items() if "series" in path] == [1]
    assert_archived(server, tmp_path, "ws/p")


def test_all_workers_share_one_budget_of_requests(server: Neptune3, tmp_path: Path) -> None:
    for run in ("one", "two"):
        create(server, "ws/p", run)
        files = {f"f{number}": upload(server, "ws/p", f"{run}/{number}", b"content") for number in range(30)}
        assign(server, "ws/p", run, files)
    server.latency_s = 0.1
    command = ("export", "--source", "neptune3", "-p", "ws/p", "-d", "data", "-f", "files", "--workers", "2")
    finish(start(tmp_path, *command, "--source-option", "connections=3"))
    assert server.most_at_once == 3


def test_the_commands_of_the_documentation_are_understood(
    server: Neptune3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARDMIG_ENGINE", "inline")
    rich_project(server, "my-team/vision")
    for run in server.store.projects["my-team/vision"].runs.values():
        run.values["sys/owner"] = ("string", "ada")
    server.store.project("my-team/sandbox")
    blocks = re.findall(r"```text\n(shardmig .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert execute(shlex.split(line)[1:]) == 0, line


def wait_for_pages(server: Neptune3, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many pages of points were asked for."""
    while server.requests[FLOATS] < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
