"""One run on its way out: the results of its reads, in their order, as chunks with cursors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from shardmig.adapters.neptune2.attributes import FILES, FLOATS, Contents, Read, SeriesFacts
from shardmig.adapters.neptune2.files import RunFiles, count_images
from shardmig.adapters.neptune2.prefetch import in_order
from shardmig.adapters.neptune2.series import ChunkBuilder, Page, Series
from shardmig.adapters.neptune_server import BRIEF, ServerError
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import HostilePath, Permanent, Transient, Unsupported
from shardmig.records import Chunk, End, Field, Fields, FileRef, Files, Finding, Header, Piece, Points, RunRef

T = TypeVar("T")

_FIELDS: Final = 0
_ALL: Final = -1
_FIELDS_PER_CHUNK: Final = 5_000
_CHARACTERS_PER_CHUNK: Final = 8_000_000
_FILES_PER_CHUNK: Final = 50


class Cursor(msgspec.Struct, array_like=True):
    """The last read, and how much of it is done: chunks of fields, images, points; _ALL = nothing is left of it."""

    stage: int = _FIELDS
    path: str = ""
    type: str = ""
    done: int = 0
    findings: list[Finding] = []


class RunReading:
    """A run whose fields are known. `calls` gives the first request of each read that is left behind the cursor;
    `pieces` takes their results in the same order."""

    def __init__(self, header: Header, contents: Contents, cursor: Cursor, files: RunFiles, most: int) -> None:
        self.run: RunRef = header.run
        self._header = header
        self._fields = contents.fields
        self._files = files
        self._most = most
        self._cursor = cursor
        self._findings = cursor.findings or _changed(self.run, contents) + contents.findings
        reached = (cursor.stage, cursor.path, cursor.type)
        self._reads = [
            read
            for read in contents.reads
            if read[:3] > reached
            or (read[:3] == reached and cursor.done != _ALL)  # a cursor among the fields is before
        ]
        self._reached, self._start = reached, cursor.done
        self._stored: list[FileRef] = []
        self._builder = ChunkBuilder(is_float=True, most=most)
        self._building = FLOATS
        self._patience: RetryPolicy | None = None

    def calls(self) -> Iterator[Callable[[], Any]]:
        """The first request of each read."""
        for read in self._reads:
            yield partial(self._settled, read, self._first_of(read))

    def pieces(self, results: Iterator[Any], pool: Executor, ahead: int) -> Iterator[Piece]:
        """All that is left of the run. Raises Transient; of a field that fails for good, it tells in End."""
        self._cursor.findings = self._findings
        yield self._piece(self._header)
        if self._cursor.stage == _FIELDS:
            yield from self._field_chunks()
        for read in self._reads:
            result = next(results)
            try:
                if isinstance(result, Permanent):
                    raise result
                if read.stage == FILES:
                    yield from self._stored_files(read, result, pool, ahead)
                else:
                    yield from self._points(read, result, pool, ahead)
            except Permanent as error:
                self._lose(read, error)
            except ServerError as error:
                self._lose(read, self._given_up(read, error))
        yield from self._flush_files()
        yield from self._chunks(self._builder.flush())
        yield Piece(self.run, End(self._findings))

    def _first_of(self, read: Read) -> Callable[[], FileRef | int | Page]:
        if read.type == "file_series":
            return partial(count_images, self._files.connection, self._files.at.entity, read.path)
        if read.stage == FILES:
            return partial(self._files.store, read)
        return partial(self._series(read).page, self._start_of(read))

    def _series(self, read: Read) -> Series:
        return Series(self._files.connection, self._files.at.entity, read.path, read.stage == FLOATS, self._patience)

    def _start_of(self, read: Read) -> int:
        return self._start if read[:3] == self._reached else 0

    def _settled(self, read: Read, call: Callable[[], T]) -> T | Permanent:
        """The result of a call, or why there never will be one."""
        try:
            return call()
        except Permanent as error:
            return error
        except ServerError as error:
            return self._given_up(read, error)

    def _given_up(self, read: Read, error: ServerError) -> Permanent:
        """What a request at which the server failed time after time means, if the server is well otherwise."""
        try:
            self._files.ask_for_run()
        except Transient:
            error.run, error.field = self.run.label, read.path
            raise error from None
        self._patience = BRIEF
        return Unsupported(error.message, field=read.path)

    def _field_chunks(self) -> Iterator[Piece]:
        batches = _batches(self._fields)
        for number, batch in enumerate(batches[self._cursor.done :], self._cursor.done + 1):
            self._cursor.done = number
            yield self._piece(Fields(batch))

    def _stored_files(self, read: Read, result: FileRef | int, pool: Executor, ahead: int) -> Iterator[Piece]:
        if isinstance(result, int):
            yield from self._images(read, result, pool, ahead)
        else:
            self._stored.append(result)
        self._reach(read, _ALL)
        if len(self._stored) >= _FILES_PER_CHUNK:
            yield from self._flush_files()

    def _images(self, read: Read, count: int, pool: Executor, ahead: int) -> Iterator[Piece]:
        known: SeriesFacts = read.known
        start = self._start_of(read)
        last_step = _last_step(count, known.last_step)
        steps = [*map(Decimal, range(start, count - 1)), last_step] if start < count else []
        calls = (partial(self._settled, read, partial(self._image, read, *one)) for one in enumerate(steps, start))
        for number, ref in enumerate(in_order(pool, calls, ahead), start + 1):
            if isinstance(ref, Permanent):
                self._find("loss", "file-refused", read, detail=f"image {number - 1}: {ref.message}")
            else:
                self._stored.append(ref)
                if ref.size_bytes == 0:
                    self._find("gap", "image-without-content", read, detail=ref.name)
            self._reach(read, number)
            if len(self._stored) >= _FILES_PER_CHUNK:
                yield from self._flush_files()
        if count:
            self._find("gap", "image-time-unknown", read, count)
        if last_step != count - 1:
            self._find("approximation", "image-step-is-index", read, count, f"the last of {count} has step {last_step}")

    def _image(self, read: Read, index: int, step: Decimal) -> FileRef:
        return self._files.store_image(read.path, index, step, self._patience)

    def _points(self, read: Read, first: Page, pool: Executor, ahead: int) -> Iterator[Piece]:
        if read.stage != self._building:
            yield from self._chunks(self._builder.flush())
            self._builder = ChunkBuilder(is_float=read.stage == FLOATS, most=self._most)
            self._building = read.stage
        yield from self._flush_files()
        done, last = self._start_of(read), math.inf
        for page in itertools.chain([first], self._series(read).rest(pool, first, done, ahead)):
            if page.rounded:
                self._find("approximation", "step-rounded", read, page.rounded)
            for filled in self._builder.add(read.path, page):
                self._reach(read, done + filled.rows)
                yield from self._chunks(filled.chunks)
            done += len(page)
            last = float(page.steps[-1]) if len(page) else last
            self._reach(read, done)
        if first.total == 0:
            self._find("note", "empty-series", read)
        if done < first.total:
            self._find("loss", "series-cut", read, first.total - done, f"the server counts {first.total}")
        elif read.known.is_behind(last):
            detail = f"the last point has step {last:g}, the server tells {read.known.last_step}"
            self._find("loss", "series-cut", read, detail=detail)

    def _flush_files(self) -> Iterator[Piece]:
        if self._stored:
            stored, self._stored = self._stored, []
            yield self._piece(Files(stored))

    def _chunks(self, chunks: Iterable[Points]) -> Iterator[Piece]:
        """Chunks that became full together: reading goes on behind the last of them."""
        waiting = list(chunks)
        yield from (Piece(self.run, chunk) for chunk in waiting[:-1])
        yield from (self._piece(chunk) for chunk in waiting[-1:])

    def _reach(self, read: Read, done: int) -> None:
        self._cursor = Cursor(*read[:3], done, self._findings)

    def _piece(self, chunk: Chunk) -> Piece:
        return Piece(self.run, chunk, msgspec.msgpack.encode(self._cursor))

    def _lose(self, read: Read, error: Permanent) -> None:
        code = "file-refused" if read.stage == FILES else "field-refused"
        self._find("loss", "hostile-path" if isinstance(error, HostilePath) else code, read, detail=error.message)
        self._reach(read, _ALL)

    def _find(self, kind: Any, code: str, read: Read, count: int = 1, detail: str = "") -> None:
        """The same of one field again is counted: a series may have a million images."""
        found = Finding(kind, code, read.path, count, detail)
        known = [(one.kind, one.code, one.field) for one in self._findings]
        same = (kind, code, read.path)
        if same in known:
            place = known.index(same)
            found = msgspec.structs.replace(self._findings[place], count=self._findings[place].count + count)
            self._findings = [*self._findings[:place], found, *self._findings[place + 1 :]]
        else:
            self._findings = [*self._findings, found]


def _changed(run: RunRef, contents: Contents) -> list[Finding]:
    if contents.modified_ms is None or run.fingerprint in ("", str(contents.modified_ms)):
        return []
    return [Finding("note", "changed-since-listed", detail="it is still written to; --update brings the rest later")]


def _last_step(count: int, told: float | None) -> Decimal:
    """The step of the last image: what the server tells, unless the indexes before it are greater."""
    if told is None or told < count - 1:
        return Decimal(count - 1)
    return Decimal(int(told)) if told == int(told) else Decimal(repr(told))


def _batches(fields: list[Field]) -> list[list[Field]]:
    batches: list[list[Field]] = []
    characters = 0
    for field in fields:
        if not batches or characters >= _CHARACTERS_PER_CHUNK or len(batches[-1]) == _FIELDS_PER_CHUNK:
            batches.append([])
            characters = 0
        characters += len(field.value) if isinstance(field.value, str) else 8
        batches[-1].append(field)
    return batches
