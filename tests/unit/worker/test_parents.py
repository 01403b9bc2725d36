"""A fork whose parent did not arrive: it says so, and is linked when the parent has come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from shardmig import codec
from shardmig.adapters.base import migration_key
from shardmig.adapters.comet import open_target
from shardmig.archive.layout import project_folder, sanitize
from shardmig.archive.reader import ArchiveReader
from shardmig.cli.app import execute as command
from shardmig.records import (
    AdapterSpec,
    LoadOptions,
    MigrationId,
    RunId,
    RunOutcome,
    RunRef,
    Selection,
    Shard,
    ShardId,
    TargetRunId,
    Task,
    TaskResult,
)
from shardmig.worker.task import execute
from tests.unit.archive.runs import RUN, floats, paths_in, publish

CHILD = msgspec.structs.replace(RUN, id=RunId("RUN-2"), parent=RUN.id)
LOAD = LoadOptions(step_multiplier=1)


def target_of(folder: Path) -> dict[str, str]:
    """The options of a target that is a folder."""
    return {"offline-dir": str(folder / "comet")}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of a run, in several parts, and its fork."""
    points = [floats(f"m{index}", range(200_000), [float(step) for step in range(200_000)]) for index in range(2)]
    publish(tmp_path, points, RUN, part_bytes=1)
    publish(tmp_path, [floats("m", [1], [2.0])], CHILD)
    return tmp_path


def loaded(archive: Path, run: RunRef, parents: Mapping[RunId, str]) -> RunOutcome:
    """The outcome of one attempt to load one run."""
    paths = paths_in(archive)
    task = Task(
        migration=MigrationId("m1"),
        phase="load",
        shard=Shard(id=ShardId("s1"), scope="runs", runs=(run,)),
        attempt=1,
        source=AdapterSpec("archive", {"data": paths.data, "files": paths.files}),
        archive=paths,
        target=AdapterSpec("comet", target_of(archive)),
        selection=Selection(),
        load=LOAD,
        spool=str(archive / "spool"),
        log=str(archive / "spool" / "log"),
        progress=str(archive / "spool" / "progress"),
        parents={parent: TargetRunId(known) for parent, known in parents.items()},
    )
    result: TaskResult = codec.decode(execute(codec.encode(task)), TaskResult)
    [outcome] = result.runs
    return outcome


def parent_of_child(archive: Path) -> str:
    """What the target says of the fork's parent."""
    target = open_target(target_of(archive), LOAD)
    found = target.find_run(migration_key(CHILD))
    assert found is not None
    return target.read_facts(found).get("parent", "")


def test_a_fork_without_its_planned_parent_has_failed_and_is_linked_when_it_is_loaded_again(archive: Path) -> None:
    for _ in range(2):  # written, then found there
        outcome = loaded(archive, CHILD, {RUN.id: ""})
        assert (outcome.state, outcome.failure and outcome.failure.error) == ("failed", "ParentMissing")
        assert parent_of_child(archive) == ""
    parent = loaded(archive, RUN, {})
    assert (parent.state, parent.failure) == ("done", None)
    again = loaded(archive, CHILD, {RUN.id: ""})
    assert (again.state, again.failure) == ("skipped", None)
    assert parent_of_child(archive) == parent.target_id


def test_a_fork_whose_parent_nobody_asked_for_is_whole_without_it(archive: Path) -> None:
    outcome = loaded(archive, CHILD, {})
    assert (outcome.state, outcome.failure) == ("done", None)
    assert ArchiveReader(paths_in(archive)).receipt(RUN) is not None


def test_a_retry_of_a_failed_parent_links_its_forks(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(archive)
    part = project_folder(archive / "data", RUN.project) / f"{sanitize(RUN.id)}_part_1.parquet"
    content = part.read_bytes()
    part.unlink()
    target = ["--target", "comet", "--target-option", "offline-dir=comet"]
    assert command(["load", "-d", "data", "-f", "files", *target, "--engine", "inline", "--no-progress"]) == 3
    assert "its parent ws/proj/RUN-1 did not arrive" in " ".join(capsys.readouterr().err.split())
    part.write_bytes(content)
    assert command(["retry", "--failed", "-d", "data", "--engine", "inline", "--no-progress"]) == 0
    assert parent_of_child(archive) != ""


def test_a_shard_of_a_plan_file_says_that_the_parent_of_another_shard_did_not_arrive(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(archive)
    part = project_folder(archive / "data", RUN.project) / f"{sanitize(RUN.id)}_part_1.parquet"
    content = part.read_bytes()
    target = ["--target", "comet", "--target-option", "offline-dir=comet"]
    plan = ["plan", "-d", "data", "-f", "files", *target, "--out", "shards.plan", "--step-multiplier", "1"]
    assert command(plan) == 0
    part.write_bytes(content[:100] + b"rotten" + content[106:])

    def executed(shard: str) -> int:
        return command(["execute-shard", "--plan", "shards.plan", "--shard", shard, "--engine", "inline"])

    assert [executed("1"), executed("2")] == [3, 3]
    assert "its parent ws/proj/RUN-1 did not arrive" in " ".join(capsys.readouterr().err.split())
    part.write_bytes(content)
    assert [executed("1"), executed("2")] == [0, 0]
    assert command(["collect", "--plan", "shards.plan"]) == 0
    assert parent_of_child(archive) != ""
