"""What a worker process of the local engine executes: task in, reply out, over one socket.

A message is its length, one byte for its kind, and the payload. The process must not outlive the coordinator, nor
must any process that a vendor's SDK starts in it: its whole process group dies when the lifeline is cut.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from operator import attrgetter
from typing import Final, cast

from shardmig.engines.base import Work, attempt
from shardmig.errors import WorkerLost

HEAD: Final = struct.Struct("<QB")
"""Length of the payload, and its kind."""

TASK_OR_REPLY: Final = 0
RAISED: Final = 1


def main(arguments: Sequence[str]) -> None:
    """Answer tasks until the coordinator closes the socket. Arguments: socket, lifeline, name of the work, modules to import
    before the first task, separated by commas."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator to decide
    answer(int(arguments[0]), int(arguments[1]), arguments[2], arguments[3])


def answer(connection_fd: int, lifeline: int, work_name: str, imports: str = "") -> None:
    """As `main`, in the leader of a process group."""
    die_with_the_coordinator(lifeline)
    work = find_work(work_name)
    import_all(imports)
    with socket.socket(fileno=connection_fd) as connection, connection.makefile("rb") as incoming:
        while len(head := incoming.read(HEAD.size)) == HEAD.size:
            length, _ = HEAD.unpack(head)
            task = incoming.read(length)
            if len(task) != length:
                return
            reply = attempt(work, task)
            if isinstance(reply, WorkerLost):
                kind, payload = RAISED, reply.message.encode("utf-8", "backslashreplace")
            else:
                kind, payload = TASK_OR_REPLY, reply
            connection.sendall(HEAD.pack(len(payload), kind))
            connection.sendall(payload)
    gc.freeze()  # the interpreter, as it ends, looks for garbage among all that was imported (MLflow: 1 s, measured)


def import_all(modules: str) -> None:
    """Import these, separated by commas."""
    for module in filter(None, modules.split(",")):
        with suppress(ImportError):  # the work tells of it, and what to do
            import_module(module)


def name_work(work: Work) -> str:
    """module:name of a work. Raises ValueError for one that another process cannot import."""
    name = f"{getattr(work, '__module__', None)}:{getattr(work, '__qualname__', None)}"
    if name.startswith("__main__:") or "<" in name or ":None" in name:
        raise ValueError(f"{work!r} cannot be imported by a worker: use a function of a module")
    return name


def find_work(name: str) -> Work:
    """The work of that name."""
    module, qualified_name = name.split(":")
    return cast("Work", attrgetter(qualified_name)(import_module(module)))


def die_with_the_coordinator(lifeline: int) -> None:
    """Let the kernel kill this process group when the last writer of the lifeline, the coordinator, is gone.

    PR_SET_PDEATHSIG would spare the processes that the worker started, and would fire when a mere thread of the
    coordinator ends. Where the kernel cannot do it, the end of the socket ends the worker after its task.
    """
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
