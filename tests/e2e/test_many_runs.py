"""Two thousand small runs: planned from a listing, told about, and resumed from a journal that says they are loaded."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks.many_runs import write_many
from benchmarks.scale import settle_all_but_the_last
from shardmig.array import PlanFile
from shardmig.cli.app import execute
from shardmig.journal import replay
from shardmig.listing import Listing
from shardmig.migration import find_migration, home_of
from shardmig.planner import Request, cost
from shardmig.reconcile import extension
from shardmig.schedule import Schedule


def test_two_thousand_runs_are_planned_told_about_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = write_many(tmp_path, 2_000)
    where = ["-d", archive.data, "-f", archive.files]
    old_ns = time.time_ns() - 10**10
    for part in Path(archive.data).glob("*/*.parquet"):
        os.utime(part, ns=(old_ns, old_ns))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    into = ["--target", "mlflow", "--mlflow-tracking-uri", uri, "--step-multiplier", "1"]

    assert execute(["plan", *into, *where, "--out", "plan.msgpack"]) == 0
    plan = PlanFile(tmp_path / "plan.msgpack").plan
    planned = sorted(run.id for shard in plan.shards for run in shard.runs)
    assert planned == [f"RUN-{number:07}" for number in range(2_000)]
    assert max(len(shard.runs) for shard in plan.shards) <= 32
    costs = [sum(map(cost, shard.runs)) for shard in plan.shards]
    assert max(costs) <= sum(costs) / 64
    assert costs == sorted(costs, reverse=True)

    journal = settle_all_but_the_last(tmp_path / "plan.msgpack", archive)
    capsys.readouterr()
    assert execute(["status", *where]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 20
    assert f"{len(plan.shards) - 2} shards" in shown
    assert execute(["status", *where, "--json"]) == 0
    (status,) = json.loads(capsys.readouterr().out)
    assert len(status["shards"]) == 2 * len(plan.shards)

    state = find_migration(archive).state()
    assert replay(plan, journal).outcomes == state.outcomes
    asked = Request(
        phases=plan.phases,
        source=plan.source,
        archive=archive,
        target=plan.target,
        selection=plan.selection,
        load=plan.load,
    )
    assert extension(state, Listing(asked, home_of(archive)).runs(), asked) == ([], [])
    schedule = Schedule(state, max_attempts=3)
    left = [schedule.next(0.0), schedule.next(0.0), schedule.next(0.0)]
    assert [ready.shard.id if ready else None for ready in left] == [shard.id for shard in plan.shards[-2:]] + [None]
