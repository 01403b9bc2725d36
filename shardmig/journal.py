"""The journal of a migration: append-only, checksummed, one writer. And the state that it replays to.

The journal is an index and a history: what it says of a run is believed only until the archive or the target is
asked. Each prefix of it, cut at any byte, is a true state.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from shardmig import codec
from shardmig.errors import JournalCorrupt, JournalLocked
from shardmig.records import (
    AttemptEnded,
    AttemptStarted,
    Extended,
    Finished,
    JournalLine,
    MultiplierChosen,
    Phase,
    Plan,
    RunOutcome,
    RunRef,
    Shard,
    ShardId,
    Started,
)


class RunKey(NamedTuple):
    """One version of one run: another fingerprint is another version."""

    project: str
    scope: str
    id: str
    fingerprint: str


def run_key(run: RunRef) -> RunKey:
    """The key that outcomes of a run are kept under."""
    return RunKey(run.project, run.scope, run.id, run.fingerprint)


class State:
    """What a plan and its journal say together. `apply` lines in their order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.shards: dict[ShardId, Shard] = {shard.id: shard for shard in plan.shards}
        self.outcomes: dict[Phase, dict[RunKey, RunOutcome]] = {phase: {} for phase in plan.phases}
        self.attempts: dict[tuple[Phase, ShardId], int] = {}
        self.open: dict[tuple[Phase, ShardId], AttemptStarted] = {}
        self.last_ended: dict[tuple[Phase, ShardId], AttemptEnded] = {}
        self.step_multiplier = plan.load.step_multiplier
        self.executions = 0
        self.finished: Finished | None = None
        self.shards_made = len(plan.shards)

    def apply(self, line: JournalLine) -> None:
        """Take one line into account."""
        if isinstance(line, Started):
            self.executions += 1
            self.open.clear()
            self.finished = None
            if line.looks_again:
                self._forget()
        elif isinstance(line, Extended):
            self._extend(line)
        elif isinstance(line, MultiplierChosen):
            self.step_multiplier = line.step_multiplier
        elif isinstance(line, AttemptStarted):
            self.attempts[line.phase, line.shard] = line.attempt
            self.open[line.phase, line.shard] = line
        elif isinstance(line, AttemptEnded):
            self._end(line)
        else:
            self.finished = line

    def settled(self, phase: Phase, run: RunRef) -> bool:
        """Has this version of the run made it through the phase?"""
        outcome = self.outcomes[phase].get(run_key(run))
        return outcome is not None and outcome.state != "failed"

    def remaining(self, phase: Phase, shard: Shard) -> tuple[RunRef, ...]:
        """Runs of the shard that the phase still has to bring."""
        return tuple(run for run in shard.runs if not self.settled(phase, run))

    def runs(self) -> Iterator[RunRef]:
        """All runs of the plan."""
        for shard in self.shards.values():
            yield from shard.runs

    def _forget(self) -> None:
        """What was written may have been removed since; what was learnt of the source holds while it is the same."""
        for phase, outcomes in self.outcomes.items():
            if phase != "survey":
                outcomes.clear()

    def _extend(self, line: Extended) -> None:
        for shard in line.shards:
            if shard.parent is not None:
                self.shards.pop(shard.parent, None)
            self.shards[shard.id] = shard
        self.shards_made += len(line.shards)

    def _end(self, line: AttemptEnded) -> None:
        self.open.pop((line.phase, line.shard), None)
        self.last_ended[line.phase, line.shard] = line
        if line.result is not None:
            for outcome in line.result.runs:
                self.outcomes[line.phase][run_key(outcome.run)] = outcome


def replay(plan: Plan, path: Path) -> State:
    """The state of a plan after the whole lines of its journal. A torn tail is ignored; readable while it grows."""
    state = State(plan)
    for line, _ in read(path):
        state.apply(line)
    return state


def read(path: Path) -> Iterator[tuple[JournalLine, int]]:
    """The whole lines of a journal, each with the offset behind it; none if there is no journal yet.

    Raises JournalCorrupt for a whole frame that is not a journal line (a newer format, or another file).
    """
    if not path.exists():
        return
    for frame in codec.read_frames(path):
        try:
            line: JournalLine = codec.decode(frame.payload, JournalLine)
        except ValueError as error:
            raise JournalCorrupt(
                f"{path}: the record at byte {frame.start} is not one that this version knows: {error}",
                hint="use the version of shardmig that wrote it",
            ) from error
        yield line, frame.end


class Journal:
    """The one writer. Opening it cuts a torn tail off. Every line is durable when `append` returns."""

    def __init__(self, path: Path) -> None:
        ends = [len(codec.MAGIC) if path.exists() and path.stat().st_size >= len(codec.MAGIC) else 0]
        ends.extend(end for _, end in read(path))
        self._frames = codec.FrameWriter(path, keep_bytes=ends[-1])

    def append(self, line: JournalLine) -> None:
        """Append one line and make it durable."""
        self._frames.append(codec.encode(line))
        self._frames.sync()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._frames.close()


class Lock:
    """An exclusive lock on a file, held by this process until `release`; the death of the process releases it."""

    def __init__(self, path: Path, what: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held for the life of the lock
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise JournalLocked(
                f"{what} is in use by {holder}", hint="wait for it, or watch it with `shardmig status`"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()

    def release(self) -> None:
        """Give the lock back; idempotent."""
        self._file.close()
