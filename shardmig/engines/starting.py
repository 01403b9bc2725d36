"""Starting the processes of the local engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

P = TypeVar("P")

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


class Connected(NamedTuple, Generic[P]):
    """A process that was begun, our end of its socket, and of its lifeline the end that only we have: cut, it kills the process
    and every other one of its group."""

    process: P
    connection: socket.socket
    lifeline: int


def connected(begin: Callable[[int, int], P], kind: socket.SocketKind = socket.SOCK_STREAM) -> Connected[P]:
    """`begin` starts a process with its ends of a socket and of a lifeline, which are closed here then. Raises OSError, with
    nothing left open, when this machine has no process or descriptor left."""
    with ExitStack() as on_error, ExitStack() as always:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        on_error.callback(ours.close)
        always.callback(theirs.close)
        their_lifeline, lifeline = os.pipe()
        on_error.callback(os.close, lifeline)
        always.callback(os.close, their_lifeline)
        process = begin(theirs.fileno(), their_lifeline)
        on_error.pop_all()
    ours.setblocking(False)
    return Connected(process, ours, lifeline)


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
