"""Each prefix of a journal, cut at any byte, replays to a state that was once true."""

import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig import codec, planner
from shardmig.errors import JournalCorrupt, JournalLocked
from shardmig.journal import Journal, Lock, State, compact, replay
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
    Phase,
    Plan,
    ProjectId,
    RunId,
    RunOutcome,
    RunRef,
    Started,
    TaskResult,
)


def a_plan(count: int = 3) -> Plan:
    runs = [RunRef(project=ProjectId("ws/a"), id=RunId(f"R-{number}"), weight=10**7) for number in range(count)]
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


def everything(state: State) -> tuple[object, ...]:
    """All that a state says, whatever the order it was told in."""
    listed = (state.refused, state.listed_ms)
    planned = [state.planned(run) for shard in a_plan_of_one_shard().shards for run in shard.runs]
    return (*summary(state), state.shards, state.shards_made, state.last_ended, state.open, listed, planned)


histories = st.lists(
    st.sampled_from(
        ["try", "bring", "fail", "lose", "split", "choose", "start", "again", "end", "extend", "list", "go"]
    ),
    max_size=40,
)


def a_plan_of_one_shard() -> Plan:
    """It can be split, and its halves again."""
    plan = a_plan(5)
    whole = msgspec.structs.replace(plan.shards[0], runs=tuple(run for shard in plan.shards for run in shard.runs))
    return msgspec.structs.replace(plan, shards=(whole,))


class Teller:
    """Tells a history that a coordinator could have told."""

    def __init__(self) -> None:
        self.state = State(a_plan_of_one_shard())
        self.lines: list[JournalLine] = []

    def tell(self, word: str, number: int) -> None:
        shards = sorted(self.state.shards.values(), key=lambda shard: shard.id)
        shard = shards[number % len(shards)]
        phase: Phase = "load" if number % 3 else "export"
        tried = self.state.attempts.get((phase, shard.id), 1)
        failure = Failure("X", "transient", "why") if word in ("fail", "lose") else None
        runs = [RunOutcome(run=run, state="failed" if failure else "done", failure=failure) for run in shard.runs]
        match word:
            case "try":
                self._note(AttemptStarted(number, phase, shard.id, tried))
            case "bring" | "fail":
                result = TaskResult(shard=shard.id, phase=phase, attempt=tried, runs=runs, started_ms=number)
                self._note(AttemptEnded(number, result, phase, shard.id, tried))
            case "lose":
                self._note(AttemptEnded(number, None, phase, shard.id, tried, failure))
            case "split" if len(shard.runs) > 1:
                self._note(Extended(number, planner.halves(shard, first=self.state.shards_made + 1)))
            case "choose" if not self.state.step_multiplier:
                self._note(MultiplierChosen(number, 10))
            case "start" | "again":
                self._note(Started(number, "f", 1, "local", looks_again=word == "again"))
            case "end":
                self._note(Finished(number, 3))
            case "extend":
                run = RunRef(project=ProjectId("ws/a"), id=RunId(f"N-{number}"), fingerprint=str(number))
                self._note(Extended(number, list(planner.cut([run], first=self.state.shards_made + 1))))
            case "list":
                refused = {ProjectId("ws/b"): Failure("NotAllowed", "permanent", "403")} if number % 2 else {}
                self._note(Extended(number, [], refused))

            case "go" if len(list(self.state.runs())) > 1:
                self._note(Extended(number, [], {}, [shard.runs[number % len(shard.runs)]]))

    def tell_all(self, words: Iterable[str], *, first: int = 0) -> None:
        for number, word in enumerate(words, first):
            self.tell(word, number)

    def _note(self, line: JournalLine) -> None:
        self.lines.append(line)
        self.state.apply(line)


@given(histories)
def test_a_compacted_journal_and_what_is_told_after_it_replay_to_the_same_state(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    path = tmp_path_factory.mktemp("compacted") / "journal"
    teller = Teller()
    teller.tell_all(words)
    compact(path, teller.state)
    assert everything(replay(a_plan_of_one_shard(), path)) == everything(teller.state)
    again = Teller()
    again.state = replay(a_plan_of_one_shard(), path)
    journal = Journal(path)
    for one in (teller, again):
        one.tell_all(reversed(words), first=len(words))
    for line in again.lines:
        journal.append(line)
    journal.close()
    assert everything(replay(a_plan_of_one_shard(), path)) == everything(teller.state)


def test_what_was_refused_stays_refused_until_the_source_is_listed_again() -> None:
    refused = {ProjectId("ws/b"): Failure("NotAllowed", "permanent", "403")}
    state = State(msgspec.structs.replace(a_plan(), refused=refused))
    for line in (Started(1, "f", 1, "local"), Extended(2, []), Finished(3, 3)):
        state.apply(line)
    assert state.refused == refused
    state.apply(Extended(4, [], {}))
    assert state.refused == {}


def test_plans_and_journals_from_before_refused_projects_were_kept_are_read() -> None:
    line = msgspec.msgpack.decode(codec.encode(Extended(4, [])))
    plan = msgspec.msgpack.decode(codec.encode(a_plan()))
    del line["refused"], plan["refused"]
    state = State(codec.decode(msgspec.msgpack.encode(plan), Plan))
    state.apply(codec.decode(msgspec.msgpack.encode(line), JournalLine))
    assert (state.refused, set(state.shards)) == ({}, {shard.id for shard in a_plan().shards})


@given(histories)
def test_what_any_beginning_of_a_compacted_journal_says_is_true(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    path = tmp_path_factory.mktemp("cut") / "journal"
    teller = Teller()
    teller.tell_all(words)
    compact(path, teller.state)
    whole = path.read_bytes()
    for frame in codec.read_frames(path):
        path.write_bytes(whole[: frame.end - 1])
        told = replay(a_plan_of_one_shard(), path)
        for phase, outcomes in told.outcomes.items():
            assert outcomes.items() <= teller.state.outcomes[phase].items()


def test_zeros_that_a_power_cut_left_behind_are_torn_off(tmp_path: Path) -> None:
    plan, path = a_plan(), tmp_path / "journal"
    journal = Journal(path)
    first, second, *_ = a_history(plan)
    journal.append(first)
    journal.close()
    before = summary(replay(plan, path))
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert summary(replay(plan, path)) == before
    journal = Journal(path)
    journal.append(second)
    journal.close()
    truth = State(plan)
    truth.apply(first)
    truth.apply(second)
    assert summary(replay(plan, path)) == summary(truth)


def test_a_coordinator_that_dies_while_it_compacts_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    plan = a_plan()
    journal = Journal(tmp_path / "journal")
    state = State(plan)
    for line in a_history(plan):
        journal.append(line)
        state.apply(line)
    journal.close()
    (tmp_path / "journal.tmp").write_bytes((tmp_path / "journal").read_bytes()[:40])  # what an earlier one left
    before = (tmp_path / "journal").read_bytes()
    died = os.fork()
    if not died:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # kills by SIGXFSZ in the middle of the new journal
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        compact(tmp_path / "journal", state)
        os._exit(0)
    _, status = os.waitpid(died, 0)
    assert os.WTERMSIG(status) == signal.SIGXFSZ
    assert (tmp_path / "journal").read_bytes() == before
    compact(tmp_path / "journal", state)
    assert everything(replay(plan, tmp_path / "journal")) == everything(state)


def test_a_journal_is_wordy_once_most_of_it_is_no_longer_true() -> None:
    plan = a_plan()
    state = State(plan)
    for number in range(40):
        for line in a_history(plan):
            state.apply(line)
        if number == 3:
            assert not state.is_wordy
    for _ in range(100):
        for line in a_history(plan):
            state.apply(line)
    assert state.is_wordy
    short = State(plan)
    for line in state.lines():
        short.apply(line)
    assert not short.is_wordy
    assert everything(short) == everything(state)


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
