"""Streams are read at the same time and handed out one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from shardmig.adapters.neptune3.ahead import ReadAhead
from shardmig.errors import NotFound


def ahead(streams: Sequence[Callable[[], Iterator[int]]], *, width: int = 3, budget: int = 100) -> ReadAhead[int]:
    return ReadAhead(streams, width=width, budget=budget, size=lambda _: 1)


def numbers(first: int, count: int) -> Iterator[int]:
    yield from range(first, first + count)


def test_elements_come_stream_after_stream() -> None:
    streams = [partial(numbers, 100 * place, 20) for place in range(10)]
    expected = [100 * place + number for place in range(10) for number in range(20)]
    assert list(ahead(streams)) == expected
    assert list(ahead(streams, width=10, budget=0)) == expected


def test_no_streams_are_no_elements() -> None:
    assert list(ahead([])) == []


def test_streams_wait_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)

    def slow(place: int) -> Iterator[int]:
        together.wait()
        yield place

    assert list(ahead([partial(slow, place) for place in range(4)], width=4)) == [0, 1, 2, 3]


def test_an_error_comes_at_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 10
        raise NotFound("gone")

    elements = iter(ahead([partial(numbers, 0, 3), broken, partial(numbers, 20, 3)]))
    assert [next(elements) for _ in range(4)] == [0, 1, 2, 10]
    with pytest.raises(NotFound, match="gone"):
        next(elements)


def test_what_is_read_ahead_stays_within_the_budget() -> None:
    taken = 0

    def counted(_: int) -> Iterator[int]:
        nonlocal taken
        for number in range(1_000):
            taken += 1
            yield number

    elements = iter(ahead([partial(counted, place) for place in range(3)], budget=10))
    next(elements)
    time.sleep(0.2)
    assert taken <= 10 + 3 + 2
    elements.close()  # type: ignore[attr-defined]


def test_closing_early_ends_all_threads() -> None:
    before = set(threading.enumerate())
    elements = iter(ahead([partial(numbers, 0, 10_000) for _ in range(5)], budget=5))
    assert next(elements) == 0
    assert set(threading.enumerate()) - before
    elements.close()  # type: ignore[attr-defined]
    assert not set(threading.enumerate()) - before
