"""Works for tests/contract/test_engines.py: importable by name, so that worker processes find them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class TwoArguments(Exception):
    """Unpickles in no process: the defect that breaks both pools of the standard library."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def echo(task: bytes) -> bytes:
    return task


def worker_pid(_: bytes) -> bytes:
    return b"%d" % os.getpid()


def parent_if_imported(task: bytes) -> bytes:
    """The pid of the worker's parent where the worker has imported the module that the task names."""
    return b"%d" % os.getppid() if task.decode() in sys.modules else b""


def sleep(task: bytes) -> bytes:
    time.sleep(float(task))
    return task


def reply_of_size(task: bytes) -> bytes:
    return b"r" * int(task)


def print_much(task: bytes) -> bytes:
    for stream in (sys.stdout, sys.stderr):
        for _ in range(40):
            print("x" * 100_000, file=stream)
    return task


def break_on_demand(task: bytes) -> bytes:
    """Do the harm that the task names; any other task is answered."""
    match task.decode():
        case "raise":
            raise TwoArguments("fire", "water")
        case "sys.exit":
            sys.exit("leaving")
        case "os._exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "fork and die":
            if os.fork() == 0:
                time.sleep(60)
            os._exit(8)
        case "overdue":
            time.sleep(60)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
    return task


def announce(task: bytes) -> bytes:
    """Write the worker's pid to the file that the task names, then take a minute."""
    _write_whole(Path(task.decode()), str(os.getpid()))
    time.sleep(60)
    return task


def announce_with_child(task: bytes) -> bytes:
    """Write the pids of the worker and of a process that it starts, as a vendor's SDK would, then take a minute."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    _write_whole(Path(task.decode()), f"{os.getpid()} {child.pid}")
    time.sleep(60)
    return task


def reply_when_asked(task: bytes) -> bytes:
    """For a folder answer at once. For a file write the worker's pid to it, wait until it is asked for, then answer
    with far more than a socket holds."""
    file = Path(task.decode())
    if file.is_dir():
        return b"at once"
    _write_whole(file, str(os.getpid()))
    while not file.with_suffix(".asked").exists():
        time.sleep(0.01)
    file.with_suffix(".replying").touch()
    return b"r" * 50_000_000


def interrupt_itself(task: bytes) -> bytes:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    return task


def _write_whole(path: Path, text: str) -> None:
    staged = path.with_suffix(".staged")
    staged.write_text(text)
    staged.rename(path)
