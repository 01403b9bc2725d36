"""Loads into a folder that are killed: the same load again ends in the same folder as an undisturbed one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOAD = """
import sys
from shardmig.adapters.base import migration_key
from shardmig.adapters.conformance import wide_run
from shardmig.adapters.wandb import open_target
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Header, LoadOptions, RunId
import msgspec
target = open_target({"offline-dir": sys.argv[1]}, LoadOptions(step_multiplier=1))
for number in range(12):
    header, *rest = wide_run(400)
    run = msgspec.structs.replace(header.run, id=RunId(f"RUN-{number}"))
    files = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), run.project)
    target.write_run(migration_key(run), "d", iter([Header(run, "test", "1"), *rest]), files, None)
"""


@pytest.mark.slow
def test_a_load_that_was_killed_again_and_again_leaves_what_an_undisturbed_one_leaves(tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert _load(undisturbed).wait(60) == 0
    kills = 0
    for after in (2, 7):
        process = _load(disturbed)
        while process.poll() is None and len(list(disturbed.glob("offline-run-*"))) < after:
            time.sleep(0.001)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 2
    assert _load(disturbed).wait(60) == 0
    assert _contents(disturbed) == _contents(undisturbed)


def _load(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", LOAD, str(root)])


def _contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
