"""Migrations whose shards execute on Ray: the same archives as elsewhere, and what is killed costs attempts only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shardmig import coordinator, planner
from shardmig.config import Settings
from shardmig.engines import make_engine
from shardmig.errors import UsageError, WorkerLost
from shardmig.records import AdapterSpec, ArchivePaths, Phase, Report
from tests.contract import works
from tests.contract.archives import digests
from tests.waiting import eventually

pytestmark = pytest.mark.xdist_group("ray")

PROJECT = "demo/quickstart"


def archive_in(folder: Path) -> ArchivePaths:
    return ArchivePaths(str(folder / "data"), str(folder / "files"))


def export(project: Path, into: ArchivePaths, **settings: Any) -> int:
    """Export the demo project in this process."""
    paths = {"path": f"{project / '.neptune'}:{project / '.neptune-scale'}", "project": PROJECT}
    request = planner.Request(phases=("export",), source=AdapterSpec("neptune-local", paths), archive=into)
    return coordinator.execute(request, Settings(**settings)).exit_code


def bring(archive: ArchivePaths, database: Path, *phases: Phase, **settings: Any) -> Report:
    """Load an archive into a tracking database, or verify it, in this process."""
    target = AdapterSpec("mlflow", {"tracking-uri": f"sqlite:///{database}"})
    source = AdapterSpec("archive", {"data": archive.data, "files": archive.files})
    request = planner.Request(phases=phases, source=source, archive=archive, target=target)
    return coordinator.execute(request, Settings(**settings))


def command(project: Path, into: ArchivePaths, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "shardmig", "export", "--source", "neptune-local"),
        *(str(project / ".neptune"), str(project / ".neptune-scale"), "-p", PROJECT),
        *("-d", into.data, "-f", into.files, "--engine", "ray", "--no-progress", *options),
    ]


def writes_into(archive: ArchivePaths) -> bool:
    """Does a process of this machine have a file of that archive open?"""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(descriptor).startswith(archive.data):
                return True
    return False


@pytest.fixture
def far_node(ray: Any) -> Iterator[Any]:
    """A second node, the only one with the resource `far`."""
    node = ray.add_node(num_cpus=1, resources={"far": 1})
    yield node
    if node in ray.worker_nodes:
        ray.remove_node(node)


def test_every_engine_makes_the_same_archive(ray: Any, demo_project: Path, tmp_path: Path) -> None:
    ways: dict[str, dict[str, Any]] = {
        "inline": {"engine": "inline"},
        "local-1": {"engine": "local", "workers": 1},
        "local-2": {"engine": "local", "workers": 2},
        "ray": {"engine": "ray"},
    }
    made = {}
    for name, settings in ways.items():
        assert export(demo_project, archive_in(tmp_path / name), **settings) == 0
        made[name] = digests(archive_in(tmp_path / name))
    assert made["ray"]
    assert made["inline"] == made["local-1"] == made["local-2"] == made["ray"]


def test_every_engine_fills_the_target_with_the_same(
    ray: Any, demo_project: Path, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = archive_in(tmp_path)
    assert export(demo_project, archive, engine="inline") == 0
    for engine in ("inline", "local", "ray"):
        database = Path(shutil.copy(sqlite_template, tmp_path / f"{engine}.db"))
        assert bring(archive, database, "survey", "load", engine=engine).exit_code == 0
        # every parameter, point, file and run fact of the target, against the one archive
        verified = bring(archive, database, "verify", engine="inline")
        assert verified.exit_code == 0
        assert len(verified.outcomes["verify"]) == 4


def test_by_default_the_cluster_is_filled(ray: Any) -> None:
    # A node of another test may still be on its way out.
    assert eventually(lambda: make_engine("ray").slots == 2, within_s=30)
    assert make_engine("ray", ray_resources="CPU=0.5").slots == 4


def test_a_killed_coordinator_leaves_no_worker_and_the_same_command_finishes(
    ray: Any, demo_project: Path, tmp_path: Path
) -> None:
    into = archive_in(tmp_path / "killed")
    line = command(demo_project, into, "--ray-address", ray.address)
    with subprocess.Popen(line, stderr=subprocess.DEVNULL) as killed:
        assert eventually(lambda: any(Path(into.data).glob(".shardmig/*/logs/*.jsonl")), within_s=30)
        killed.kill()
    assert eventually(lambda: not writes_into(into), within_s=30)
    again = subprocess.run(line, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert export(demo_project, archive_in(tmp_path / "whole"), engine="inline") == 0
    assert digests(into) == digests(archive_in(tmp_path / "whole"))


def test_a_lost_node_costs_the_attempts_on_it_and_no_other(ray: Any, far_node: Any, tmp_path: Path) -> None:
    far, near = make_engine("ray", 1, ray_resources="CPU=1,far=1"), make_engine("ray", 1)
    file = tmp_path / "pid"
    lost = far.execute(iter([str(file).encode()]), works.announce, tick=lambda: _lose(ray, far_node, file))
    (outcome,) = lost
    assert isinstance(outcome.failure, WorkerLost)
    assert not _is_alive(int(file.read_text()))
    (kept,) = near.execute(iter([b"still here"]), works.echo)
    assert kept.reply == b"still here"
    far.close()
    near.close()


def _lose(ray: Any, node: Any, file: Path) -> None:
    if file.exists() and node in ray.worker_nodes:
        ray.remove_node(node, allow_graceful=False)


def _is_alive(pid: int) -> bool:
    return eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s=5) is False


def test_a_killed_ray_process_takes_its_worker_with_it_and_costs_one_attempt(
    ray: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine, file = make_engine("ray", 2), tmp_path / "pid"

    def kill_its_parent() -> None:
        if file.exists():
            stat = Path(f"/proc/{file.read_text()}/stat").read_text()
            os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
            file.rename(tmp_path / "killed")

    outcomes = list(engine.execute(iter([str(file).encode(), b"0"]), announce_or_answer, tick=kill_its_parent))
    assert {outcome.task: outcome.reply for outcome in outcomes} == {str(file).encode(): None, b"0": b"0"}
    assert isinstance(next(outcome for outcome in outcomes if not outcome.reply).failure, WorkerLost)
    assert capfd.readouterr().out == ""
    assert not _is_alive(int((tmp_path / "killed").read_text()))
    engine.close()


def announce_or_answer(task: bytes) -> bytes:
    return task if task == b"0" else works.announce(task)


def test_a_task_that_no_node_has_room_for_is_refused(ray: Any) -> None:
    with pytest.raises(UsageError, match="CPU=1, tape=3"):
        make_engine("ray", ray_resources="tape=3")
    with pytest.raises(UsageError, match="NAME=NUMBER"):
        make_engine("ray", ray_resources="CPU=many")


def test_without_a_cluster_ray_is_started_here_in_silence(demo_project: Path, tmp_path: Path) -> None:
    into = archive_in(tmp_path)
    ended = subprocess.run(command(demo_project, into, "--workers", "2"), capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert "ray" not in ended.stderr.lower()
    assert len(digests(into)) == 4
