"""Folders for temporary files: gone at their end, and after a kill with the next process that stages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

HOLD = """
import sys
from shardmig.adapters.staging import staging_folder
with staging_folder() as folder:
    (folder / "part").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_staged_is_removed_by_the_next_and_what_one_at_work_stages_stays(tmp_path: Path) -> None:
    killed, at_work = _holder(tmp_path), _holder(tmp_path)
    left, held = _folder_of(killed), _folder_of(at_work)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert (left / "part").exists()
    third = _holder(tmp_path)
    _folder_of(third)
    assert not left.exists()
    assert (held / "part").exists()
    for process in (at_work, third):
        process.communicate(b"")
    assert not any(tmp_path.iterdir())


def _holder(tmp: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"TMPDIR": str(tmp)}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _folder_of(process: subprocess.Popen[bytes]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().decode().strip())
