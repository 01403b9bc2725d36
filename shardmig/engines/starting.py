"""Starting the processes of the local engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

_BOOT: Final = (
    "import sys; from importlib import import_module; count = int(sys.argv[2]);"
    " sys.path[:] = sys.argv[3 + count :]; import_module(sys.argv[1]).main(sys.argv[3 : 3 + count])"
)


class Process(Protocol):
    """What the engine asks of a worker's process, as subprocess.Popen has it."""

    returncode: int | None
    why: str
    """How it ended, where its exit code does not tell."""

    def poll(self) -> int | None:
        """Its exit code; None while it executes."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        ...

    def kill_group(self) -> None:
        """Kill it and every process that it started, as far as the end of its lifeline does not do that."""
        ...


class Executed(subprocess.Popen[bytes]):
    """A process of its own group."""

    why = ""

    def kill_group(self) -> None:
        """As Process. The number of a group stays taken while any member lives, so this never meets a stranger."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def start(module: str, arguments: Sequence[str], fds: Sequence[int]) -> Executed:
    """A new Python that executes `main` of a module, with these descriptors. Raises OSError when this machine has no process or
    descriptor left."""
    return Executed(
        [sys.executable, "-c", _BOOT, module, str(len(arguments)), *arguments, *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=2,  # standard output is the coordinator's
        pass_fds=fds,
        process_group=0,
    )
