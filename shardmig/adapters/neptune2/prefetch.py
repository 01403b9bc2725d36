"""Calls made by a pool, ahead of need and within bounds, their results taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from typing import TypeVar

T = TypeVar("T")


def in_order(pool: Executor, calls: Iterable[Callable[[], T]], ahead: int) -> Generator[T, None, None]:
    """The results of `calls` in their order; at most `ahead` are under way or waiting to be taken. Raises what a call
    raises, when its turn comes. Closing it waits for the calls that are being made and makes no more."""
    pending: deque[Future[T]] = deque()
    try:
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        wait(pending)
