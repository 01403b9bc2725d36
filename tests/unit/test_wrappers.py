from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.budget import budget_of
from shardmig.adapters.wrappers import RetryingSource, RetryingTarget, RetryPolicy, resumed, retrying
from shardmig.archive.files import DigestSink
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import BadInput, Fatal, RateLimited, ShardmigError, Transient, Unavailable
from shardmig.records import (
    AdapterSpec,
    ArchivePaths,
    Chunk,
    End,
    FloatPoints,
    Header,
    LoadOptions,
    MigrationId,
    Piece,
    ProjectId,
    RunOutcome,
    RunRef,
    Selection,
    Shard,
    ShardId,
    Task,
)
from shardmig.worker.export import export_shard
from shardmig.worker.tally import ProgressFile
from tests.unit.archive.runs import RUN, floats

QUICK = RetryPolicy(attempts=4, first_pause_s=0.001, longest_pause_s=0.002)
Pages = list[list[int]]
"""Of each page the steps."""


def failing(errors: list[ShardmigError]) -> Callable[[], str]:
    """Raises the errors one after the other, then answers."""

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    return call


def test_a_transient_error_is_tried_again_until_the_call_succeeds() -> None:
    assert retrying(failing([Transient("1"), Unavailable("2"), Transient("3")]), policy=QUICK) == "answer"


def test_after_the_last_attempt_the_error_itself_is_raised() -> None:
    last = Unavailable("4")
    with pytest.raises(Unavailable) as raised:
        retrying(failing([Transient("1"), Transient("2"), Transient("3"), last]), policy=QUICK)
    assert raised.value is last


@pytest.mark.parametrize("error", [BadInput("no"), Fatal("never")])
def test_permanent_and_fatal_errors_pass_at_once(error: ShardmigError) -> None:
    left = [error, Transient("not reached")]
    with pytest.raises(type(error)):
        retrying(failing(left), policy=QUICK)
    assert len(left) == 1


def test_the_pause_that_the_other_side_asks_for_is_waited_in_full() -> None:
    started_s = time.monotonic()
    retrying(failing([RateLimited("slowly", retry_after_s=0.2)]), policy=QUICK)
    assert time.monotonic() - started_s >= 0.2


def test_a_pause_longer_than_the_policy_allows_is_left_to_the_coordinator() -> None:
    with pytest.raises(RateLimited):
        retrying(failing([RateLimited("tomorrow", retry_after_s=3600)]), policy=QUICK)


def test_being_rate_limited_holds_up_everyone_who_shares_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limit = budget_of("wrapped")
    with pytest.raises(RateLimited):
        retrying(
            failing([RateLimited("slowly", retry_after_s=0.2)]),
            policy=RetryPolicy(attempts=1),
            limit=limit,
        )
    started_s = time.monotonic()
    limit.take()
    assert time.monotonic() - started_s >= 0.15


def test_a_stream_that_breaks_is_opened_again_where_it_stood() -> None:
    position = openings = 0

    def rest() -> Iterator[int]:
        nonlocal openings, position
        openings += 1
        for number in range(position, 10):
            if number % 3 == openings % 3:
                raise Transient("cut")
            position += 1
            yield number

    assert list(resumed(rest, policy=QUICK)) == list(range(10))
    assert openings > 1


def test_patience_is_not_multiplied_by_nesting() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise Unavailable("down")

    with pytest.raises(Unavailable):
        retrying(lambda: retrying(call, policy=QUICK), policy=QUICK)
    assert len(calls) == QUICK.attempts


class Cutting:
    """A source, and a target, that cuts its pages at each reading as it is told; every reading but the last breaks."""

    caps = None

    def __init__(self, *readings: Pages) -> None:
        self.readings = list(readings)

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        return iter(())

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        return iter(())

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        for run in runs:
            yield Piece(run, Header(run))
            for page in self.readings.pop(0):
                yield Piece(run, floats("loss", page, page))
            if self.readings:
                raise Unavailable("down")
            yield Piece(run, End())

    def read_run(self, run: object, want: Want, files: FileSink) -> Iterator[Piece]:
        return self.read_runs([RUN], want, files)

    def close(self) -> None:
        pass


def as_source(cutting: Cutting) -> Iterator[Piece]:
    return RetryingSource(cutting, policy=QUICK).read_runs([RUN], Want(), DigestSink())


def as_target(cutting: Cutting) -> Iterator[Piece]:
    target = RetryingTarget(cast("Any", cutting), policy=QUICK)
    return target.read_run(cast("Any", None), Want(), DigestSink())


def steps_of(chunks: Iterable[Chunk]) -> Pages:
    return [[int(step) for step in chunk.steps.to_decimals()] for chunk in chunks if isinstance(chunk, FloatPoints)]


both_sides = pytest.mark.parametrize("read", [as_source, as_target])


@both_sides
def test_what_was_given_before_a_reading_broke_is_not_given_again(read: Callable[[Cutting], Iterator[Piece]]) -> None:
    cutting = Cutting([[1, 2]], [[1, 2], [3]], [[1, 2]], [[1, 2], [3], [4]])
    assert steps_of(piece.chunk for piece in read(cutting)) == [[1, 2], [3], [4]]


@both_sides
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([[1, 2]], [[1], [2], [3]]),
        ([[1], [2]], [[1, 2], [3]]),
        ([[1], [2]], [[1, 2]]),
        ([[1], [2], [3]], [[1, 2, 3]]),
        ([[1, 2]], [[0, 1, 2], [3]]),
    ],
)
def test_a_reading_that_is_cut_otherwise_than_the_one_that_broke_is_given_up(
    read: Callable[[Cutting], Iterator[Piece]], first: Pages, second: Pages
) -> None:
    """To skip as many pages as were given would double points, or lose them."""
    cutting = Cutting(first, second)
    given: list[Piece] = []
    with pytest.raises(Unavailable, match="changed while it was read") as raised:
        given.extend(read(cutting))
    assert raised.value.run == RUN.label
    assert steps_of(piece.chunk for piece in given) == first


def test_a_run_that_is_cut_otherwise_is_exported_anew_by_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RetryingSource(Cutting([[1, 2]], [[1], [2], [3]], [[1], [2], [3]]), policy=QUICK)
    monkeypatch.setattr("shardmig.worker.export.open_source", lambda spec: source)
    archive = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    task = Task(
        migration=MigrationId("m1"),
        phase="export",
        shard=Shard(id=ShardId("s1"), scope="runs", runs=(RUN,)),
        attempt=1,
        source=AdapterSpec("cutting", {}),
        archive=archive,
        target=None,
        selection=Selection(),
        load=LoadOptions(),
        spool=str(tmp_path),
        log="",
        progress="",
    )
    outcomes: list[RunOutcome] = []
    for _ in range(2):
        export_shard(task, ProgressFile(tmp_path / "progress"), outcomes.append)
    assert [(one.state, one.failure and one.failure.disposition) for one in outcomes] == [
        ("failed", "transient"),
        ("done", None),
    ]
    chunks = [piece.chunk for piece in ArchiveReader(archive).read(RUN, Want())]
    assert list(chain.from_iterable(steps_of(chunks))) == [1, 2, 3]
