"""Each prefix of a journal, cut at any byte, replays to a state that was once true."""

from pathlib import Path

import pytest

from shardmig import codec, planner
from shardmig.errors import JournalCorrupt, JournalLocked
from shardmig.journal import Journal, Lock, State, replay
from shardmig.planner import Request
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    Extended,
    Failure,
    Finished,
    JournalLine,
    MultiplierChosen,
    Plan,
    ProjectId,
    RunId,
    RunOutcome,
    RunRef,
    Started,
    TaskResult,
)


def a_plan() -> Plan:
    runs = [RunRef(project=ProjectId("ws/a"), id=RunId(f"R-{number}"), weight=10**7) for number in range(3)]
    source = AdapterSpec("archive", {})
    asked = Request(phases=("export", "load"), source=source, archive=ArchivePaths("/a", "/b"))
    return planner.freeze(asked, runs, created_ms=1)


def a_history(plan: Plan) -> list[JournalLine]:
    one, two, three = plan.shards
    lines: list[JournalLine] = [Started(1, plan.fingerprint, 2, "local")]
    for shard in (one, two):
        done = TaskResult(
            shard=shard.id, phase="export", attempt=1, runs=[RunOutcome(run=run, state="done") for run in shard.runs]
        )
        lines += [AttemptStarted(2, "export", shard.id, 1), AttemptEnded(3, done, "export", shard.id, 1)]
    lost = Failure("WorkerLost", "transient", "killed")
    lines += [AttemptStarted(4, "export", three.id, 1), AttemptEnded(5, None, "export", three.id, 1, lost)]
    lines += [MultiplierChosen(6, 100), Extended(7, []), Finished(8, 3)]
    return lines


def summary(state: State) -> tuple[object, ...]:
    return (state.outcomes, state.attempts, state.step_multiplier, state.executions, set(state.shards), state.finished)


def test_every_byte_prefix_replays_to_a_true_state(tmp_path: Path) -> None:
    plan = a_plan()
    path = tmp_path / "journal"
    journal = Journal(path)
    states, sizes = [summary(State(plan))], [len(codec.MAGIC)]
    truth = State(plan)
    for line in a_history(plan):
        journal.append(line)
        truth.apply(line)
        fresh = State(plan)
        for told in a_history(plan)[: len(states)]:
            fresh.apply(told)
        states.append(summary(fresh))
        sizes.append(path.stat().st_size)
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        lines = sum(size <= cut for size in sizes[1:])
        assert summary(replay(plan, path)) == states[lines]


def test_a_torn_tail_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    plan = a_plan()
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(MultiplierChosen(1, 7))
    journal.append(MultiplierChosen(2, 9))
    journal.close()
    path.write_bytes(path.read_bytes()[:-3])
    journal = Journal(path)
    journal.append(MultiplierChosen(3, 11))
    journal.close()
    assert replay(plan, path).step_multiplier == 11


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    writer = codec.FrameWriter(tmp_path / "journal")
    writer.append(codec.encode({"type": "FromTheFuture"}))
    writer.close()
    with pytest.raises(JournalCorrupt, match="not one that this version knows"):
        replay(a_plan(), tmp_path / "journal")


def test_the_second_coordinator_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first = Lock(tmp_path / "lock", "migration x")
    with pytest.raises(JournalLocked, match="migration x is in use by process"):
        Lock(tmp_path / "lock", "migration x")
    first.release()
    Lock(tmp_path / "lock", "migration x").release()
