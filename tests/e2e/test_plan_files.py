"""plan --out, execute-shard and collect: what an array of a cluster's jobs does, one shard after the other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.workload import Shape, write_archive
from shardmig import planner
from shardmig.archive.reader import ArchiveReader
from shardmig.array import PlanFile, collect, execute_shard, freeze
from shardmig.cli.app import execute
from shardmig.config import Settings
from shardmig.errors import PlanMismatch, UsageError
from shardmig.migration import find_migration
from shardmig.planner import Request
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    Failure,
    LoadOptions,
    Phase,
    ProjectId,
    Receipt,
    RunId,
    RunOutcome,
    RunRef,
    TaskResult,
)
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SOURCE = f"--source neptune-local {ROOT}/tests/samples/offline -p ws/off -r offline-47a3d97c -r offline-8dd15815"
INLINE = Settings(engine="inline")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_in(line: str) -> int:
    return execute([*line.split(), "--no-progress"])


def archive_in(folder: Path) -> ArchivePaths:
    return ArchivePaths(str(folder / "data"), str(folder / "files"))


def receipts(archive: ArchivePaths) -> dict[str, Receipt]:
    """By run, without the times of execution."""
    reader = ArchiveReader(archive)
    found = {}
    for run in (run for project in reader.projects() for run in reader.runs(project)):
        receipt = reader.receipt(run)
        assert receipt is not None
        found[str(run.id)] = msgspec.structs.replace(receipt, started_ms=0, ended_ms=0)
    return found


def test_a_shell_loop_over_an_array_brings_what_one_command_brings(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert type_in(f"plan {SOURCE} --out plan.msgpack") == 0
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    loop = f"SLURM_ARRAY_TASK_ID=%d bash {ROOT}/scripts/slurm_array.sh plan.msgpack --engine inline"
    subprocess.run(["bash", "-c", loop % 1], env=environment, check=True)
    assert type_in("collect --plan plan.msgpack") == 130
    assert "no outcome yet of 1 shard: 2" in capfd.readouterr().err
    subprocess.run(["bash", "-c", loop % 2], env=environment, check=True)
    assert type_in("collect --plan plan.msgpack") == 0
    assert execute(["status"]) == 0
    assert "2 of 2 runs done" in capfd.readouterr().out
    assert type_in(f"export {SOURCE} -d whole/data -f whole/files --engine inline") == 0
    assert receipts(archive_in(folder / "exports")) == receipts(archive_in(folder / "whole"))
    assert type_in(f"export {SOURCE} --engine inline") == 0
    assert len(list((folder / "exports" / "data" / ".shardmig").glob("*/plan.msgpack"))) == 1


def test_a_shard_that_was_killed_in_the_middle_goes_on_and_is_as_if_it_had_not_been(folder: Path) -> None:
    (folder / "source").mkdir()
    source = write_archive(folder / "source", Shape(1, 20, 20_000))
    copied = f"--source archive {source.data} {source.files}"
    assert type_in(f"plan {copied} -d killed/data -f killed/files --out plan.msgpack") == 0
    command = "-m shardmig execute-shard --plan plan.msgpack --shard 1 --engine inline --no-progress"
    spool = folder / "plan.msgpack.shards" / "00001" / "spool"
    with subprocess.Popen(
        [sys.executable, *command.split()], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    ) as process:
        assert eventually(lambda: any(file.stat().st_size for file in spool.glob("*.spool")), within_s=60)
        process.send_signal(signal.SIGKILL)
    file = PlanFile(Path("plan.msgpack"))
    assert file.outcome(file.plan.shards[0].id) is None
    assert execute_shard(file, "1", INLINE).exit_code == 0
    assert list(spool.iterdir()) == []
    assert type_in(f"export {copied} -d whole/data -f whole/files --engine inline") == 0
    assert receipts(archive_in(folder / "killed")) == receipts(archive_in(folder / "whole"))
    journal = (folder / "plan.msgpack.shards" / "00001" / "journal").read_bytes()
    assert execute_shard(file, "00001", INLINE).exit_code == 0
    attempts = b"AttemptStarted"
    again = (folder / "plan.msgpack.shards" / "00001" / "journal").read_bytes()
    assert again.count(attempts) == journal.count(attempts)


def load(*runs: RunRef, source: Path, **options: int) -> Request:
    phases: tuple[Phase, ...] = ("survey", "load")
    archive = archive_in(source)
    where = AdapterSpec("archive", {"data": archive.data, "files": archive.files})
    target = AdapterSpec("mlflow", {"tracking-uri": "sqlite:///never-written.db"})
    return Request(phases=phases, source=where, archive=archive, target=target, load=LoadOptions(**options))  # type: ignore[arg-type]


def planned(folder: Path, *runs: RunRef) -> PlanFile:
    """A plan file of a load of these runs, which are nowhere."""
    plan = planner.freeze(load(source=folder, step_multiplier=1), runs, created_ms=0)
    path = folder / "plan.msgpack"
    path.write_bytes(msgspec.msgpack.encode(plan))
    return PlanFile(path)


def run(name: str, parent: str | None = None) -> RunRef:
    return RunRef(project=ProjectId("ws/p"), id=RunId(name), parent=RunId(parent) if parent else None)


def result(file: PlanFile, state: str, phase: Phase = "load", shard: int = 0) -> TaskResult:
    chosen = file.plan.shards[shard]
    failure = Failure("X", "permanent", "why") if state == "failed" else None
    outcomes = [RunOutcome(run=one, state=state, failure=failure) for one in chosen.runs]  # type: ignore[arg-type]
    return TaskResult(shard=chosen.id, phase=phase, attempt=1, runs=outcomes, started_ms=1, ended_ms=2)


def test_a_load_without_a_step_multiplier_cannot_be_written_into_a_plan_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs its step multiplier now"):
        freeze(load(source=tmp_path), tmp_path / "plan.msgpack")
    assert list(tmp_path.iterdir()) == []


def test_forks_are_not_loaded_before_what_they_were_forked_from(tmp_path: Path) -> None:
    file = planned(tmp_path, run("parent"), run("fork", "parent"))
    with pytest.raises(UsageError, match="00002 may refer to what shard 00001 holds, as a fork to its parent"):
        execute_shard(file, "2", INLINE)
    assert not file.folder(file.plan.shards[1].id).path.exists()
    file.folder(file.plan.shards[0].id).path.parent.mkdir()
    file.keep_outcome(file.plan.shards[0].id, 3, [result(file, "failed")])
    assert execute_shard(file, "2", INLINE).exit_code == 3  # it was tried: there is no such run


def test_what_was_brought_since_by_the_usual_command_is_not_undone_by_collecting(tmp_path: Path) -> None:
    file = planned(tmp_path, run("one"))
    (shard,) = file.plan.shards
    file.folder(shard.id).path.parent.mkdir()
    file.keep_outcome(shard.id, 3, [result(file, "done", "survey"), result(file, "failed")])
    report, missing = collect(file)
    assert (report.exit_code, missing) == (3, [])
    assert [one.outcome.failure.message for one in report.failed if one.outcome.failure] == ["why"]
    before = find_migration(file.plan.archive).state()
    assert collect(file)[0].exit_code == 3
    again = find_migration(file.plan.archive).state()
    assert (again.outcomes, again.attempts, again.last_ended) == (before.outcomes, before.attempts, before.last_ended)
    file.keep_outcome(shard.id, 0, [result(file, "done", "survey"), result(file, "done")])
    assert collect(file)[0].exit_code == 0
    file.keep_outcome(shard.id, 3, [result(file, "done", "survey"), result(file, "failed")])
    assert collect(file)[0].exit_code == 0


def test_a_project_that_could_not_be_listed_is_named_by_collecting_until_it_is_listed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for project in ("ws/good", "ws/bad"):
        assert type_in(f"export {SOURCE.replace('ws/off', project)} --engine inline") == 0
    part = next((folder / "exports" / "data").glob("ws_bad-*/*_part_0.parquet"))
    twin = Path(shutil.copy(part, part.with_name("copied_part_0.parquet")))
    repack = "--source archive exports/data exports/files -d new/data -f new/files"
    assert type_in(f"plan {repack} --out plan.msgpack") == 3
    file = PlanFile(Path("plan.msgpack"))
    assert {execute_shard(file, shard.id, INLINE).exit_code for shard in file.plan.shards} == {0}
    capfd.readouterr()
    for _ in range(2):
        assert type_in("collect --plan plan.msgpack") == 3
        assert "project ws/bad could not be listed: " in capfd.readouterr().err
    twin.unlink()
    assert type_in(f"export {repack} --engine inline") == 0
    assert type_in("collect --plan plan.msgpack") == 0


def test_what_a_later_plan_file_could_not_list_is_named_too(tmp_path: Path) -> None:
    file = planned(tmp_path, run("one"))
    (shard,) = file.plan.shards
    collect(file)
    refused = {ProjectId("ws/a"): Failure("NotAllowed", "permanent", "403")}
    for created_ms, told in ((1, refused), (2, {})):
        plan = msgspec.structs.replace(file.plan, created_ms=created_ms, refused=told)
        file.path.write_bytes(msgspec.msgpack.encode(plan))
        later = PlanFile(file.path)
        later.folder(shard.id).path.parent.mkdir(exist_ok=True)
        later.keep_outcome(shard.id, 0, [result(later, "done", "survey"), result(later, "done")])
        report, _ = collect(later)
        assert (report.exit_code, report.refused) == (3 if told else 0, told)


def test_outcomes_of_another_plan_are_refused(tmp_path: Path) -> None:
    file = planned(tmp_path, run("one"))
    file.folder(file.plan.shards[0].id).path.parent.mkdir()
    file.keep_outcome(file.plan.shards[0].id, 0, [result(file, "done")])
    other = planned(tmp_path, run("other"))
    with pytest.raises(PlanMismatch, match="is of another plan"):
        collect(other)
    with pytest.raises(UsageError, match="has no shard 7"):
        other.shard("7")


def test_the_same_migration_with_other_shards_is_not_mixed_with_a_plan_file(tmp_path: Path) -> None:
    collect(planned(tmp_path, run("one")))
    with pytest.raises(PlanMismatch, match="with other shards"):
        collect(planned(tmp_path, run("one"), run("two")))
