"""SIGKILL of the coordinator and of a worker at an I/O step, then the same command: nothing lost, doubled or altered.

Executes CRASH_POINTS steps of each role, a sample; scripts/crash_campaign executes every one.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.crash.faulty import Fault, Role
from tests.crash.migration import Content, Migration, Undisturbed

POINTS = int(os.environ.get("CRASH_POINTS", "8"))


def step_of(undisturbed: dict[Role, Undisturbed], role: Role, point: int) -> int:
    """The step that a point stands for."""
    steps = undisturbed[role].steps.sample(POINTS)
    if point >= len(steps):
        pytest.skip(f"there are {len(steps)} steps")
    return steps[point]


def test_two_undisturbed_migrations_leave_the_same(undisturbed: dict[Role, Undisturbed]) -> None:
    assert undisturbed["coordinator"].content.differences_from(undisturbed["worker"].content) == []


def test_the_comparison_sees_every_kind_of_difference(migration: Migration, expected: Content) -> None:
    assert migration.execute().returncode == 0
    assert migration.content().differences_from(expected) == []
    spoil = (
        "update metrics set value = value + 1e-12 where rowid = (select max(rowid) from metrics)",
        "insert into params select key || '2', value, run_uuid from params limit 1",
        "delete from tags where key not like 'shardmig%' and rowid = (select max(rowid) from tags)",
    )
    for statement in spoil:
        before = migration.content()
        with closing(sqlite3.connect(migration.database)) as database, database:
            assert database.execute(statement).rowcount == 1
        assert migration.content().target != before.target
    artifact = next(file for file in (migration.root / "mlruns").rglob("*") if file.is_file())
    artifact.write_bytes(artifact.read_bytes() + b"!")
    assert migration.content().artifacts != expected.artifacts


@pytest.mark.parametrize("point", range(POINTS))
def test_a_killed_coordinator_is_made_good_by_the_same_command(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content, point: int
) -> None:
    fault = Fault("coordinator", step_of(undisturbed, "coordinator", point))
    killed = migration.execute(fault)
    assert (killed.returncode, migration.mark.exists()) == (-signal.SIGKILL, True), killed.stderr
    again = migration.execute()
    assert again.returncode == 0, again.stderr
    assert migration.content().differences_from(expected) == []


@pytest.mark.parametrize("point", range(POINTS))
def test_a_killed_worker_costs_an_attempt_and_nothing_else(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content, point: int
) -> None:
    ended = migration.execute(Fault("worker", step_of(undisturbed, "worker", point)))
    assert (ended.returncode, migration.mark.exists()) == (0, True), ended.stderr
    assert migration.content().differences_from(expected) == []


@pytest.mark.parametrize("point", range(2))
def test_a_migration_killed_again_and_again_arrives(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content, point: int
) -> None:
    """Each execution gets a third further than it would from the start, and is killed; the last one is left alone."""
    for third in (1, 2):
        roles: tuple[Role, Role] = ("coordinator", "worker")
        migration.execute(Fault(roles[point], len(undisturbed[roles[point]].steps) * third // 3))
        migration.mark.unlink(missing_ok=True)
    ended = migration.execute()
    assert ended.returncode == 0, ended.stderr
    assert migration.content().differences_from(expected) == []
