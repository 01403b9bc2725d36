"""What is told of a migration while it executes and after its process died: every shard, and how fast it goes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shardmig import planner
from shardmig.journal import State
from shardmig.migration import MigrationFolder
from shardmig.planner import Request
from shardmig.progress import Watch
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    Counters,
    Failure,
    Finished,
    MigrationId,
    Phase,
    Progress,
    ProjectId,
    RunId,
    RunOutcome,
    RunRef,
    Shard,
    ShardId,
    ShardStatus,
    Started,
    TaskResult,
)
from shardmig.report import terminal
from shardmig.report.status import MigrationStatus, shown
from shardmig.results import retry_command, statuses
from shardmig.schedule import Ready

RUNS = [RunRef(project=ProjectId("ws/p"), id=RunId(f"RUN-{number}"), weight=1_000) for number in (1, 2, 3)]


class Load:
    """A load of three shards of one run each, and what is told of it."""

    def __init__(self, folder: Path) -> None:
        asked = Request(phases=("survey", "load"), source=AdapterSpec("archive"), archive=ArchivePaths("/a b", "/f"))
        self.state = State(planner.freeze(asked, RUNS, created_ms=0))
        self.shards = list(self.state.shards.values())
        self.state.apply(Started(0, "", 2, "local"))
        self._told: list[Progress] = []
        self._watch = Watch(MigrationFolder(folder, MigrationId("m")), self.state, self._told.append)

    def begin(self, phase: Phase, shard: Shard) -> None:
        self.state.apply(AttemptStarted(1, phase, shard.id, 1))
        self._watch.started(Ready(phase, shard))

    def end(self, phase: Phase, shard: Shard, failure: Failure | None = None, *, reached: bool = True) -> None:
        counted = Counters(points=7)
        outcome = RunOutcome(
            run=shard.runs[0], state="failed" if failure else "done", failure=failure, counters=counted
        )
        result = TaskResult(shard=shard.id, phase=phase, attempt=1, runs=[outcome] if reached else [], failure=failure)
        self.state.apply(AttemptEnded(2, result, phase, shard.id, 1))
        self._watch.ended(Ready(phase, shard))
        self._watch.committed()

    def survey(self) -> None:
        for shard in self.shards:
            self.begin("survey", shard)
            self.end("survey", shard)

    def snapshot(self) -> Progress:
        self._watch.tick()
        return self._told[-1]

    def told(self, *, is_executing: bool) -> list[tuple[str, str]]:
        """State and reason of the shards in the load."""
        return [
            (one.state, one.why)
            for one in statuses(self.state, is_executing=is_executing, now_ms=0)
            if one.phase == "load"
        ]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(tmp_path)


def test_attempts_count_as_in_flight_from_their_start_on(load: Load) -> None:
    load.begin("survey", load.shards[0])
    assert [phase.shards_in_flight for phase in load.snapshot().phases] == [1, 0]
    load.end("survey", load.shards[0])
    assert [phase.shards_in_flight for phase in load.snapshot().phases] == [0, 0]


def test_a_survey_before_a_load_counts_as_nothing_moved(load: Load) -> None:
    load.survey()
    assert load.snapshot().moved.points == 0
    load.begin("load", load.shards[0])
    load.end("load", load.shards[0])
    assert load.snapshot().moved.points == 7


def test_no_end_is_foretold_before_every_phase_has_something_to_show(load: Load) -> None:
    load.survey()
    load.begin("load", load.shards[0])
    assert load.snapshot().eta_s is None
    load.end("load", load.shards[0])
    load.begin("load", load.shards[1])
    load.end("load", load.shards[1])
    assert load.snapshot().eta_s is not None
    load.begin("load", load.shards[2])
    load.end("load", load.shards[2])
    assert load.snapshot().eta_s == 0


def test_the_start_of_the_workers_is_not_taken_for_the_speed_of_a_phase(load: Load) -> None:
    load.survey()
    load.begin("load", load.shards[0])
    time.sleep(1)
    load.end("load", load.shards[0])
    assert load.snapshot().eta_s is None
    load.begin("load", load.shards[1])
    load.end("load", load.shards[1])
    left_s = load.snapshot().eta_s
    assert left_s is not None
    assert left_s < 1


def test_what_waits_says_for_what(load: Load) -> None:
    assert {why for _, why in load.told(is_executing=True)} == {"waits for its survey"}
    load.survey()
    assert {why for _, why in load.told(is_executing=True)} == {
        "waits for the step multiplier, which needs the steps of all runs"
    }
    load.state.step_multiplier = 1
    load.begin("load", load.shards[0])
    assert load.told(is_executing=True) == [("executing", "attempt 1"), *[("waiting", "waits for a worker")] * 2]


def test_after_the_process_died_nothing_is_said_to_execute(load: Load) -> None:
    load.survey()
    load.state.step_multiplier = 1
    load.begin("load", load.shards[0])
    assert load.told(is_executing=False) == [
        ("waiting", "its attempt was cut off; the same command again goes on"),
        *[("waiting", "not reached; the same command again goes on")] * 2,
    ]


def test_an_attempt_that_failed_before_it_reached_the_runs_says_why(load: Load) -> None:
    load.survey()
    load.state.step_multiplier = 1
    load.begin("load", load.shards[0])
    load.end("load", load.shards[0], Failure("Unavailable", "transient", "no route to host"), reached=False)
    assert load.told(is_executing=True)[0] == ("waiting", "after an attempt that failed: no route to host")


def test_what_was_never_exported_is_not_loaded_and_says_so(load: Load) -> None:
    load.begin("survey", load.shards[0])
    load.end("survey", load.shards[0], Failure("BadInput", "permanent", "torn"))
    load.state.apply(Finished(3, 3))
    assert load.told(is_executing=False)[0] == (
        "waiting",
        "needs its survey, which failed; the same command again goes on",
    )
    assert next(statuses(load.state, is_executing=False, now_ms=0)).why == "1 of 1 runs: torn"


def test_the_command_that_retries_can_be_pasted_into_a_shell(load: Load) -> None:
    assert retry_command(MigrationId("m"), load.state.plan.archive) == "shardmig retry --failed --migration m -d '/a b'"
    assert "--shard 00001" in retry_command(MigrationId("m"), load.state.plan.archive, load.shards[0].id)


def test_an_attempt_that_lasts_much_longer_than_its_weight_suggests_straggles() -> None:
    asked = Request(phases=("export",), source=AdapterSpec("archive"), archive=ArchivePaths("/a", "/f"))
    runs = [RunRef(project=ProjectId("ws/p"), id=RunId(f"R-{number}"), weight=1_000_000) for number in range(7)]
    heavy = RunRef(project=ProjectId("ws/p"), id=RunId("heavy"), weight=90_000_000)
    state = State(planner.freeze(asked, [*runs, heavy], created_ms=0))
    first, *others = state.shards.values()
    assert [run.id for run in first.runs] == ["heavy"]
    for shard in (first, others[0]):
        state.apply(AttemptStarted(0, "export", shard.id, 1))
    for shard in others[1:]:
        result = TaskResult(shard=shard.id, phase="export", attempt=1, runs=[], started_ms=1, ended_ms=10_001)
        state.apply(AttemptEnded(10_001, result, "export", shard.id, 1))

    def straggling(now_ms: int) -> list[ShardStatus]:
        return [one for one in statuses(state, is_executing=True, now_ms=now_ms) if one.straggles]

    assert straggling(30_000) == []
    (found,) = straggling(100_000)
    assert (found.shard, found.why) == (
        others[0].id,
        "attempt 1, lasts 10 times as long as its weight suggests",
    )
    assert [one.shard for one in straggling(4_000_000)] == [first.id, others[0].id]


def test_of_many_shards_those_that_stand_alike_are_counted() -> None:
    listed = [
        ShardStatus(
            shard=ShardId(f"{n:05}"), phase="load", runs=2, runs_done=2, runs_failed=0, state="done", why="", attempts=1
        )
        for n in range(200)
    ]
    slow = ShardStatus(
        shard=ShardId("slow"),
        phase="load",
        runs=1,
        runs_done=0,
        runs_failed=0,
        state="executing",
        why="attempt 1",
        attempts=1,
        straggles=True,
    )
    status = MigrationStatus(
        migration="m",
        folder="/f",
        source="archive",
        target="mlflow",
        created_ms=0,
        executions=1,
        standing="executing",
        step_multiplier=1,
        phases=[],
        shards=[*listed, slow],
    )
    text = "".join(terminal.text_of(part) for part in shown(status, 0))
    assert "200 shards" in text
    assert "slow" in text
    assert "00007" not in text
    assert "00007" in "".join(terminal.text_of(part) for part in shown(status, 0, verbose=True))
