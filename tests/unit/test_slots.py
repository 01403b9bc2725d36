"""The bound that processes share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shardmig.adapters.slots import SharedSlots, shared_slots

_HOLDER = """
import sys, time
from contextlib import ExitStack
from shardmig.adapters.slots import shared_slots
with ExitStack() as stack:
    for _ in range(int(sys.argv[2])):
        stack.enter_context(shared_slots(sys.argv[1], 2).taken())
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_threads_never_hold_more_than_the_count() -> None:
    slots, holding, most = SharedSlots("threads", 3), [], []
    guard = threading.Lock()

    def work(number: int) -> None:
        with slots.taken():
            with guard:
                holding.append(number)
                most.append(len(holding))
            time.sleep(0.005)
            with guard:
                holding.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(60)))
    assert max(most) == 3


def test_another_process_counts_too_and_gives_back_what_it_held_when_it_is_killed() -> None:
    command = [sys.executable, "-c", _HOLDER, "server", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        taken = threading.Event()

        def take() -> None:
            with shared_slots("server", 2).taken():
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.2)
        holder.kill()
        assert taken.wait(10)
        thread.join()


def test_other_names_are_other_bounds() -> None:
    with SharedSlots("one", 1).taken(), SharedSlots("two", 1).taken():
        pass


def test_the_last_caller_says_how_many() -> None:
    few = shared_slots("resized", 1)
    many = shared_slots("resized", 3)
    with few.taken(), many.taken(), many.taken():
        pass
