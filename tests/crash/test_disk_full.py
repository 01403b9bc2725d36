"""No space left: the migration stops, says so, and goes on when there is space.

The disk is full at CRASH_POINTS writes of each role, a sample; scripts/crash_campaign tries every one.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.crash.faulty import Fault, Role
from tests.crash.migration import Content, Migration, Undisturbed

POINTS = int(os.environ.get("CRASH_POINTS", "4"))
STOPPED = 7
"""The exit code of `errors.Fatal`: nothing further can succeed, resumable."""


@pytest.mark.parametrize("role", ["coordinator", "worker"])
@pytest.mark.parametrize("point", range(POINTS))
def test_a_full_disk_stops_the_migration_and_the_same_command_goes_on_when_there_is_space(
    migration: Migration, undisturbed: dict[Role, Undisturbed], expected: Content, role: Role, point: int
) -> None:
    writes = undisturbed[role].steps.sample_of_writes(POINTS)
    if point >= len(writes):
        pytest.skip(f"there are {len(writes)} writes")
    full = migration.execute(Fault(role, writes[point], "full"))
    assert migration.mark.exists()
    assert full.returncode == STOPPED, full.stderr
    assert re.search("no space|disk (is )?full", full.stderr.lower()), full.stderr
    assert "Traceback" not in full.stderr
    again = migration.execute()
    assert again.returncode == 0, again.stderr
    assert migration.content().differences_from(expected) == []


def test_a_file_system_that_is_really_full(migration: Migration, expected: Content, tmp_path: Path) -> None:
    exports = migration.root / "exports"
    exports.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", exports], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        full = migration.execute()
        assert full.returncode == STOPPED, full.stderr
        assert re.search("no space|disk (is )?full", full.stderr.lower()), full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", exports], check=True)
        again = migration.execute()
        assert again.returncode == 0, again.stderr
        assert migration.content().differences_from(expected) == []
    finally:
        subprocess.run(["umount", "--lazy", exports], check=True)
