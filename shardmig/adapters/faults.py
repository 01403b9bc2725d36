"""Fault injection: wrappers that fail by plan, with the interface of what they wrap.

Tests of everything above an adapter use them instead of patching: a planned, repeatable sequence of transient,
permanent and fatal errors, or the death of the process.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import msgspec

from shardmig.adapters.base import Capabilities, FileSink, FileStore, Fitted, ReadSide, Want, WriteSide, Written
from shardmig.errors import BadInput, Fatal, RateLimited, Transient
from shardmig.records import (
    Chunk,
    Field,
    FieldType,
    FileRef,
    MigrationKey,
    Piece,
    ProjectId,
    RunRef,
    Selection,
    TargetRun,
    TargetRunId,
)

T = TypeVar("T")

Fault = Literal["transient", "rate-limited", "permanent", "fatal", "kill"]


class FaultPlan(msgspec.Struct, frozen=True):
    """Which step fails how. Steps are counted from 1 over everything that passes a faulty wrapper: calls (before and
    after, as when an answer is lost), pieces, chunks and files; of `places` only, where it is not empty: names of
    methods, "chunk" for those taken by write_run, "put" and "put_tree"."""

    faults: Mapping[int, Fault]
    places: tuple[str, ...] = ()

    @classmethod
    def seeded(cls, seed: int, *, rate: float, steps: int, kinds: Sequence[Fault] = ("transient",)) -> FaultPlan:
        """About rate * steps faults among the first `steps` steps, always the same ones for one seed."""
        dice = random.Random(seed)  # noqa: S311 (must be repeatable)
        return cls({step: dice.choice(kinds) for step in range(1, steps + 1) if dice.random() < rate})


class _Steps:
    """Counts steps and carries out the plan. `taken` is the number of steps so far."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self.taken = 0

    def step(self, place: str) -> None:
        if self._plan.places and place not in self._plan.places:
            return
        with self._lock:
            self.taken += 1
            number = self.taken
        fault = self._plan.faults.get(number)
        message = f"planned fault at step {number} ({place})"
        match fault:
            case "transient":
                raise Transient(message)
            case "rate-limited":
                raise RateLimited(message, retry_after_s=0.01)
            case "permanent":
                raise BadInput(message)
            case "fatal":
                raise Fatal(message)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case None:
                pass

    def around(self, place: str, call: Callable[[], T]) -> T:
        self.step(place)
        answer = call()
        self.step(place)
        return answer

    def along(self, place: str, stream: Iterable[T]) -> Iterator[T]:
        for element in stream:
            self.step(place)
            yield element


class _FaultySink:
    """A FileSink whose calls are steps."""

    def __init__(self, files: FileSink, steps: _Steps) -> None:
        self._files = files
        self._steps = steps

    def put(
        self,
        run: RunRef,
        path: str,
        field_type: FieldType,
        content: BinaryIO | Path,
        *,
        name: str,
        step: Decimal | None = None,
        time_ms: int | None = None,
    ) -> FileRef:
        return self._steps.around(
            "put", lambda: self._files.put(run, path, field_type, content, name=name, step=step, time_ms=time_ms)
        )

    def put_tree(
        self, run: RunRef, path: str, field_type: FieldType, members: Iterable[tuple[str, BinaryIO | Path]]
    ) -> FileRef:
        return self._steps.around("put_tree", lambda: self._files.put_tree(run, path, field_type, members))


class FaultySource:
    """A ReadSide that fails by plan: for tests of everything that stands above it."""

    def __init__(self, source: ReadSide, plan: FaultPlan) -> None:
        self._source = source
        self.steps = _Steps(plan)

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """As ReadSide, a step each."""
        return self.steps.along("list_projects", self._source.list_projects(selection))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide, a step each."""
        return self.steps.along("list_runs", self._source.list_runs(project, selection))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """As ReadSide, a step for each piece and two for each file."""
        return self.steps.along("read_runs", self._source.read_runs(runs, want, _FaultySink(files, self.steps)))

    def close(self) -> None:
        """As ReadSide; never fails."""
        self._source.close()


class FaultyTarget:
    """A WriteSide that fails by plan: for tests of everything that stands above it."""

    def __init__(self, target: WriteSide, plan: FaultPlan) -> None:
        self._target = target
        self.steps = _Steps(plan)
        self.caps: Capabilities = target.caps

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide; never fails by plan."""
        return self._target.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide, two steps."""
        return self.steps.around("find_run", lambda: self._target.find_run(key))

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """As WriteSide, two steps and one for each chunk taken."""
        faulty_chunks = self.steps.along("chunk", chunks)
        return self.steps.around("write_run", lambda: self._target.write_run(key, digest, faulty_chunks, files, parent))

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide, two steps."""
        self.steps.around("discard_run", lambda: self._target.discard_run(run))

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide, a step for each piece."""
        return self.steps.along("read_run", self._target.read_run(run, want, files))

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """As WriteSide; never fails by plan."""
        return self._target.expected_facts(run, fields, parent, last_point_ms)

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide, two steps."""
        return self.steps.around("read_facts", lambda: self._target.read_facts(run))

    def close(self) -> None:
        """As WriteSide; never fails."""
        self._target.close()
