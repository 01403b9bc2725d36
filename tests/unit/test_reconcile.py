"""A frozen plan against what the source lists today."""

import msgspec
import pytest

from shardmig import planner
from shardmig.errors import PlanMismatch
from shardmig.journal import State
from shardmig.planner import Request
from shardmig.reconcile import extension
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    AttemptEnded,
    Extended,
    Finished,
    ProjectId,
    RunId,
    RunOutcome,
    RunRef,
    Selection,
    Started,
    TaskResult,
)


def run(number: int, fingerprint: str = "") -> RunRef:
    return RunRef(project=ProjectId("ws/a"), id=RunId(f"R-{number}"), fingerprint=fingerprint)


def request(**changes: object) -> Request:
    source = AdapterSpec("archive")
    return Request(phases=("export",), source=source, archive=ArchivePaths("/a", "/b"), **changes)  # type: ignore[arg-type]


def planned(*runs: RunRef, brought: tuple[RunRef, ...] = ()) -> State:
    state = State(planner.freeze(request(), runs, created_ms=0))
    for shard in state.shards.values():
        outcomes = [RunOutcome(run=member, state="done") for member in shard.runs if member in brought]
        result = TaskResult(shard=shard.id, phase="export", attempt=1, runs=outcomes)
        state.apply(AttemptEnded(0, result, "export", shard.id, 1))
    return state


def extend(state: State, listed: list[RunRef], asked: Request) -> State:
    shards, gone = extension(state, listed, asked)
    state.apply(Extended(0, shards, {}, gone))
    return state


def ended(state: State, *failed: RunRef) -> State:
    """The state after an execution that told of the failure of these runs."""
    for shard in list(state.shards.values()):
        outcomes = [RunOutcome(run=member, state="failed") for member in shard.runs if member in failed]
        result = TaskResult(shard=shard.id, phase="export", attempt=1, runs=outcomes)
        state.apply(AttemptEnded(0, result, "export", shard.id, 1))
    state.apply(Finished(0, 3))
    return state


def test_a_listing_that_did_not_change_adds_nothing() -> None:
    assert extension(planned(run(1), run(2)), [run(2), run(1)], request()) == ([], [])


def test_new_runs_get_shards_of_their_own() -> None:
    state = extend(planned(run(1)), [run(1), run(2)], request())
    assert sorted(member.id for member in state.runs()) == ["R-1", "R-2"]
    assert len(state.shards) == 2


def test_a_run_that_vanished_is_of_the_plan_until_its_failure_was_told() -> None:
    state = planned(run(1), run(2), brought=(run(1),))
    assert extension(state, [run(1)], request()) == ([], []), "it was not reached: reading it tells"
    state = extend(ended(state, run(2)), [run(1)], request())
    assert ([member.id for member in state.runs()], state.gone) == (["R-1"], [run(2)])
    state.apply(Started(0, "", 1, "inline"))
    assert (extension(state, [run(1)], request()), state.gone) == (([], []), []), "told once"


def test_a_run_that_vanished_and_comes_again_is_brought() -> None:
    state = extend(ended(planned(run(1), run(2)), run(2)), [run(1)], request())
    assert sorted(member.id for member in extend(state, [run(1), run(2)], request()).runs()) == ["R-1", "R-2"]


def test_a_source_that_lists_nothing_at_all_is_a_mismatch() -> None:
    with pytest.raises(PlanMismatch, match="lists no run at all, and 1 are planned, such as ws/a/R-1"):
        extension(ended(planned(run(1)), run(1)), [], request())


def test_a_run_beyond_the_limit_has_not_vanished() -> None:
    state = ended(planned(run(1), run(2), brought=(run(1),)), run(2))
    shards, gone = extension(state, [run(0), run(1), run(2)], request(selection=Selection(limit=2)))
    assert ([member.id for shard in shards for member in shard.runs], gone) == (["R-0"], [])


def test_a_run_that_vanished_after_it_was_brought_is_no_mismatch() -> None:
    assert extension(planned(run(1), brought=(run(1),)), [], request()) == ([], [])


def test_a_run_that_changed_before_it_was_brought_is_brought_as_it_is_now() -> None:
    state = extend(planned(run(1, "old")), [run(1, "new")], request())
    assert [member.fingerprint for member in state.runs()] == ["new"]


def test_a_run_that_changed_after_it_was_brought_is_a_mismatch_unless_update_is_asked_for() -> None:
    old, new = run(1, "old"), run(1, "new")
    with pytest.raises(PlanMismatch, match="changed in the source after they were brought, such as ws/a/R-1"):
        extension(planned(old, brought=(old,)), [new], request())
    state = extend(planned(old, brought=(old,)), [new], request(update=True))
    assert [state.settled("export", member) for member in state.runs()] == [False]


def test_limit_holds_for_the_listing_of_every_execution() -> None:
    asked = request(selection=Selection(limit=1))
    state = State(planner.freeze(asked, [run(1), run(2)], created_ms=0))
    assert extension(state, [run(1), run(2)], asked) == ([], [])


def test_the_run_refs_of_a_plan_survive_the_disk() -> None:
    plan = planner.freeze(request(), [run(1, "f")], created_ms=0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=type(plan)) == plan
