from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardmig.adapters.budget import budget_of
from shardmig.adapters.wrappers import RetryPolicy, resumed, retrying
from shardmig.errors import BadInput, Fatal, RateLimited, ShardmigError, Transient, Unavailable

QUICK = RetryPolicy(attempts=4, first_pause_s=0.001, longest_pause_s=0.002)


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
