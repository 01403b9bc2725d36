"""Retry and rate limit, for single calls and as wrappers with the interface of what they wrap.

The class of an error decides: `Transient` is tried again with growing pauses, everything else passes at once. This
is the only place that retries a call; the coordinator retries shards. Knows no system.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

import msgspec
import tenacity

from shardmig.adapters.base import (
    Capabilities,
    Expecting,
    FileSink,
    FileStore,
    Fitted,
    Grouping,
    ReadSide,
    ToWrite,
    Want,
    WriteSide,
    Written,
)
from shardmig.adapters.budget import LONGEST_PAUSE_S, Budget
from shardmig.codec import encode
from shardmig.errors import AdapterError, RateLimited, Transient, Unavailable
from shardmig.records import (
    Chunk,
    End,
    Entity,
    Field,
    Header,
    MigrationKey,
    Piece,
    ProjectId,
    RunId,
    RunRef,
    Scope,
    Selection,
    TargetRun,
    TargetRunId,
)

T = TypeVar("T")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently one call is tried.

    The pause after attempt n is between half and all of first_pause_s * 2**(n - 1), at most longest_pause_s. What the
    other side asks for (RateLimited.retry_after_s) is waited in full; if that is more than longest_wait_s the error
    passes: the shard is tried again later, and no worker sleeps that long.
    """

    attempts: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    longest_wait_s: float = LONGEST_PAUSE_S


PATIENT: Final = RetryPolicy()


def retrying(call: Callable[[], T], *, policy: RetryPolicy = PATIENT, limit: Budget | None = None) -> T:
    """The result of `call`, tried again after each Transient as `policy` says. For single idempotent calls.

    Every attempt takes a turn from the budget `limit`, and a RateLimited pauses everyone who shares it. Raises the last error
    itself, never a wrapper of it. A `retrying` around another one adds no attempts to those of the inner one.
    """

    def attempt() -> T:
        if limit is not None:
            limit.take()
        try:
            return call()
        except RateLimited as error:
            if limit is not None and error.retry_after_s:
                limit.pause(error.retry_after_s)
            raise

    failed: list[Transient] = []
    try:
        return attempt()  # the machinery of retrying costs more than many a call
    except Transient as error:
        failed.append(error)

    def attempt_again() -> T:
        if failed:
            raise failed.pop()
        return attempt()

    retry = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=lambda state: _pause_s(state, policy),
        retry=tenacity.retry_if_exception(lambda error: _worth_retrying(error, policy)),
        reraise=True,
    )
    try:
        return retry(attempt_again)
    except Transient as error:
        error.patience_spent = True
        raise


def _worth_retrying(error: BaseException, policy: RetryPolicy) -> bool:
    if isinstance(error, RateLimited) and (error.retry_after_s or 0) > policy.longest_wait_s:
        return False
    return isinstance(error, Transient) and not error.patience_spent


def _pause_s(state: tenacity.RetryCallState, policy: RetryPolicy) -> float:
    pause_s = min(policy.first_pause_s * 2.0 ** (state.attempt_number - 1), policy.longest_pause_s)
    pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 (spreads callers, guards nothing)
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, RateLimited) else None
    return pause_s if asked_s is None else asked_s + pause_s / 10


def retry_after_s(text: str | None) -> float | None:
    """How long the header Retry-After asks to wait: whole seconds, or until a date. None: it does not say."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def resumed(open_stream: Callable[[], Iterator[T]], *, policy: RetryPolicy, limit: Budget | None = None) -> Iterator[T]:
    """The elements of a stream that is opened again after a Transient. `open_stream` must go on behind what was
    already given out. Attempts are counted from the last element: progress renews patience."""
    stream: Iterator[T] | None = None

    def step() -> T | None:
        nonlocal stream
        try:
            stream = open_stream() if stream is None else stream
            return next(stream, None)
        except Transient:
            stream = None
            raise

    while (element := retrying(step, policy=policy, limit=limit)) is not None:
        yield element


class _Given(NamedTuple):
    """The pieces of a run that were given out: how many, and one digest of them all in their order."""

    pieces: int = 0
    digest: bytes = b""

    def plus(self, chunk: Chunk) -> _Given:
        if isinstance(chunk, Header):  # holds no content, and begins a resumed run once more
            return _Given(self.pieces + 1, self.digest)
        return _Given(self.pieces + 1, blake2b(_content(chunk), key=self.digest, digest_size=16).digest())


_NONE: Final = _Given()
_HEADER: Final = _Given(1)


class _Once:
    """Gives the pieces of runs once, however often their reading begins anew. `resumes`: behind a piece with a cursor it
    begins with the Header, and goes on with what was not given yet."""

    def __init__(self, *, resumes: bool) -> None:
        self._resumes = resumes
        self._given: dict[Entity, _Given] = {}

    def unseen(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Those of a reading that were not given yet. Raises Unavailable where it is not the one that broke: whoever
        writes to the run may change where its pages are cut, and to skip by number would double or lose points."""
        again: dict[Entity, _Given] = {}
        for piece in pieces:
            run = piece.run.entity
            given, skipped = self._given.get(run, _NONE), again.get(run, _NONE)
            if skipped.pieces < given.pieces:
                again[run] = skipped = skipped.plus(piece.chunk)
                is_over = skipped.pieces == given.pieces or isinstance(piece.chunk, End)
                if is_over and skipped.digest != given.digest:
                    raise _changed(piece.run)
                continue
            given = _HEADER if self._resumes and piece.cursor else given.plus(piece.chunk)
            again[run] = self._given[run] = given
            yield piece


def _content(chunk: Chunk) -> bytes:
    try:
        return encode(chunk)
    except UnicodeEncodeError:  # whoever keeps the chunk refuses it by its name
        return b""


def _changed(run: RunRef) -> Unavailable:
    """Reading on is no use: the next attempt of the shard begins this run anew, and forgets what it kept of it."""
    error = Unavailable("the run changed while it was read", run=run.label)
    error.patience_spent = True
    return error


class _Unread:
    """What is still to be read of some runs, as their pieces go by."""

    def __init__(self, runs: Iterable[RunRef], want: Want) -> None:
        self._runs = {run.entity: run for run in runs}
        self._want = want
        self._cursors: dict[RunId, bytes] = dict(want.cursors)
        self._once = _Once(resumes=True)

    def open(self, read: Callable[[Iterable[RunRef], Want], Iterator[Piece]]) -> Iterator[Piece]:
        """Pieces not given yet: behind the newest cursor, and without what was given since then."""
        want = msgspec.structs.replace(self._want, cursors=self._cursors)
        for piece in self._once.unseen(read(tuple(self._runs.values()), want)):
            self._see(piece)
            yield piece

    def _see(self, piece: Piece) -> None:
        if isinstance(piece.chunk, End):
            del self._runs[piece.run.entity]
        if piece.cursor:
            self._cursors[piece.run.id] = piece.cursor


class RetryingSource:
    """A ReadSide whose calls and streams survive Transient errors. Each piece is given out once."""

    def __init__(self, source: ReadSide, *, policy: RetryPolicy = PATIENT, limit: Budget | None = None) -> None:
        self._source = source
        self._policy = policy
        self._limit = limit

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """As ReadSide."""
        return self._each_once(lambda: self._source.list_projects(selection))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide."""
        return self._each_once(lambda: self._source.list_runs(project, selection))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """As ReadSide; goes on behind the last cursor, or skips what was read where the source has no cursors."""
        unread = _Unread(runs, want)
        read = self._source.read_runs
        return resumed(
            lambda: unread.open(lambda left, wanted: read(left, wanted, files)), policy=self._policy, limit=self._limit
        )

    def close(self) -> None:
        """As ReadSide."""
        self._source.close()

    def _each_once(self, listing: Callable[[], Iterator[T]]) -> Iterator[T]:
        seen: set[T] = set()

        def unseen() -> Iterator[T]:
            for element in listing():
                if element not in seen:
                    seen.add(element)
                    yield element

        return resumed(unseen, policy=self._policy, limit=self._limit)


class RetryingTarget:
    """A WriteSide whose calls survive Transient errors.

    `write_run` passes through: its chunks can be taken only once, so the adapter retries single calls inside it
    with `retrying`, and the coordinator retries the shard.
    """

    def __init__(self, target: WriteSide, *, policy: RetryPolicy = PATIENT, limit: Budget | None = None) -> None:
        self._target = target
        self._policy = policy
        self._limit = limit
        self.caps: Capabilities = target.caps

    @property
    def grouped(self) -> frozenset[Scope]:
        """As Grouping; none where the target writes nothing together."""
        return self._target.grouped if isinstance(self._target, Grouping) else frozenset()

    def write_together(self, runs: Sequence[ToWrite]) -> list[Written | AdapterError]:
        """As Grouping, for scopes of `grouped` only."""
        assert isinstance(self._target, Grouping)
        return self._target.write_together(runs)

    def expect(self, runs: Sequence[RunRef]) -> None:
        """As Expecting, where the target is."""
        if isinstance(self._target, Expecting):
            self._target.expect(runs)

    def fit(self, chunk: Chunk) -> Fitted:
        """As WriteSide."""
        return self._target.fit(chunk)

    def find_run(self, key: MigrationKey) -> TargetRun | None:
        """As WriteSide."""
        return retrying(lambda: self._target.find_run(key), policy=self._policy, limit=self._limit)

    def write_run(
        self, key: MigrationKey, digest: str, chunks: Iterator[Chunk], files: FileStore, parent: TargetRunId | None
    ) -> Written:
        """As WriteSide."""
        return self._target.write_run(key, digest, chunks, files, parent)

    def discard_run(self, run: TargetRun) -> None:
        """As WriteSide."""
        retrying(lambda: self._target.discard_run(run), policy=self._policy, limit=self._limit)

    def read_run(self, run: TargetRun, want: Want, files: FileSink) -> Iterator[Piece]:
        """As WriteSide; a reading that broke is resumed as by RetryingSource."""
        once = _Once(resumes=False)
        read = self._target.read_run
        return resumed(lambda: once.unseen(read(run, want, files)), policy=self._policy, limit=self._limit)

    def expected_facts(
        self, run: RunRef, fields: Iterable[Field], parent: TargetRunId | None, last_point_ms: int | None
    ) -> dict[str, str]:
        """As WriteSide."""
        return self._target.expected_facts(run, fields, parent, last_point_ms)

    def read_facts(self, run: TargetRun) -> dict[str, str]:
        """As WriteSide."""
        return retrying(lambda: self._target.read_facts(run), policy=self._policy, limit=self._limit)

    def close(self) -> None:
        """As WriteSide."""
        self._target.close()
