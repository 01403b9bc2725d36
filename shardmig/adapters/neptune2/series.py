"""Points: pages of a series, fetched side by side, into chunks that do not depend on how the server cuts its pages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from shardmig.adapters.neptune2.connection import Connection
from shardmig.adapters.neptune2.prefetch import in_order
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import BadInput, StepConflict
from shardmig.records import MAX_STEP_SCALE, Float64s, FloatPoints, Int64s, Points, Steps, StringPoints, Texts
from shardmig.steps import from_floats

PAGE: Final = 1000
"""Rows of a page: what the client asks for."""

_INT64_END: Final = 2.0**63
_FINEST: Final = Decimal(1).scaleb(-MAX_STEP_SCALE)
_TEXT_BYTES: Final = 16_000_000
"""Of one chunk."""


class _FloatPoint(msgspec.Struct, rename="camel", gc=False):
    timestamp_millis: int
    step: float
    value: float | str


class _TextPoint(msgspec.Struct, rename="camel", gc=False):
    timestamp_millis: int
    step: float
    value: str


class _FloatReply(msgspec.Struct, rename="camel"):
    total_item_count: int
    values: list[_FloatPoint]


class _TextReply(msgspec.Struct, rename="camel"):
    total_item_count: int
    values: list[_TextPoint]


class Page(NamedTuple):
    """Rows of one series, and how many the server says it has. `rounded`: steps of more than 18 decimals among them."""

    total: int
    steps: Float64s
    times_ms: Int64s
    values: Float64s | list[str]
    rounded: int = 0

    def __len__(self) -> int:
        return len(self.steps)

    def rows(self, part: slice) -> Page:
        """Some of the rows."""
        return Page(self.total, self.steps[part], self.times_ms[part], self.values[part])


class Series(NamedTuple):
    """One float or string series of an entity."""

    connection: Connection
    entity: str
    path: str
    is_float: bool
    patience: RetryPolicy | None = None

    def page(self, offset: int, limit: int = PAGE) -> Page:
        """Rows from `offset` on: `limit`, or as many as the server gives at once."""
        operation = "getFloatSeriesValues" if self.is_float else "getStringSeriesValues"
        query: dict[str, Any] = {"experimentId": self.entity, "attribute": self.path, "limit": limit, "offset": offset}
        reply: _FloatReply | _TextReply
        if self.is_float:
            reply = self.connection.ask(operation, _FloatReply, patience=self.patience, **query)
        else:
            reply = self.connection.ask(operation, _TextReply, patience=self.patience, **query)
        points, count = reply.values, len(reply.values)
        steps, rounded = _held(np.fromiter((point.step for point in points), dtype=np.float64, count=count))
        times_ms = np.fromiter((point.timestamp_millis for point in points), dtype=np.int64, count=count)
        if isinstance(reply, _TextReply):
            return Page(reply.total_item_count, steps, times_ms, [point.value for point in reply.values], rounded)
        values = np.fromiter((float(point.value) for point in points), dtype=np.float64, count=count)
        return Page(reply.total_item_count, steps, times_ms, values, rounded)

    def rest(self, pool: Executor, first: Page, offset: int, ahead: int) -> Iterator[Page]:
        """The pages behind `first`, which began at `offset`, up to the total that it told: what is logged meanwhile
        belongs to the next export. They end early if the server has no more."""
        if len(first) == 0:
            return iter(())
        starts = range(offset + len(first), first.total, len(first))
        calls = (partial(self._span, start, min(len(first), first.total - start)) for start in starts)
        return (page for pages in in_order(pool, calls, ahead) for page in pages)

    def _span(self, start: int, rows: int) -> list[Page]:
        pages: list[Page] = []
        while rows > 0:
            page = self.page(start, rows)
            if len(page) == 0:
                break
            pages.append(page)
            start, rows = start + len(page), rows - len(page)
        return pages


class Filled(NamedTuple):
    """Chunks that became full, and how many rows of the page they took in."""

    chunks: list[Points]
    rows: int


class ChunkBuilder:
    """Gathers rows of series of one kind. A chunk is full at `most` points, or at the text that takes it over 16 MB."""

    def __init__(self, *, is_float: bool, most: int) -> None:
        self._is_float = is_float
        self._most = most
        self._paths: list[str] = []
        self._pages: list[list[Page]] = []
        self._rows = 0
        self._bytes = 0

    def add(self, path: str, page: Page) -> Iterator[Filled]:
        """Take in a page of the series that is read now."""
        start = 0
        while start < len(page):
            stop = min(len(page), start + self._most - self._rows)
            if not self._is_float:
                stop = self._fitting(page, start, stop)
            self._take(path, page.rows(slice(start, stop)))
            start = stop
            if self._rows >= self._most or self._bytes >= _TEXT_BYTES:
                yield Filled(self.flush(), start)

    def flush(self) -> list[Points]:
        """What was gathered, as one chunk: more only where the steps do not fit one decimal scale."""
        if not self._rows:
            return []
        pages = [page for pages in self._pages for page in pages]
        lengths = np.array([sum(map(len, pages)) for pages in self._pages], dtype=np.int64)
        steps = np.concatenate([page.steps for page in pages])
        times_ms = np.concatenate([page.times_ms for page in pages])
        chunks = []
        for part, column in _columns(steps):
            paths, counts = _cut(self._paths, lengths, part)
            chunks.append(self._chunk(paths, counts, column, times_ms[part], pages, part))
        self._paths, self._pages, self._rows, self._bytes = [], [], 0, 0
        return chunks

    def _fitting(self, page: Page, start: int, stop: int) -> int:
        for row in range(start, stop):
            self._bytes += len(page.values[row])
            if self._bytes >= _TEXT_BYTES:
                return row + 1
        return stop

    def _take(self, path: str, rows: Page) -> None:
        if not self._paths or self._paths[-1] != path:
            self._paths.append(path)
            self._pages.append([])
        self._pages[-1].append(rows)
        self._rows += len(rows)

    def _chunk(
        self, paths: list[str], lengths: Int64s, steps: Steps, times_ms: Int64s, pages: list[Page], part: slice
    ) -> Points:
        if self._is_float:
            values = np.concatenate([page.values for page in pages])[part]
            return FloatPoints(paths, lengths, steps, times_ms, values)
        texts = [text for page in pages for text in page.values]
        return StringPoints(paths, lengths, steps, times_ms, Texts.from_list(texts[part]))


def _held(steps: Float64s) -> tuple[Float64s, int]:
    """Steps that decimals of at most 18 digits can hold, and how many were rounded to be so: a double has 17 digits,
    so only those below 0.1 can need more. Raises BadInput for a step beyond 64 bits."""
    if not (np.abs(steps) < _INT64_END).all():
        raise BadInput("a step of the series does not fit 64 bits")
    rounded = 0
    for row in np.flatnonzero((np.abs(steps) < 0.1) & (steps != 0)).tolist():
        exact = Decimal(repr(float(steps[row])))
        held = exact.quantize(_FINEST)
        if held != exact:
            steps[row] = float(held)
            rounded += 1
    return steps, rounded


def _columns(steps: Float64s) -> Iterator[tuple[slice, Steps]]:
    """Exact steps, and which rows each column holds. Raises StepConflict for a step that no column holds."""
    pending = [slice(0, len(steps))]
    while pending:
        part = pending.pop()
        try:
            yield part, from_floats(steps[part])
        except StepConflict:
            if part.stop - part.start == 1:
                raise
            middle = (part.start + part.stop) // 2
            pending += [slice(middle, part.stop), slice(part.start, middle)]


def _cut(paths: list[str], lengths: Int64s, part: slice) -> tuple[list[str], Int64s]:
    """The series of some rows, and how many rows of each."""
    ends = np.cumsum(lengths)
    counts = np.minimum(ends, part.stop) - np.maximum(ends - lengths, part.start)
    kept = np.flatnonzero(counts > 0)
    return [paths[number] for number in kept.tolist()], counts[kept]
