"""The contract of an engine, executed over every engine. A new engine joins by one line in SLOTS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from shardmig.config import usable_cores
from shardmig.engines import ENGINES, Ahead, Engine, make_engine
from shardmig.errors import DeadlineExceeded, UsageError, WorkerLost
from tests.contract import works
from tests.processes import descendants_of
from tests.waiting import eventually

SLOTS = {"inline": 1, "local": 2, "forked": 2, "ray": 2}
"""forked: the engine `local` with a nursery."""
ON_RAY = pytest.param("ray", marks=pytest.mark.xdist_group("ray"))
ISOLATING = ["local", "forked", ON_RAY]
"""Engines whose workers are processes: what kills a work does not kill the coordinator."""

StartEngine = Callable[..., Engine]


def children() -> set[int]:
    """Processes that this process has started, and those that they have started."""
    return descendants_of(os.getpid())


def is_alive(pid: int) -> bool:
    """Does that process still execute? A zombie, which waits for its reaper, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(params=["inline", "local", "forked", ON_RAY])
def start(request: pytest.FixtureRequest) -> Iterator[StartEngine]:
    yield from _starting(request)


@pytest.fixture(params=ISOLATING)
def start_isolating(request: pytest.FixtureRequest) -> Iterator[StartEngine]:
    yield from _starting(request)


def _starting(request: pytest.FixtureRequest) -> Iterator[StartEngine]:
    """Starts engines of the name that is asked for; whatever a test did with them, no child and no descriptor may stay.
    (Descriptors of a process that is connected to Ray are Ray's affair.)"""
    name = request.param
    if name == "ray":
        request.getfixturevalue("ray")
    engines: list[Engine] = []
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))

    def start_one(slots: int = SLOTS[name], deadline_s: float | None = None) -> Engine:
        ahead = Ahead(works.echo, ["colorsys"]) if name == "forked" else None
        engines.append(make_engine("local" if ahead else name, slots, deadline_s=deadline_s, ahead=ahead))
        return engines[-1]

    yield start_one
    for engine in engines:
        engine.close()
        engine.close()
    assert children() <= before
    assert name == "ray" or len(os.listdir("/proc/self/fd")) <= descriptors


def named(*names: str) -> Iterator[bytes | None]:
    return (name.encode() for name in names)


# --- every engine -----------------------------------------------------------------------------------------------------


def test_each_task_has_exactly_one_outcome_which_carries_the_very_task(start: StartEngine) -> None:
    tasks = [b"task %d" % number for number in range(20)]
    outcomes = list(start().execute(iter(tasks), works.echo))
    assert sorted(outcome.task for outcome in outcomes) == sorted(tasks)
    assert {id(outcome.task) for outcome in outcomes} == {id(task) for task in tasks}
    assert all(outcome.reply == outcome.task and outcome.failure is None for outcome in outcomes)


def test_no_tasks_are_no_outcomes(start: StartEngine) -> None:
    assert list(start().execute(iter([]), works.echo)) == []


def test_an_empty_task_and_an_empty_reply_are_a_task_and_a_reply(start: StartEngine) -> None:
    (outcome,) = start().execute(iter([b""]), works.echo)
    assert (outcome.task, outcome.reply, outcome.failure) == (b"", b"", None)


def test_a_thousand_tasks_that_do_nothing_are_all_answered(start: StartEngine) -> None:
    outcomes = list(start().execute((b"%d" % number for number in range(1000)), works.echo))
    assert {outcome.reply for outcome in outcomes} == {b"%d" % number for number in range(1000)}
    assert len(outcomes) == 1000


def test_an_outcome_says_when_the_task_began_and_how_long_it_took(start: StartEngine) -> None:
    before = time.time()
    (outcome,) = start().execute(named("0.3"), works.sleep)
    assert before <= outcome.started_s <= time.time() - 0.3
    assert outcome.seconds >= 0.3


def test_tasks_are_pulled_only_when_a_slot_is_free(start: StartEngine) -> None:
    engine, pulled, delivered = start(), 0, 0

    def tasks() -> Iterator[bytes]:
        nonlocal pulled
        for _ in range(12):
            assert pulled - delivered < engine.slots
            pulled += 1
            yield b"0"

    outcomes = engine.execute(tasks(), works.sleep)
    assert pulled == 0
    for _ in outcomes:
        delivered += 1
    assert pulled == delivered == 12


def test_a_task_that_becomes_ready_by_an_outcome_is_asked_for_after_it(start: StartEngine) -> None:
    exported: list[bytes] = []

    def tasks() -> Iterator[bytes | None]:
        yield b"export"
        while not exported:
            yield None
        yield b"load"

    order = []
    for outcome in start().execute(tasks(), works.echo):
        order.append(outcome.reply)
        exported.append(outcome.task)
    assert order == [b"export", b"load"]


def test_nothing_ready_and_nothing_in_flight_is_a_programming_error(start: StartEngine) -> None:
    with pytest.raises(ValueError, match="ready"):
        list(start().execute(iter([None, b"task"]), works.echo))


@pytest.mark.parametrize("harm", ["raise", "sys.exit"])
def test_a_work_that_raises_costs_its_own_attempt_and_says_why(start: StartEngine, harm: str) -> None:
    outcomes = list(start().execute(named("one", harm, "two", "three"), works.break_on_demand))
    (lost,) = (outcome for outcome in outcomes if outcome.failure)
    assert lost.task == harm.encode()
    assert lost.reply is None
    assert isinstance(lost.failure, WorkerLost)
    assert {"raise": "TwoArguments: fire and water", "sys.exit": "SystemExit: leaving"}[harm] in lost.failure.message
    assert {outcome.reply for outcome in outcomes} == {b"one", b"two", b"three", None}


def test_tasks_and_replies_of_50_megabytes_pass(start: StartEngine) -> None:
    task = os.urandom(1 << 20) * 48
    outcomes = list(start().execute(iter([task, task[::-1]]), works.echo))
    assert {outcome.reply for outcome in outcomes} == {task, task[::-1]}
    (outcome,) = start().execute(named("50000000"), works.reply_of_size)
    assert outcome.reply == b"r" * 50_000_000


def test_what_a_work_prints_stays_off_standard_output(
    start: StartEngine, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    outcomes = list(start().execute(named("one", "two", "three"), works.print_much))
    assert [outcome.failure for outcome in outcomes] == [None] * 3
    written = capfd.readouterr()
    assert written.out == ""
    is_of_this_machine = "ray" not in request.node.callspec.id
    assert not is_of_this_machine or len(written.err) > 3 * 8_000_000


def test_stop_delivers_what_is_in_flight_and_pulls_nothing_more(start: StartEngine) -> None:
    engine, pulled = start(), 0

    def tasks() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield b"0.05"

    outcomes = engine.execute(tasks(), works.sleep)
    first = next(outcomes)
    engine.stop()
    rest = list(outcomes)
    assert all(outcome.reply == b"0.05" for outcome in [first, *rest])
    assert pulled == 1 + len(rest) <= engine.slots
    assert list(engine.execute(named("0"), works.sleep)) == []


def test_closing_the_outcomes_early_leaves_no_child(start: StartEngine) -> None:
    before = children()
    outcomes = start().execute(named("0", "60", "60"), works.sleep)
    assert next(outcomes).reply == b"0"
    outcomes.close()  # type: ignore[attr-defined]
    assert children() <= before


def test_close_is_idempotent_and_an_engine_that_is_closed_executes_nothing(start: StartEngine) -> None:
    engine = start()
    engine.close()
    engine.close()
    assert list(engine.execute(named("one"), works.echo)) == []


def test_an_error_of_the_coordinator_passes_through_and_leaves_no_child(start: StartEngine) -> None:
    def tasks() -> Iterator[bytes]:
        yield b"0"
        raise OSError("the journal cannot be written")

    before = children()
    with pytest.raises(OSError, match="journal"):
        list(start().execute(tasks(), works.sleep))
    assert children() <= before


def test_the_consumer_is_woken_by_ticks(start: StartEngine) -> None:
    ticks: list[float] = []
    list(start().execute(named("0", "0"), works.sleep, tick=lambda: ticks.append(time.monotonic())))
    assert ticks


def test_two_engines_work_at_once(start: StartEngine) -> None:
    one, other = start(), start()
    letters = one.execute(named("a", "b", "c"), works.echo)
    digits = other.execute(named("1", "2", "3"), works.echo)
    pairs = list(zip(letters, digits, strict=True))
    assert {letter.reply for letter, _ in pairs} == {b"a", b"b", b"c"}
    assert {digit.reply for _, digit in pairs} == {b"1", b"2", b"3"}


# --- engines whose workers are processes ------------------------------------------------------------------------------


def test_outcomes_come_in_order_of_completion(start_isolating: StartEngine) -> None:
    engine = start_isolating(2)
    assert len(list(engine.execute(named("0.2", "0.2"), works.sleep))) == 2  # Ray keeps its processes
    outcomes = engine.execute(named("4", "0", "0.01", "0.02"), works.sleep)
    assert [outcome.task for outcome in outcomes] == [b"0", b"0.01", b"0.02", b"4"]


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        ("os._exit", "exit code 7"),
        ("kill", "signal 9"),
        ("segfault", "signal 11"),
        ("fork and die", "exit code 8"),
    ],
)
def test_a_worker_that_dies_costs_one_attempt_of_one_task(start_isolating: StartEngine, harm: str, cause: str) -> None:
    tasks = [*(str(number) for number in range(5)), harm, *(str(number) for number in range(5, 10))]
    outcomes = list(start_isolating().execute(named(*tasks), works.break_on_demand))
    assert len(outcomes) == 11
    (lost,) = (outcome for outcome in outcomes if outcome.failure)
    assert (lost.task, lost.reply) == (harm.encode(), None)
    assert isinstance(lost.failure, WorkerLost)
    assert cause in lost.failure.message
    assert {outcome.reply for outcome in outcomes} - {None} == {b"%d" % number for number in range(10)}


def test_when_every_worker_dies_every_task_still_has_its_outcome(start_isolating: StartEngine) -> None:
    outcomes = list(start_isolating().execute(named(*["kill"] * 6), works.break_on_demand))
    assert [type(outcome.failure) for outcome in outcomes] == [WorkerLost] * 6


def test_a_worker_killed_from_outside_costs_one_attempt(start_isolating: StartEngine, tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def kill_it() -> None:
        if file.exists():
            os.kill(int(file.read_text()), signal.SIGKILL)
            file.rename(tmp_path / "killed")

    (outcome,) = start_isolating().execute(named(str(file)), works.announce, tick=kill_it)
    assert isinstance(outcome.failure, WorkerLost)
    assert "signal 9" in outcome.failure.message


@pytest.mark.parametrize("harm", ["overdue", "stopped"])
def test_an_overdue_worker_is_killed_and_costs_one_attempt(start_isolating: StartEngine, harm: str) -> None:
    outcomes = list(start_isolating(deadline_s=2.0).execute(named("1", harm, "2", "3"), works.break_on_demand))
    (late,) = (outcome for outcome in outcomes if outcome.failure)
    assert isinstance(late.failure, DeadlineExceeded)
    assert late.task == harm.encode()
    assert late.seconds >= 2.0
    assert {outcome.reply for outcome in outcomes} == {b"1", b"2", b"3", None}


@pytest.mark.parametrize("start_isolating", ["local"], indirect=True)  # a node of Ray always reads
def test_a_reply_that_a_killed_worker_wrote_in_part_is_no_reply(start_isolating: StartEngine, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    outcomes = start_isolating(2).execute(named(str(tmp_path), str(file)), works.reply_when_asked)
    assert next(outcomes).reply == b"at once"
    file.with_suffix(".asked").touch()
    assert eventually(file.with_suffix(".replying").exists, within_s=10)
    time.sleep(0.2)  # nobody reads: the socket is full and the worker is stuck in the middle of its reply
    os.kill(int(file.read_text()), signal.SIGKILL)
    (outcome,) = outcomes
    assert outcome.reply is None
    assert isinstance(outcome.failure, WorkerLost)


def test_workers_are_started_when_needed_and_reused(start_isolating: StartEngine) -> None:
    engine = start_isolating(2)
    before = children()
    outcomes = engine.execute(iter([b""] * 12), works.worker_pid)
    assert children() <= before
    assert 1 <= len({outcome.reply for outcome in outcomes}) <= 2
    engine = start_isolating(4)
    (outcome,) = engine.execute(_counting_children(children(), at_most=1), works.echo)
    assert outcome.reply == b"only"


def _counting_children(before: set[int], *, at_most: int) -> Iterator[bytes | None]:
    yield b"only"
    assert len(children() - before) <= at_most


def test_close_in_the_middle_loses_the_tasks_in_flight_and_no_more(start_isolating: StartEngine) -> None:
    earlier = children()  # a server that another test of this session started, say
    engine = start_isolating(2)
    outcomes = engine.execute(named("0", "60", "0.01", "1"), works.sleep)
    assert next(outcomes).reply == b"0"
    before = children() - earlier
    engine.close()
    assert not any(is_alive(pid) for pid in before)
    rest = list(outcomes)
    assert rest
    assert all(isinstance(outcome.failure, WorkerLost) for outcome in rest)


def test_ticks_come_again_and_again_while_a_task_takes_its_time(start_isolating: StartEngine) -> None:
    ticks: list[None] = []
    list(start_isolating().execute(named("2"), works.sleep, tick=lambda: ticks.append(None)))
    assert len(ticks) >= 4


def test_stop_from_a_tick_drains(start_isolating: StartEngine) -> None:
    engine = start_isolating(2)
    outcomes = list(engine.execute(iter([b"0.6"] * 10), works.sleep, tick=engine.stop))
    assert [outcome.reply for outcome in outcomes] == [b"0.6"] * 2


def test_processes_that_a_worker_started_die_with_it(start_isolating: StartEngine, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    (outcome,) = start_isolating(deadline_s=3.0).execute(named(str(file)), works.announce_with_child)
    assert isinstance(outcome.failure, DeadlineExceeded)
    assert eventually(lambda: not any(is_alive(int(pid)) for pid in file.read_text().split()), within_s=10)


def test_an_interrupt_is_for_the_coordinator_alone(start_isolating: StartEngine) -> None:
    (outcome,) = start_isolating().execute(named("on"), works.interrupt_itself)
    assert outcome.reply == b"on"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a group when a pipe is cut")
def test_workers_and_what_they_started_die_with_a_killed_coordinator(tmp_path: Path) -> None:
    script = (
        "import sys; from shardmig.engines import make_engine; from tests.contract import works\n"
        "list(make_engine('local', 2).execute((path.encode() for path in sys.argv[1:]), works.announce_with_child))"
    )
    files = [tmp_path / "one", tmp_path / "two"]
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script, *map(str, files)], cwd=root) as coordinator:
        assert eventually(lambda: all(file.exists() for file in files), within_s=10)
        coordinator.kill()
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    assert len(pids) == 4
    assert eventually(lambda: not any(map(is_alive, pids)), within_s=2)


def test_a_work_that_no_worker_could_import_is_refused(start_isolating: StartEngine) -> None:
    with pytest.raises(ValueError, match="imported"):
        list(start_isolating().execute(named("one"), lambda task: task))


# --- the local engine alone ------------------------------------------------------------------------------------------


class StartedAhead(NamedTuple):
    """An engine that has a nursery before there is a task."""

    engine: Engine
    nursery: int


@pytest.fixture
def ahead() -> Iterator[StartedAhead]:
    before = children()
    engine = make_engine("local", 2, ahead=Ahead(works.parent_if_imported, ["no.such.module", "colorsys"]))
    (nursery,) = children() - before
    yield StartedAhead(engine, nursery)
    engine.close()
    assert children() <= before


def test_every_worker_is_forked_by_a_process_that_made_the_imports(ahead: StartedAhead) -> None:
    outcomes = list(ahead.engine.execute(iter([b"colorsys"] * 20), works.parent_if_imported))
    assert {outcome.reply for outcome in outcomes} == {b"%d" % ahead.nursery}


def test_a_nursery_ends_with_an_engine_that_never_executes(ahead: StartedAhead) -> None:
    ahead.engine.close()
    assert not is_alive(ahead.nursery)


def test_a_nursery_that_dies_costs_the_attempts_in_flight_and_its_successors_make_the_imports(
    ahead: StartedAhead,
) -> None:
    successor, ends = b"%d" % os.getpid(), time.monotonic() + 30
    replies: set[bytes | None] = set()
    failures = 0

    def tasks() -> Iterator[bytes]:
        yield b"colorsys"
        yield b"colorsys"
        os.kill(ahead.nursery, signal.SIGKILL)
        while successor not in replies and time.monotonic() < ends:
            yield b"colorsys"  # its orphans go on until the coordinator has seen that it died

    for outcome in ahead.engine.execute(tasks(), works.parent_if_imported):
        replies.add(outcome.reply)
        failures += outcome.failure is not None
    assert failures <= 2
    assert successor in replies


def test_a_deadline_holds_while_the_imports_are_made() -> None:
    engine = make_engine("local", 1, deadline_s=1.0, ahead=Ahead(works.echo, ["tests.contract.slow_module"]))
    (outcome,) = engine.execute(named("task"), works.echo)
    assert isinstance(outcome.failure, DeadlineExceeded)
    assert outcome.seconds < 10


def test_closing_while_the_imports_are_made_waits_for_nothing() -> None:
    engine = make_engine("local", 1, ahead=Ahead(works.echo, ["tests.contract.slow_module"]))
    outcomes = engine.execute(named("task"), works.echo, tick=engine.stop)
    before = time.monotonic()
    engine.close()
    assert time.monotonic() - before < 10
    assert list(outcomes) == []


# --- the factory ------------------------------------------------------------------------------------------------------


def test_the_suite_covers_every_engine() -> None:
    assert set(SLOTS) == {*ENGINES, "forked"}


def test_an_unknown_engine_is_a_usage_error_that_names_the_known() -> None:
    with pytest.raises(UsageError) as error:
        make_engine("cloud")
    assert all(name in error.value.hint for name in ENGINES)
    with pytest.raises(UsageError):
        make_engine("local", 0)


def test_by_default_the_local_engine_has_a_slot_for_each_usable_core() -> None:
    assert make_engine("local").slots == usable_cores() == len(os.sched_getaffinity(0))
