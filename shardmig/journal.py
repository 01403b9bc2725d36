"""The journal of a migration: append-only, checksummed, one writer. And the state that it replays to.

The journal is an index and a history: what it says of a run is believed only until the archive or the target is
asked. Each prefix of it, cut at any byte, is a true state.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from msgspec.structs import force_setattr, replace

from shardmig import codec
from shardmig.errors import JournalCorrupt, JournalLocked
from shardmig.records import (
    AttemptEnded,
    AttemptStarted,
    Compacted,
    Extended,
    Failure,
    Finding,
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
    TargetRunId,
    TaskResult,
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


_FEW_LINES: Final = 1000
_NO_FINDINGS: Final[list[Finding]] = []


class _Known(NamedTuple):
    key: RunKey
    run: RunRef


class LastEnd(NamedTuple):
    """How the last attempt of a shard in a phase ended: when it was begun and ended, and why it reached no end of its
    own."""

    started_ms: int | None
    ended_ms: int
    failure: Failure | None


class State:
    """What a plan and its journal say together. `apply` lines in their order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.shards: dict[ShardId, Shard] = {}
        self._known: dict[RunKey, _Known] = {}
        self._parents: set[tuple[str, str]] = set()
        self._target_ids: dict[tuple[str, str], TargetRunId] = {}
        self._same: dict[object, object] = {}
        self.outcomes: dict[Phase, dict[RunKey, RunOutcome]] = {phase: {} for phase in plan.phases}
        self.attempts: dict[tuple[Phase, ShardId], int] = {}
        self.open: dict[tuple[Phase, ShardId], AttemptStarted] = {}
        self.last_ended: dict[tuple[Phase, ShardId], LastEnd] = {}
        self.step_multiplier = plan.load.step_multiplier
        self.refused = plan.refused
        self.gone: list[RunRef] = []
        self.listed_ms = plan.created_ms
        self.executions = 0
        self.finished: Finished | None = None
        self.shards_made = 0
        self._told = 0
        self._add(plan.shards)

    def apply(self, line: JournalLine) -> None:
        """Take one line into account."""
        self._told += 1
        if isinstance(line, Started):
            self.executions += 1
            self.open.clear()
            self.finished = None
            self.gone = []
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
        elif isinstance(line, Compacted):
            self.executions, self.shards_made = line.executions, line.shards_made
            self.attempts = {(phase, shard): attempt for phase, shard, attempt in line.attempts}
            for gone in line.gone:
                self.shards.pop(gone, None)
            if line.gone:
                held = set(map(run_key, self.runs()))
                self._known = {key: known for key, known in self._known.items() if key in held}
        else:
            self.finished = line

    @property
    def is_wordy(self) -> bool:
        """Is most of what the journal tells no longer true, or told twice?"""
        worth_telling = sum(map(len, self.outcomes.values())) + 2 * len(self.attempts)
        return self._told > 2 * worth_telling + _FEW_LINES

    def lines(self) -> Iterator[JournalLine]:
        """The shortest journal that a plan replays to this state."""
        frozen = {shard.id: shard for shard in self.plan.shards}
        beyond = [shard for shard in self.shards.values() if frozen.get(shard.id) != shard]
        yield Extended(self.listed_ms, beyond, self.refused)
        yield Compacted(
            self.executions,
            self.shards_made,
            [(phase, shard, tried) for (phase, shard), tried in self.attempts.items()],
            [shard for shard in frozen if shard not in self.shards],
        )
        if self.step_multiplier != self.plan.load.step_multiplier:
            yield MultiplierChosen(0, self.step_multiplier)
        for phase, outcomes in self.outcomes.items():
            for shard in self.shards.values():
                runs = [outcome for run in shard.runs if (outcome := outcomes.get(run_key(run))) is not None]
                ended = self.last_ended.get((phase, shard.id))
                if runs or ended is not None:
                    yield _told_again(phase, shard.id, runs, ended)
        yield from self.open.values()
        if self.finished is not None:
            yield self.finished

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

    def planned(self, run: RunRef) -> RunKey | None:
        """The key of this version of a run, if the plan has it."""
        known = self._known.get(run_key(run))
        return known.key if known is not None else None

    def loaded_as(self, parent: RunRef) -> TargetRunId | None:
        """What the parent of a planned run is in the target, if this migration loaded it."""
        return self._target_ids.get((parent.project, parent.id))

    def _forget(self) -> None:
        """What was written may have been removed since; what was learnt of the source holds while it is the same."""
        self._target_ids.clear()
        for phase, outcomes in self.outcomes.items():
            if phase != "survey":
                outcomes.clear()

    def _extend(self, line: Extended) -> None:
        if line.refused is not None:
            self.refused, self.listed_ms = line.refused, line.at_ms
        for shard in line.shards:
            if shard.parent is not None and self.shards.pop(shard.parent, None) is not None:
                self._forget_ends(shard.parent)
        self._add(line.shards)
        if line.gone:
            self._drop(line.gone)

    def _forget_ends(self, shard: ShardId) -> None:
        for phase in self.plan.phases:
            self.open.pop((phase, shard), None)
            self.last_ended.pop((phase, shard), None)

    def _drop(self, gone: Sequence[RunRef]) -> None:
        """Runs of the plan that are not of it any more."""
        self.gone = list(gone)
        keys = set(map(run_key, gone))
        for shard in list(self.shards.values()):
            runs = tuple(run for run in shard.runs if run_key(run) not in keys)
            if not runs:
                del self.shards[shard.id]
                self._forget_ends(shard.id)
            elif runs != shard.runs:
                self.shards[shard.id] = replace(shard, runs=runs)
        for key in keys:
            self._known.pop(key, None)
            for outcomes in self.outcomes.values():
                outcomes.pop(key, None)

    def _add(self, shards: Sequence[Shard]) -> None:
        self.shards_made += len(shards)
        for shard in shards:
            if (before := self.shards.get(shard.id)) is not None:
                for run in before.runs:
                    self._known.pop(run_key(run), None)
            self.shards[shard.id] = shard
            for run in shard.runs:
                key = run_key(run)
                self._known.setdefault(key, _Known(key, run))
                if (parent := run.parent_ref) is not None:
                    self._parents.add((parent.project, parent.id))

    def _end(self, line: AttemptEnded) -> None:
        self.open.pop((line.phase, line.shard), None)
        started_ms = line.result.started_ms or None if line.result is not None else None
        failure = line.failure or (line.result.failure if line.result is not None else None)
        if line.attempt:
            self.last_ended[line.phase, line.shard] = LastEnd(started_ms, line.at_ms, failure)
        if line.result is not None:
            self._told += len(line.result.runs)
            for outcome in line.result.runs:
                self._settle(line.phase, outcome)

    def _settle(self, phase: Phase, outcome: RunOutcome) -> None:
        """Keep an outcome, with what it has in common with others kept once: there may be hundreds of thousands."""
        key = run_key(outcome.run)
        if (known := self._known.get(key)) is not None:
            key = known.key
            force_setattr(outcome, "run", known.run)
        for name in ("counters", "steps"):
            value = getattr(outcome, name)
            force_setattr(outcome, name, self._same.setdefault(value, value))
        if outcome.digest == outcome.run.fingerprint:
            force_setattr(outcome, "digest", outcome.run.fingerprint)
        for name in ("findings", "differences"):
            if not getattr(outcome, name):
                force_setattr(outcome, name, _NO_FINDINGS)
        self.outcomes[phase][key] = outcome
        named = (outcome.run.project, outcome.run.id)
        if outcome.target_id is not None and named in self._parents:
            self._target_ids[named] = outcome.target_id


def _told_again(phase: Phase, shard: ShardId, runs: list[RunOutcome], ended: LastEnd | None) -> AttemptEnded:
    """Attempt 0: outcomes that the shard's runs had before it was cut from another one."""
    attempt = 0 if ended is None else 1
    ended = ended or LastEnd(None, 0, None)
    result = TaskResult(shard=shard, phase=phase, attempt=attempt, runs=runs, started_ms=ended.started_ms or 0)
    return AttemptEnded(ended.ended_ms, result, phase, shard, attempt, ended.failure)


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
        end = len(codec.MAGIC) if path.exists() and path.stat().st_size >= len(codec.MAGIC) else 0
        for frame in codec.read_frames(path) if path.exists() else ():
            end = frame.end
        self._frames = codec.FrameWriter(path, keep_bytes=end)

    def append(self, line: JournalLine) -> None:
        """Append one line and make it durable."""
        self._frames.append(codec.encode(line))
        self._frames.sync()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._frames.close()


def compact(path: Path, state: State) -> None:
    """Replace the journal that led to a state by a shorter one that leads to it. At every instant `path` is one or the
    other, whole. Only for the one writer."""
    scratch = path.with_suffix(".tmp")
    writer = codec.FrameWriter(scratch)
    for line in state.lines():
        writer.append(codec.encode(line))
    writer.sync()
    writer.close()
    codec.replace_durably(scratch, path)


class Lock:
    """A lock on a file, held by this process until `release`; the death of the process releases it. Those that are
    shared exclude the others only."""

    def __init__(self, path: Path, what: str, *, is_shared: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held for the life of the lock
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
