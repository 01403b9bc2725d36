"""The budget that all workers of a migration share."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters import budget
from shardmig.adapters.budget import Allowance, Lessor, budget_of, spending_as, standings
from shardmig.adapters.budget.accounts import Account
from shardmig.errors import Unavailable

_CALLER = """
import sys, time
from shardmig.adapters.budget import budget_of, spending_as
target = budget_of("target here", requests_per_s=40)
with spending_as("caller", *sys.argv[1:]):
    for _ in range(8):
        target.take()
        print(time.monotonic(), flush=True)
"""
_HOLDER = """
import sys, time
from contextlib import ExitStack
from shardmig.adapters.budget import budget_of, spending_as
with spending_as("holder", *sys.argv[1:]), ExitStack() as stack:
    for _ in range(2):
        stack.enter_context(budget_of("target here", connections=2).connection())
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture(params=["one computer", "two computers"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a script in another process, as on this computer or as on one that shares no disk with it."""
    other = tmp_path / "other"
    other.mkdir()
    with Lessor("127.0.0.1") as lessor:

        def start(script: str) -> subprocess.Popen[str]:
            is_far = request.param == "two computers"
            command = [sys.executable, "-c", script, *([lessor.address] if is_far else [])]
            env = os.environ | ({"TMPDIR": str(other)} if is_far else {})
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)

        yield start
    assert list(other.iterdir()) == []


def seconds(call: Callable[[], object]) -> float:
    started_s = time.monotonic()
    call()
    return time.monotonic() - started_s


# --- the arithmetic of an account -------------------------------------------------------------------------------------


@given(
    st.floats(0.5, 50),
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 0.3)), min_size=1, max_size=80),
)
def test_requests_never_come_closer_than_the_rate_allows(per_s: float, asked: list[tuple[int, float]]) -> None:
    granted = [at for at, _ in _grants(Allowance(requests_per_s=per_s), [(who, 0, pause) for who, pause in asked])]
    for start in granted:
        in_window = [at for at in granted if start <= at < start + 1 - 1e-9]
        assert len(in_window) <= -(-per_s // 1)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 1000), st.floats(0, 20)),
        min_size=1,
        max_size=60,
    )
)
def test_no_minute_holds_more_points_than_are_allowed(asked: list[tuple[int, int, float]]) -> None:
    granted = _grants(Allowance(points_per_min=1000), asked)
    assert sum(points for _, points in granted) == sum(points for _, points, _ in asked)
    for start, _ in granted:
        assert sum(points for at, points in granted if start <= at < start + 60 - 1e-9) <= 1000


def _grants(allowance: Allowance, asked: list[tuple[int, int, float]]) -> list[tuple[float, int]]:
    """When what was granted, to callers who ask again when they are told to. Simulated time."""
    account, now_s, granted = Account(allowance=allowance), 1000.0, []
    queues: dict[int, list[tuple[int, float]]] = {}
    for who, points, pause_s in asked:
        queues.setdefault(who, []).append((points, pause_s))
    next_s = {who: now_s + queue[0][1] for who, queue in queues.items()}
    while next_s:
        who = min(next_s, key=lambda one: next_s[one])
        now_s = max(now_s, next_s[who])
        account.forget(now_s)
        points, _ = queues[who][0]
        wait_s = account.take(points, str(who), now_s)
        if wait_s:
            next_s[who] = now_s + min(wait_s, 1.0)
            continue
        granted.append((now_s, points))
        queues[who].pop(0)
        if queues[who]:
            next_s[who] = now_s + queues[who][0][1]
        else:
            del next_s[who]
    return granted


def test_a_request_with_more_points_than_a_minute_may_have_goes_alone_and_is_paid_off() -> None:
    account = Account(allowance=Allowance(points_per_min=1000))
    assert account.take(3000, "one", 1000.0) == 0
    assert account.take(1, "other", 1000.0) == pytest.approx(180, abs=1)


def test_who_came_first_is_served_first() -> None:
    account = Account(allowance=Allowance(points_per_min=1000))
    assert account.take(900, "first", 1000.0) == 0
    assert account.take(800, "big", 1001.0) > 0
    assert account.take(50, "small", 1002.0) > 0
    account.waiting["big"] = account.waiting["small"] = 1060.5
    assert account.take(50, "small", 1060.5) > 0
    assert account.take(800, "big", 1060.6) == 0
    assert account.take(50, "small", 1060.7) == 0


def test_who_was_killed_while_waiting_keeps_nobody_waiting() -> None:
    account = Account(allowance=Allowance(requests_per_s=1))
    assert account.take(0, "first", 1000.0) == 0
    assert account.take(0, "killed", 1000.1) > 0
    account.forget(1003.0)
    assert account.take(0, "next", 1003.0) == 0


# --- between threads and processes ------------------------------------------------------------------------------------


def test_threads_take_turns_at_the_rate() -> None:
    target = budget_of("threads here", requests_per_s=50)

    def take(_: int) -> float:
        target.take()
        return time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        times_s = sorted(pool.map(take, range(10)))
    assert times_s[-1] - times_s[0] > 9 / 50 - 0.01


def test_processes_take_turns_at_one_rate(elsewhere: Callable[[str], subprocess.Popen[str]]) -> None:
    callers = [elsewhere(_CALLER) for _ in range(2)]
    times_s = sorted(float(line) for caller in callers for line in caller.communicate(timeout=120)[0].split())
    assert len(times_s) == 16
    assert times_s[-1] - times_s[0] > 15 / 40 - 0.02


def test_what_a_killed_process_held_is_free_again(elsewhere: Callable[[str], subprocess.Popen[str]]) -> None:
    target, taken = budget_of("target here", connections=2), threading.Event()
    with elsewhere(_HOLDER) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def take() -> None:
            with target.connection():
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.2)
        holder.kill()
        assert taken.wait(10)
        thread.join()


def test_threads_never_hold_more_connections_than_there_are() -> None:
    target, holding, most = budget_of("threads here", connections=3), [], []
    guard = threading.Lock()

    def work(number: int) -> None:
        with target.connection():
            with guard:
                holding.append(number)
                most.append(len(holding))
            time.sleep(0.005)
            with guard:
                holding.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(60)))
    assert max(most) == 3


def test_a_pause_binds_everyone_also_where_there_is_no_rate() -> None:
    budget_of("target here").pause(0.3)
    assert seconds(budget_of("target here", requests_per_s=1000).take) > 0.2
    assert seconds(budget_of("target here").take) < 0.1


def test_without_limits_nobody_waits() -> None:
    target = budget_of("free here")
    started_s = time.monotonic()
    for _ in range(200):
        target.take(points=1000)
    assert time.monotonic() - started_s < 0.3


@pytest.mark.parametrize("prefix", ["", "X-"])
def test_a_server_that_says_that_nothing_is_left_is_left_alone_until_it_begins_anew(prefix: str) -> None:
    target = budget_of(f"headers{prefix} here")
    target.heed({f"{prefix}RateLimit-Remaining": "5", f"{prefix}RateLimit-Reset": "60"})
    target.heed({f"{prefix}RateLimit-Remaining": "soon", f"{prefix}RateLimit-Reset": "60"})
    assert seconds(target.take) < 0.1
    target.heed({f"{prefix}RateLimit-Remaining": "0", f"{prefix}RateLimit-Reset": "0.3"})
    assert seconds(target.take) > 0.2


def test_one_name_is_one_budget_and_the_last_caller_says_how_much() -> None:
    assert budget_of("one here", requests_per_s=5) is budget_of("one here", requests_per_s=7)
    assert budget_of("one here").allowance == Allowance()
    assert budget_of("one here") is not budget_of("two here")


def test_a_standing_says_what_is_spent_held_and_who_waits() -> None:
    target = budget_of("wandb http://here", points_per_min=1000, connections=4)
    target.take(points=600)
    thread = threading.Thread(target=target.take, args=(500,), daemon=True)
    with spending_as("load of s7"):
        thread.start()
        time.sleep(0.1)
    (standing,) = standings()
    assert standing.name == "wandb http://here"
    assert standing.points_last_min == 600
    assert [label.partition(" (")[0] for label in standing.waiting] == ["load of s7"]
    assert standing.allowance.connections == 4


def test_without_the_secret_or_the_coordinator_nothing_is_leased(tmp_path: Path) -> None:
    with Lessor("127.0.0.1") as lessor:
        host, port, _ = lessor.address.split(":")
        with spending_as("stranger", f"{host}:{port}:{'0' * 32}"), pytest.raises(Unavailable):
            budget_of("target here", requests_per_s=1).take()
        assert budget.leases.is_here(lessor.address)
    assert not budget.leases.is_here(lessor.address)
