"""The ray engine: one remote task of a Ray cluster per attempt. docs/engines.md says what its nodes must share.

Ray places a task on a node and tells when the node, or its own process there, is lost. Beside that process a worker
of the local engine executes the work, so that what kills a work, its deadline and the processes that it starts
are the same on a cluster as on one machine.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from shardmig.config import usable_cores
from shardmig.engines.base import TICK_S, Outcome, Tick, Work
from shardmig.engines.local_worker import name_work
from shardmig.engines.ray_worker import Ended, supervise
from shardmig.errors import DeadlineExceeded, MissingExtra, UsageError, WorkerLost

_KILLED_WITHIN_S: Final = 10.0
_STORE_BYTES: Final = 200 * 1024 * 1024
"""Of a Ray that is started here: it holds tasks and replies on their way, nothing else."""

_OWN_OPTIONS: Final = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""What Ray calls its own resources when a task asks for them; every other name is one of the cluster's."""


class RayEngine:
    """Executes on a Ray cluster: the one at `address` ("auto": the one of this machine), else $RAY_ADDRESS, else a Ray
    that is started here for as long as the engine lives. A Ray that this process is connected to already is used as it is.

    slots: tasks under way at once, by default as many as the cluster has room for. resources: what one task occupies,
    as `CPU=1,memory=500000000`. Raises MissingExtra without Ray, and UsageError for resources that no node has and
    for a cluster that does not answer.
    """

    def __init__(
        self, slots: int | None = None, *, deadline_s: float | None = None, address: str = "", resources: str = ""
    ) -> None:
        require_ray()
        import ray

        self._ray: Any = ray
        self._deadline_s = deadline_s
        needs = parse_resources(resources)
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            connect(ray, address or os.environ.get("RAY_ADDRESS", ""), slots or usable_cores(), needs)
        with ExitStack() as on_error:
            on_error.callback(self._disconnect)
            self.host: str = self._ray.util.get_node_ip_address()
            room = self._room_for(needs)
            on_error.pop_all()
        self.slots = slots or room
        self._supervise = self._ray.remote(max_retries=0, **_options(needs))(supervise)
        self._in_flight: dict[Any, _Attempt] = {}
        self._stopped = False

    def execute(self, tasks: Iterator[bytes | None], work: Work, tick: Tick | None = None) -> Iterator[Outcome]:
        """Execute the tasks, up to `slots` at once."""
        work_name = name_work(work)
        ended: deque[Outcome] = deque()
        try:
            while True:
                self._fill_slots(tasks, work_name)
                while self._in_flight and not ended:
                    if tick is not None:
                        tick()
                    ended.extend(self._settled(TICK_S))
                if not ended:
                    return
                while ended:
                    yield ended.popleft()
        finally:
            self._kill()

    def stop(self) -> None:
        """Pull no further task."""
        self._stopped = True

    def close(self) -> None:
        """Kill the workers in flight, and end a Ray that was started here. Not for signal handlers: from there, `stop`."""
        self.stop()
        self._kill()
        self._disconnect()

    def _fill_slots(self, tasks: Iterator[bytes | None], work_name: str) -> None:
        while not self._stopped and len(self._in_flight) < self.slots:
            try:
                task = next(tasks)
            except StopIteration:
                return
            if task is None:
                if not self._in_flight:
                    raise ValueError("no task is ready and none is in flight")
                return
            reference = self._supervise.remote(work_name, self._deadline_s, task)
            self._in_flight[reference] = _Attempt(task, time.monotonic())

    def _settled(self, wait_s: float) -> list[Outcome]:
        """What has ended, after `wait_s` seconds at most if nothing has."""
        ready, _ = self._ray.wait(list(self._in_flight), num_returns=1, timeout=wait_s)
        return [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        attempt = self._in_flight.pop(reference)
        try:
            ended: Ended = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            told = (str(error).strip() or "without a reason").splitlines()[0]
            ended = Ended(None, f"Ray lost it: {type(error).__name__}: {told}", False, attempt.seconds)
        if ended.reply is not None:
            return Outcome(attempt.task, ended.reply, None, time.time() - ended.seconds, ended.seconds)
        failure = (DeadlineExceeded if ended.is_overdue else WorkerLost)(ended.cause)
        return Outcome(attempt.task, None, failure, time.time() - ended.seconds, ended.seconds)

    def _kill(self) -> None:
        """Kill the Ray processes in flight, whose workers die with them, and wait until Ray has seen them dead."""
        killed = list(self._in_flight)
        for reference in killed:
            with suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(reference, force=True)
        if killed:
            self._ray.wait(killed, num_returns=len(killed), timeout=_KILLED_WITHIN_S)

    def _room_for(self, needs: dict[str, float]) -> int:
        """How many tasks the nodes have room for. Raises UsageError if none has room for one."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = [min((node.get(name, 0.0) // need for name, need in needs.items()), default=0) for node in nodes]
        if not sum(room):
            asked = ", ".join(f"{name}={need:g}" for name, need in needs.items())
            raise UsageError(
                f"no node of the Ray cluster has {asked}", hint="--ray-resources says what a task occupies"
            )
        return int(sum(room))

    def _disconnect(self) -> None:
        if self._is_ours:
            self._is_ours = False
            self._ray.shutdown()


class _Attempt(NamedTuple):
    """A task on its way."""

    task: bytes
    start: float

    @property
    def seconds(self) -> float:
        """Since it was handed to Ray."""
        return time.monotonic() - self.start


def require_ray() -> None:
    """Raises MissingExtra where Ray is not installed."""
    if find_spec("ray") is None:
        raise MissingExtra("engine 'ray' needs the package 'ray'", hint="pip install 'shardmig[ray]'")


def parse_resources(text: str) -> dict[str, float]:
    """What one task occupies, by Ray's names: CPU, GPU, memory (bytes) or a resource of the cluster's own. One CPU unless the
    text says otherwise. Raises UsageError."""
    needs = {"CPU": 1.0}
    for part in filter(None, text.split(",")):
        name, _, amount = part.partition("=")
        try:
            needs[name.strip()] = float(amount)
        except ValueError:
            needs[name.strip()] = math.nan
        if not name.strip() or not 0 <= needs[name.strip()] < math.inf:
            raise UsageError(f"--ray-resources: {part!r} is not NAME=NUMBER", hint="such as CPU=2,memory=500000000")
    return {name: need for name, need in needs.items() if need or name == "CPU"}


def _options(needs: dict[str, float]) -> dict[str, Any]:
    options: dict[str, Any] = {_OWN_OPTIONS[name]: need for name, need in needs.items() if name in _OWN_OPTIONS}
    own = {name: need for name, need in needs.items() if name not in _OWN_OPTIONS}
    return options | ({"resources": own} if own else {})


def connect(ray: Any, address: str, slots: int, needs: dict[str, float]) -> None:
    """Connect, or start a Ray here that has room for the slots; silent, and nothing is told to Ray's maker."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    silent = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **silent)
        else:
            _start(ray, max(1, math.ceil(slots * needs["CPU"])), silent)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"does not answer at {address}" if address else "could not be started here"
        hint = "its own logs are below /tmp/ray/session_latest/logs" if not address else "see --ray-address"
        raise UsageError(f"Ray {where}: {error}", hint=hint) from error
    # Ray prints what it says of a lost worker to standard output, which is the coordinator's. The outcome says it too.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001 - it has no switch for that


def _start(ray: Any, cores: int, silent: dict[str, Any]) -> None:
    """Start a Ray here. Busy cores get a second chance: Ray gives its processes 30 s and raises a bare Exception then.
    Raises RuntimeError when they are too slow again."""
    options = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE_BYTES, **silent}
    for is_last in (False, True):
        try:
            ray.init("local", **options)
        except Exception as error:
            if type(error) is not Exception:
                raise
            ray.shutdown()
            if is_last:
                raise RuntimeError(str(error)) from error
        else:
            return
