"""The local engine: one process and one socket per slot, on this machine.

A small supervisor of our own; docs/engines.md says why, and what pebble and loky did under the same suite.
Everything happens in the thread that asks `execute` for outcomes: no thread, no queue, no shared state.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from shardmig.engines.base import TICK_S, Ahead, Outcome, Tick, Work
from shardmig.engines.local_worker import HEAD, RAISED, TASK_OR_REPLY, name_work
from shardmig.engines.nursery import Nursery, can_fork
from shardmig.engines.starting import Executed, Process, connected, start
from shardmig.errors import DeadlineExceeded, WorkerLost

_READ_BYTES: Final = 1 << 20


class LocalEngine:
    """Worker processes, started when first needed, reused from task to task, ended with `execute`.

    ahead: begin with the imports now, in a process that forks the workers, or in the first worker where that cannot be;
    `close` ends it if `execute` is never called.
    deadline_s: how long a task may take before its worker is killed (None: for ever).
    grace_s: how long an idle worker may take to end by itself, atexit functions of an SDK included.
    """

    host = ""

    def __init__(
        self, slots: int, *, deadline_s: float | None = None, grace_s: float = 5.0, ahead: Ahead | None = None
    ) -> None:
        if slots < 1:
            raise ValueError(f"an engine needs at least one slot, not {slots}")
        self.slots = slots
        self._deadline_s = deadline_s
        self._grace_s = grace_s
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._ended: deque[Outcome] = deque()
        self._stopped = False
        self._imports = ahead.imports if ahead else ()
        self._nursery: Nursery | None = None
        if ahead:
            with suppress(OSError):  # the first task will tell
                if can_fork():
                    self._nursery = Nursery(self._imports)
                else:
                    self._idle.append(self._new_worker(name_work(ahead.work)))

    def execute(self, tasks: Iterator[bytes | None], work: Work | str, tick: Tick | None = None) -> Iterator[Outcome]:
        """Execute the tasks on up to `slots` workers. A work may be given by its name, which is not imported here."""
        work_name = work if isinstance(work, str) else name_work(work)
        try:
            while True:
                self._fill_slots(tasks, work_name)
                if not self._busy and not self._ended:
                    return
                while not self._ended:
                    if tick is not None:
                        tick()
                    self._wait()
                yield self._ended.popleft()
        finally:
            self._end_workers(0 if self._busy else self._grace_s)

    def stop(self) -> None:
        """Pull no further task."""
        self._stopped = True

    def close(self) -> None:
        """Kill the workers in flight. Not for signal handlers: from there, `stop`."""
        self.stop()
        self._end_workers(0)

    def _fill_slots(self, tasks: Iterator[bytes | None], work_name: str) -> None:
        while not self._stopped and len(self._busy) + len(self._ended) < self.slots:
            try:
                task = next(tasks)
            except StopIteration:
                return
            if task is None:
                if not self._busy and not self._ended:
                    raise ValueError("no task is ready and none is in flight")
                return
            self._hand_over(task, work_name)

    def _hand_over(self, task: bytes, work_name: str) -> None:
        started_s = time.time()
        try:
            worker = self._idle_worker(work_name) or self._new_worker(work_name)
        except OSError as error:
            self._ended.append(Outcome(task, None, WorkerLost(f"no worker could be started: {error}"), started_s, 0.0))
            return
        worker.hand_over(task)
        self._busy.append(worker)

    def _new_worker(self, work_name: str) -> _Worker:
        if self._nursery is not None and not self._nursery.is_lost:
            with suppress(OSError):
                return _Worker(work_name, partial(self._nursery.fork, work_name))
        return _Worker(work_name, partial(_executed, work_name, self._imports))

    def _idle_worker(self, work_name: str) -> _Worker | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.work_name == work_name and worker.process.poll() is None:
                return worker
            worker.end(0)
        return None

    def _wait(self) -> None:
        """Wait until something happened, TICK_S at most, and settle the workers that have ended their task."""
        timeout_s = TICK_S
        with selectors.DefaultSelector() as selector:
            for worker in self._busy:
                selector.register(worker.connection, worker.awaited_events)
                if self._deadline_s is not None:
                    timeout_s = min(timeout_s, self._deadline_s - worker.seconds)
            selector.select(max(timeout_s, 0))
        for worker in list(self._busy):
            is_dead = worker.process.poll() is not None  # asked first: what it wrote before it died still counts
            has_progress = worker.exchange()
            if worker.has_reply:
                self._settle(worker, worker.take_reply())
            elif worker.is_cut_off or (is_dead and not has_progress):
                worker.end(0)
                self._settle(worker, WorkerLost(f"the worker {worker.cause_of_death}"))
            elif self._deadline_s is not None and worker.seconds >= self._deadline_s:
                worker.end(0)
                self._settle(worker, DeadlineExceeded(f"killed after {self._deadline_s:g} s"))

    def _settle(self, worker: _Worker, end: bytes | WorkerLost | DeadlineExceeded) -> None:
        self._busy.remove(worker)
        if worker.process.returncode is None:
            self._idle.append(worker)
        else:
            worker.end(0)
        reply, failure = (end, None) if isinstance(end, bytes) else (None, end)
        self._ended.append(Outcome(worker.task, reply, failure, worker.started_s, worker.seconds))

    def _end_workers(self, grace_s: float) -> None:
        for worker in (*self._idle, *self._busy):
            worker.connection.close()
        patience_ends = time.monotonic() + grace_s
        while self._idle:
            worker = self._idle.pop()
            # One that never had a task has nothing to end by itself, and may be in the middle of its imports.
            worker.end(patience_ends - time.monotonic() if worker.task else 0)
        for worker in list(self._busy):
            worker.end(0)
            self._settle(worker, WorkerLost("the engine was closed"))
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None


def _executed(work_name: str, imports: Sequence[str], connection: int, lifeline: int) -> Executed:
    arguments = [str(connection), str(lifeline), work_name, ",".join(imports)]
    return start("shardmig.engines.local_worker", arguments, (connection, lifeline))


class _Worker:
    """One worker process, our end of its socket, and the task it has."""

    def __init__(self, work_name: str, begin: Callable[[int, int], Process]) -> None:
        """`begin` starts it with its socket and its lifeline. Raises OSError when this machine has no process or descriptor
        left."""
        self.work_name = work_name
        self.process, self.connection, self._lifeline = connected(begin)
        self.task = b""
        self.is_cut_off = False
        self._is_ended = False
        self.started_s = 0.0
        self._start = 0.0
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()

    def hand_over(self, task: bytes) -> None:
        """Begin to send a task; `exchange` goes on with it."""
        self.task = task
        self.started_s, self._start = time.time(), time.monotonic()
        self._outgoing = memoryview(HEAD.pack(len(task), TASK_OR_REPLY) + task)

    @property
    def seconds(self) -> float:
        """Time since the task was handed over."""
        return time.monotonic() - self._start

    @property
    def awaited_events(self) -> int:
        """What the socket is watched for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)

    def exchange(self) -> bool:
        """Send and receive what is possible without waiting; did anything arrive?"""
        try:
            if self._outgoing:
                self._outgoing = self._outgoing[self.connection.send(self._outgoing) :]
            received = self.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        self._incoming += received
        self.is_cut_off = not received
        return not self.is_cut_off

    @property
    def has_reply(self) -> bool:
        """Has the whole reply arrived?"""
        received = len(self._incoming)
        return received >= HEAD.size and received == HEAD.size + HEAD.unpack_from(self._incoming)[0]

    def take_reply(self) -> bytes | WorkerLost:
        """The reply, and what the worker said if the work raised instead."""
        _, kind = HEAD.unpack_from(self._incoming)
        payload = bytes(memoryview(self._incoming)[HEAD.size :])
        self._incoming = bytearray()
        return WorkerLost(payload.decode("utf-8")) if kind == RAISED else payload

    @property
    def cause_of_death(self) -> str:
        """How the process ended, after `end`."""
        code = self.process.returncode or 0
        if self.process.why:
            return self.process.why
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"

    def end(self, grace_s: float) -> None:
        """End the process and every process that it started, by force when `grace_s` seconds are over. Idempotent."""
        if self._is_ended:
            return
        self._is_ended = True
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(grace_s, 0))
        os.close(self._lifeline)
        self.process.kill_group()
        self.process.wait()
