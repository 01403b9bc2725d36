"""The points of an experiment in the order of an archive.

The API answers with all series of a window of steps at once, as JSON. So the windows are read one after the other, as wide
as the points are sparse, and every series is put down on disk piece by piece; then each can be given whole. Memory: one
window, and an answer that grows too long is given up for narrower ones. An answer may be an even sample of what is there
(charts ask for that, and nobody says when it happens by itself): the points that came are compared with the server's own
count, and where they are fewer the windows are halved until what comes cannot be a sample.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Final, NamedTuple

import numpy as np
import pyarrow as pa

from shardmig.adapters.litlogger.answers import Stream, Summary, Value
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.archive.layout import disk_errors
from shardmig.errors import BadInput
from shardmig.records import NO_TIME, Int64s

VALUES_AT_ONCE: Final = 50_000
MOST_BYTES: Final = 1200 * VALUES_AT_ONCE
"""Of an answer to more than one step."""

Answer = dict[str, list[Value]]


class _Place(NamedTuple):
    offset: int
    rows: int


class Histories:
    """All points of one experiment. Read once, at the first question. `short`: how many points of a series the server
    counts and did not give."""

    def __init__(
        self, cloud: Cloud, stream: Stream, summaries: dict[str, Summary], *, values_at_once: int = VALUES_AT_ONCE
    ) -> None:
        self._cloud = cloud
        self._stream = stream
        self._summaries = summaries
        self._values_at_once = values_at_once
        self._file: IO[bytes] | None = None
        self._places: dict[str, list[_Place]] = {}
        self._longest = 0
        self.short: dict[str, int] = {}

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As HeldRun. Raises DiskFull."""
        if self._file is None:
            self._read()
        waiting: list[tuple[str, NativePoints]] = []
        for key in keys:
            for part in self._parts(key, rows):
                if waiting and (waiting[-1][0] == key or sum(map(_rows, waiting)) + len(part.steps) > rows):
                    yield _metrics(waiting)
                    waiting = []
                waiting.append((key, part))
        if waiting:
            yield _metrics(waiting)

    def close(self) -> None:
        """Give the space back; idempotent."""
        if self._file is not None:
            self._file.close()

    def _read(self) -> None:
        held = self._summaries.values()
        steps = [step for one in held for step in (one.min_step, one.max_step, one.last_step)]
        low, high = min(steps, default=0), max(steps, default=0)
        for answers in (self._windows(low, high), self._halved(None, None, low, high)):
            self.close()
            self._file = tempfile.TemporaryFile(prefix="shardmig-")  # noqa: SIM115 (closed by close)
            self._places = {}
            for answer in answers:
                for key, values in answer.items():
                    self._put_down(key, _in_order(values))
            counts = {key: sum(place.rows for place in places) for key, places in self._places.items()}
            missing = {key: held.num_values - counts.get(key, 0) for key, held in self._summaries.items()}
            self.short = {key: count for key, count in missing.items() if count > 0}
            if not self.short:
                return

    def _windows(self, low: int, high: int) -> Iterator[Answer]:
        """The answers for windows of steps, ascending; the first and the last are open, so nothing lies outside."""
        total = sum(one.num_values for one in self._summaries.values())
        width = max(1, (high - low + 1) * self._values_at_once // max(1, total))
        start: int | None = None
        while True:
            is_last = low + width > high
            answer = self._cloud.values(
                self._stream, start, None if is_last else low + width - 1, MOST_BYTES if width > 1 else None
            )
            if answer is None:
                width = max(1, width // 16)
                continue
            self._longest = max(self._longest, *map(len, answer.values()), 0)
            yield answer
            if is_last:
                return
            low = start = low + width
            width = max(1, min(4 * width, width * self._values_at_once // max(1, _count(answer))))

    def _halved(self, start: int | None, end: int | None, low: int, high: int) -> Iterator[Answer]:
        """The answers from `start` to `end` (None: open), all of whose points lie from `low` to `high`; halved until no series
        has half as many points in one as the longest had before. An even sample never has fewer."""
        answer = self._cloud.values(self._stream, start, end, MOST_BYTES if low < high else None)
        longest = max(map(len, answer.values()), default=0) if answer is not None else self._longest
        if answer is not None and (low == high or 2 * longest < self._longest):
            yield answer
        else:
            middle = (low + high) // 2
            yield from self._halved(start, middle, low, middle)
            yield from self._halved(middle + 1, end, middle + 1, high)

    def _put_down(self, key: str, points: NativePoints) -> None:
        assert self._file is not None
        with disk_errors("points on their way"):
            place = _Place(self._file.tell(), len(points.steps))
            for column in points:
                self._file.write(np.ascontiguousarray(column).tobytes())
        self._places.setdefault(key, []).append(place)

    def _parts(self, key: str, rows: int) -> Iterator[NativePoints]:
        """The points of one series, about `rows` at a time, cut at the ends of steps only."""
        assert self._file is not None
        self._file.flush()
        for place in self._places.get(key, []):
            raw = os.pread(self._file.fileno(), 24 * place.rows, place.offset)
            steps, times_ms = np.frombuffer(raw[: 16 * place.rows], np.int64).reshape(2, place.rows)
            whole = NativePoints(steps, times_ms, np.frombuffer(raw[16 * place.rows :], np.float64))
            start = 0
            while start < place.rows:
                stop = min(start + rows, place.rows)
                stop = int(np.searchsorted(steps, steps[stop - 1], side="right"))
                yield whole.part(slice(start, stop))
                start = stop


def _count(answer: Answer) -> int:
    return sum(map(len, answer.values()))


def times_of(texts: Sequence[str | None]) -> Int64s:
    """Times of the API in ms; None and an empty text are no time."""
    column = pa.array([text or None for text in texts], pa.string())
    try:
        unit, parsed = 1_000, column.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # a server that writes nanoseconds
        try:
            unit, parsed = 1_000_000, column.cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid as error:
            raise BadInput(f"Lightning gives a time that is none: {error}") from error
    known = np.asarray(parsed.is_valid())
    ticks = parsed.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return np.where(known, ticks // unit, NO_TIME)


def _in_order(values: list[Value]) -> NativePoints:
    """The points of one series in a window by (step, time, value)."""
    steps = np.array([int(value.step) for value in values], np.int64)
    times_ms = times_of([value.created_at for value in values])
    numbers = np.array([float(value.value) for value in values], np.float64)
    order = np.lexsort((numbers, times_ms, steps))
    return NativePoints(steps[order], times_ms[order], numbers[order])


def _rows(one: tuple[str, NativePoints]) -> int:
    return len(one[1].steps)


def _metrics(parts: list[tuple[str, NativePoints]]) -> Metrics:
    columns = [np.concatenate(column) for column in zip(*(points for _, points in parts), strict=True)]
    return Metrics([key for key, _ in parts], np.array(list(map(_rows, parts)), np.int64), *columns)
