"""Ctrl-C, SIGTERM, and a second coordinator while the first one works."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.faulty import Fault, Role
from tests.crash.migration import Content, Migration, Undisturbed
from tests.processes import descendants_of
from tests.waiting import eventually


@contextmanager
def paused(migration: Migration, undisturbed: dict[Role, Undisturbed]) -> Iterator[subprocess.Popen[str]]:
    """The migration with its worker paused in the middle of its work."""
    fault = Fault("worker", len(undisturbed["worker"].steps) // 2, "pause")
    with migration.executing(fault) as coordinator:
        assert eventually(migration.mark.exists, within_s=60)
        yield coordinator


def said(coordinator: subprocess.Popen[str]) -> str:
    """What it said, once it has ended."""
    output, _ = coordinator.communicate(timeout=180)
    return output


def is_gone(pid: int) -> bool:
    """Has that process ended?"""
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_what_is_in_flight_and_the_same_command_goes_on(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content, number: signal.Signals
) -> None:
    with paused(migration, undisturbed) as coordinator:
        started = descendants_of(coordinator.pid)
        os.killpg(coordinator.pid, number)
        with pytest.raises(subprocess.TimeoutExpired):
            coordinator.wait(1)
        migration.mark.unlink()
        assert "interrupted" in said(coordinator)
    assert coordinator.returncode == 130
    assert started
    assert eventually(lambda: all(map(is_gone, started)), within_s=5)
    assert migration.execute().returncode == 0
    assert migration.content().differences_from(expected) == []


def test_two_interrupts_stop_at_once_and_the_same_command_goes_on(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content
) -> None:
    with paused(migration, undisturbed) as coordinator:
        started = descendants_of(coordinator.pid)
        os.killpg(coordinator.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            coordinator.wait(1)
        os.killpg(coordinator.pid, signal.SIGINT)
        words = said(coordinator)
    assert coordinator.returncode == 130
    assert "interrupted" in words
    assert "Traceback" not in words
    assert started
    assert eventually(lambda: all(map(is_gone, started)), within_s=5)
    assert migration.execute().returncode == 0
    assert migration.content().differences_from(expected) == []


def test_a_second_coordinator_is_refused_and_does_no_harm(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content
) -> None:
    with paused(migration, undisturbed) as coordinator:
        second = migration.execute()
        assert second.returncode == 6
        assert str(coordinator.pid) in second.stderr
        migration.mark.unlink()
        words = said(coordinator)
    assert coordinator.returncode == 0, words
    assert migration.content().differences_from(expected) == []
