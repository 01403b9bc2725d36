"""The schedule decides what executes next and what becomes of a failure."""

from shardmig import planner
from shardmig.journal import State
from shardmig.planner import Request
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    Disposition,
    Extended,
    Failure,
    MultiplierChosen,
    Phase,
    ProjectId,
    RunId,
    RunOutcome,
    RunRef,
    Shard,
    TaskResult,
)
from shardmig.schedule import Ready, Schedule


class Execution:
    """A plan executed by hand."""

    def __init__(self, phases: tuple[Phase, ...], runs: list[RunRef], max_attempts: int = 3) -> None:
        asked = Request(phases=phases, source=AdapterSpec("archive"), archive=ArchivePaths("/a", "/b"))
        self.state = State(planner.freeze(asked, runs, created_ms=0))
        self.schedule = Schedule(self.state, max_attempts=max_attempts)
        self.now_s = 0.0

    def next(self) -> Ready | None:
        ready = self.schedule.next(self.now_s)
        if ready is not None:
            attempt = self.state.attempts.get((ready.phase, ready.shard.id), 0) + 1
            self.state.apply(AttemptStarted(0, ready.phase, ready.shard.id, attempt))
        return ready

    def end(self, ready: Ready, *failing: RunRef, disposition: Disposition = "permanent", reach: int = 99) -> None:
        failure = Failure("X", disposition, "why")
        runs = [
            RunOutcome(run=run, state="failed", failure=failure)
            if run in failing
            else RunOutcome(run=run, state="done")
            for run in ready.shard.runs[:reach]
        ]
        self._commit(ready, TaskResult(shard=ready.shard.id, phase=ready.phase, attempt=1, runs=runs), None)

    def lose(self, ready: Ready) -> None:
        self._commit(ready, None, Failure("WorkerLost", "transient", "killed"))

    def break_off(self, ready: Ready, disposition: Disposition) -> None:
        failure = Failure("X", disposition, "why")
        self._commit(
            ready, TaskResult(shard=ready.shard.id, phase=ready.phase, attempt=1, runs=[], failure=failure), None
        )

    def _commit(self, ready: Ready, result: TaskResult | None, lost: Failure | None) -> None:
        self.state.apply(AttemptEnded(0, result, ready.phase, ready.shard.id, 1, lost))
        given_up, children = self.schedule.end(ready, result, lost, self.now_s)
        if given_up:
            closing = TaskResult(shard=ready.shard.id, phase=ready.phase, attempt=1, runs=given_up)
            self.state.apply(AttemptEnded(0, closing, ready.phase, ready.shard.id, 1))
        if children:
            self.state.apply(Extended(0, children))
            self.schedule.replaced(children)

    def drain(self, killers: frozenset[str]) -> int:
        """Execute to the end; a shard that holds a killer loses its worker. Returns the number of attempts."""
        attempts = 0
        while True:
            ready = self.next()
            if ready is None:
                if (pause_s := self.schedule.pause_s(self.now_s)) is None:
                    return attempts
                self.now_s += pause_s
                continue
            attempts += 1
            if any(run.id in killers for run in ready.shard.runs):
                self.lose(ready)
            else:
                self.end(ready)


def runs(count: int, **changes: object) -> list[RunRef]:
    return [
        RunRef(project=ProjectId("ws/a"), id=RunId(f"R-{number:03}"), **changes)  # type: ignore[arg-type]
        for number in range(count)
    ]


def only_shard(execution: Execution) -> Shard:
    (shard,) = execution.state.shards.values()
    return shard


def test_a_run_is_loaded_as_soon_as_it_is_exported() -> None:
    execution = Execution(("export", "load"), runs(3, weight=10**7))
    execution.state.apply(MultiplierChosen(0, 1))
    first, second = execution.next(), execution.next()
    assert first is not None
    assert second is not None
    execution.end(first)
    following = execution.next()
    assert following is not None
    assert (following.phase, following.shard.id) == ("load", first.shard.id)


def test_loading_waits_for_the_multiplier() -> None:
    execution = Execution(("export", "load"), runs(1))
    ready = execution.next()
    assert ready is not None
    execution.end(ready)
    assert execution.next() is None
    assert "step multiplier" in execution.schedule.why("load", only_shard(execution))
    assert execution.schedule.multiplier_can_be_chosen()
    execution.state.apply(MultiplierChosen(0, 4))
    assert execution.next() is not None


def test_a_fork_is_loaded_after_its_parent() -> None:
    parent, child = runs(2)
    child = RunRef(project=child.project, id=child.id, parent=parent.id)
    execution = Execution(("load",), [child, parent])
    execution.state.apply(MultiplierChosen(0, 1))
    first = execution.next()
    assert first is not None
    assert first.shard.runs == (parent,)
    assert execution.next() is None
    execution.end(first)
    second = execution.next()
    assert second is not None
    assert second.shard.runs == (child,)


def test_a_permanent_failure_fails_its_run_and_only_that() -> None:
    execution = Execution(("export",), runs(3))
    while (ready := execution.next()) is not None:
        execution.end(ready, *[run for run in ready.shard.runs if run.id == "R-001"])
    states = {run.id: execution.state.settled("export", run) for run in execution.state.runs()}
    assert states == {"R-000": True, "R-001": False, "R-002": True}


def test_a_transient_failure_is_retried_with_a_growing_pause_and_then_given_up() -> None:
    execution = Execution(("export",), runs(1))
    pauses = []
    for _ in range(3):
        ready = execution.next()
        assert ready is not None
        execution.end(ready, *ready.shard.runs, disposition="transient")
        assert execution.next() is None
        pause_s = execution.schedule.pause_s(execution.now_s)
        pauses.append(pause_s)
        execution.now_s += pause_s or 0
    assert pauses[:2] == [8.0, 16.0]
    assert execution.next() is None
    assert execution.schedule.pause_s(execution.now_s + 100) is None


def test_an_unclassified_failure_is_retried_once() -> None:
    execution = Execution(("export",), runs(1))
    attempts = 0
    while (ready := execution.next()) is not None or execution.schedule.pause_s(execution.now_s) is not None:
        if ready is None:
            execution.now_s += 60
            continue
        attempts += 1
        execution.end(ready, *ready.shard.runs, disposition="unclassified")
    assert attempts == 2


def test_a_run_that_kills_its_worker_ends_alone_and_everything_else_goes_on() -> None:
    execution = Execution(("export",), runs(32 * 64 * 2))
    killer = "R-077"
    execution.drain(frozenset({killer}))
    failed = [run.id for run in execution.state.runs() if not execution.state.settled("export", run)]
    assert failed == [killer]
    outcomes = execution.state.outcomes["export"].values()
    (failure,) = [outcome.failure for outcome in outcomes if outcome.state == "failed"]
    assert failure is not None
    assert (failure.error, failure.run) == ("WorkerLost", f"ws/a/{killer}")


def test_a_fatal_failure_retries_nothing() -> None:
    execution = Execution(("export",), runs(1))
    ready = execution.next()
    assert ready is not None
    execution.break_off(ready, "fatal")
    assert execution.next() is None
    assert not execution.state.settled("export", ready.shard.runs[0])


def test_runs_that_failed_to_export_are_not_loaded() -> None:
    execution = Execution(("export", "load"), runs(2, weight=10**7))
    execution.state.apply(MultiplierChosen(0, 1))
    loaded = []
    while (ready := execution.next()) is not None:
        if ready.phase == "load":
            loaded += [run.id for run in ready.shard.runs]
        failing = [run for run in ready.shard.runs if run.id == "R-000"] if ready.phase == "export" else []
        execution.end(ready, *failing)
    assert loaded == ["R-001"]


def test_every_shard_executes_again_for_what_an_earlier_execution_left() -> None:
    execution = Execution(("export",), runs(3))
    ready = execution.next()
    assert ready is not None
    execution.end(ready, reach=0)
    again = Schedule(execution.state, max_attempts=3)
    assert again.next(0.0) is not None


def test_attempts_that_reach_nothing_are_counted_until_one_brings_a_run() -> None:
    runs = [RunRef(project=ProjectId("p"), id=RunId(f"r{number}")) for number in range(2)]
    execution = Execution(("load",), runs, max_attempts=9)
    execution.state.apply(MultiplierChosen(0, 1))
    for futile in (1, 2, 3):
        ready = execution.next()
        assert ready is not None
        execution.break_off(ready, "transient")
        assert execution.schedule.futile == futile
        execution.now_s += 60
    ready = execution.next()
    assert ready is not None
    execution.end(ready, runs[0], disposition="transient")
    assert execution.schedule.futile == 0
