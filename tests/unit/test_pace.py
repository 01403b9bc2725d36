"""The pace that processes keep together."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from shardmig.adapters.pace import SharedPace, shared_pace

_CALLER = """
import sys, time
from shardmig.adapters.pace import shared_pace
for _ in range(8):
    shared_pace("target", 40).take()
    print(time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_threads_take_turns_at_the_pace() -> None:
    pace = SharedPace("threads", 50)

    def take(_: int) -> float:
        pace.take()
        return time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        times_s = sorted(pool.map(take, range(10)))
    assert times_s[-1] - times_s[0] > 9 / 50 - 0.01


def test_processes_take_turns_at_one_pace() -> None:
    callers = [subprocess.Popen([sys.executable, "-c", _CALLER], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    times_s = sorted(float(line) for caller in callers for line in caller.communicate(timeout=30)[0].split())
    assert len(times_s) == 16
    apart_s = [later - earlier for earlier, later in pairwise(times_s)]
    assert sum(apart_s) > 15 / 40 - 0.02


def test_a_pause_binds_other_processes_too() -> None:
    SharedPace("target", None).pause(0.3)
    started_s = time.monotonic()
    other = SharedPace("target", None)  # as another process would open it
    other.take()
    assert time.monotonic() - started_s > 0.2


def test_without_a_rate_nobody_waits() -> None:
    pace = SharedPace("free", None)
    started_s = time.monotonic()
    for _ in range(100):
        pace.take()
    assert time.monotonic() - started_s < 0.2


def test_what_is_left_of_before_a_restart_of_the_computer_is_forgotten() -> None:
    old = SharedPace("restarted", None)
    old._moved(lambda _: time.monotonic() + 10_000_000, 0.0)
    started_s = time.monotonic()
    old.take()
    assert time.monotonic() - started_s < 0.2


def test_one_name_is_one_pace() -> None:
    assert shared_pace("one", 5) is shared_pace("one", 7)
    assert shared_pace("one", 5) is not shared_pace("two", 5)
