"""One process that has imported what workers need, and forks them, where each of them would take seconds to import it.

It executes no task and starts no thread, so that a fork of it is as good as a new process; it is itself started by exec. A
worker that it forks is ended as any other one: its group dies when its lifeline is cut, which needs no number of a process.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from shardmig.engines.local_worker import answer, die_with_the_coordinator, import_all
from shardmig.engines.starting import Executed, connected, start

_TOLD: Final = struct.Struct("<qq")
"""Number of a worker and its exit code, as subprocess has it; a reason may follow."""
_ASKED: Final = struct.Struct("<q")
"""Number of a worker; the name of its work follows. Its socket and its lifeline come along."""
_MOST_BYTES: Final = 65_536
_READY: Final = 0
_LOST: Final = 255


def can_fork() -> bool:
    """Can workers be forked here, and be ended by their lifelines? Linux, from 5.3 on."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class Nursery:
    """That process, as the coordinator has it. From one thread; `close` ends it."""

    def __init__(self, imports: Sequence[str]) -> None:
        """Start it; it imports meanwhile. Raises OSError when this machine has no process or descriptor left."""
        self._forked: dict[int, Forked] = {}
        self._number = 0
        self._is_ready = False
        self.is_lost = False

        def begin(*fds: int) -> Executed:
            return start("shardmig.engines.nursery", [*map(str, fds), ",".join(imports)], fds)

        self._process, self._control, self._lifeline = connected(begin, socket.SOCK_SEQPACKET)

    def fork(self, work_name: str, connection: int, lifeline: int) -> Forked:
        """A worker with these descriptors, as soon as the imports are made. Raises OSError when the process is gone."""
        self._number += 1
        socket.send_fds(self._control, [_ASKED.pack(self._number) + work_name.encode()], [connection, lifeline])
        forked = self._forked[self._number] = Forked(self)
        return forked

    def receive(self, within_s: float) -> None:
        """Take in what it tells of its workers, and wait so long for it to tell anything."""
        if within_s and not self.is_lost:
            with selectors.DefaultSelector() as selector:
                selector.register(self._control, selectors.EVENT_READ)
                selector.select(within_s)
        while not self.is_lost:
            try:
                told = self._control.recv(_MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                told = b""
            if not told:
                self.close()
                return
            number, code = _TOLD.unpack_from(told)
            self._is_ready = True
            if number != _READY:
                self._forked.pop(number).end(code, told[_TOLD.size :].decode())

    def give_up(self) -> None:
        """End it if it is not ready to fork yet: what it was asked for would have to be waited for."""
        if not self._is_ready:
            self.close()

    def close(self) -> None:
        """End it, after its workers: of those that are left nobody learns how they end. Idempotent."""
        if self.is_lost:
            return
        self.is_lost = True
        self._control.close()
        os.close(self._lifeline)
        self._process.kill_group()
        self._process.wait()
        for forked in self._forked.values():
            forked.end(_LOST, "was lost with the process that had forked it")


class Forked:
    """A worker that was forked, with what is used of subprocess.Popen."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self.returncode: int | None = None
        self.why = ""

    def poll(self) -> int | None:
        """As Popen."""
        if self.returncode is None:
            self._nursery.receive(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As Popen."""
        ends = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            self._nursery.receive(1 if left is None else left)
        assert self.returncode is not None
        return self.returncode

    def kill_group(self) -> None:
        """As Process: its lifeline does it, once it is there."""
        self._nursery.give_up()

    def end(self, code: int, why: str) -> None:
        """It has ended so."""
        self.returncode, self.why = code, why


def main(arguments: Sequence[str]) -> None:
    """Fork workers until the coordinator closes the socket. Arguments: socket, lifeline, modules to import first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_the_coordinator(int(arguments[1]))
    import_all(arguments[2])
    gc.collect()
    gc.freeze()  # what nobody looks at for garbage stays shared by all workers
    with socket.socket(fileno=int(arguments[0])) as control:
        with suppress(BrokenPipeError):  # nobody is there any more, as it finds at once
            control.send(_TOLD.pack(_READY, 0))
        born = _fork_workers(control)
    if born is not None:
        os.close(int(arguments[1]))
        os.setpgid(0, 0)
        answer(*born)


class _Born(NamedTuple):
    """What a new worker is given."""

    connection: int
    lifeline: int
    work_name: str


def _fork_workers(control: socket.socket) -> _Born | None:
    """None at the end of the process that forks; in each process that it forked what that is given."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    _tell_end(control, *key.data)
                    continue
                asked, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
                if not asked:
                    return None
                (number,) = _ASKED.unpack_from(asked)
                pid = _forked(control, number)
                if pid == 0:
                    connection, lifeline = fds
                    return _Born(connection, lifeline, asked[_ASKED.size :].decode())
                for fd in fds:
                    os.close(fd)
                if pid is not None:
                    ended = os.pidfd_open(pid)
                    selector.register(ended, selectors.EVENT_READ, (ended, pid, number))


def _forked(control: socket.socket, number: int) -> int | None:
    """As os.fork; None where that was refused, and told."""
    try:
        with warnings.catch_warnings():  # of the threads of numpy's and Arrow's libraries, which see to it themselves
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    except OSError as error:
        control.send(_TOLD.pack(number, _LOST) + f"could not be forked: {error}".encode())
        return None


def _tell_end(control: socket.socket, ended: int, pid: int, number: int) -> None:
    os.close(ended)
    _, status = os.waitpid(pid, 0)
    control.send(_TOLD.pack(number, os.waitstatus_to_exitcode(status)))
