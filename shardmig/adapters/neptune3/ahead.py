"""Reading several streams at a time, handing out one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """The elements of `streams`, stream after stream, in order; up to `width` streams are read at a time, in threads.

    What is read ahead is held: at most `budget` of it by `size`, and one element of each stream. An error of a
    stream is raised at its place, after what the stream gave before.
    """

    def __init__(
        self, streams: Sequence[Callable[[], Iterator[T]]], *, width: int, budget: int, size: Callable[[T], int]
    ) -> None:
        self._streams = streams
        self._width = width
        self._budget = budget
        self._size = size
        self._held = 0
        self._current = 0
        self._is_closed = False
        self._queues: list[deque[T]] = [deque() for _ in streams]
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[T]:
        threads = ThreadPoolExecutor(self._width, thread_name_prefix="neptune3-run")
        try:
            futures = [threads.submit(self._read, place) for place in range(len(self._streams))]
            for place, future in enumerate(futures):
                with self._changed:
                    self._current = place
                    self._changed.notify_all()
                future.add_done_callback(self._wake)
                yield from self._elements(place, future)
                future.result()
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()
            threads.shutdown(cancel_futures=True)

    def _elements(self, place: int, future: Future[None]) -> Iterator[T]:
        queue = self._queues[place]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: queue or future.done())
                if not queue:
                    return
                element = queue.popleft()
                self._held -= self._size(element)
                self._changed.notify_all()
            yield element

    def _read(self, place: int) -> None:
        queue = self._queues[place]
        for element in self._streams[place]():
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or self._held < self._budget or (place == self._current and not queue)
                )
                if self._is_closed:
                    return
                queue.append(element)
                self._held += self._size(element)
                self._changed.notify_all()

    def _wake(self, _: Future[None]) -> None:
        with self._changed:
            self._changed.notify_all()
