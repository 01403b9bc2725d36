"""The read side: lists runs and streams each as Header, Fields, points, Files, End.

A cursor names a stage, the last field whose batch was begun, what is left of that batch with the marks from which
it goes on, and how many chunks of the present page are done. The survey of a run is read again when reading is
resumed; of the points at most one page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from shardmig import logs
from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.counts import ServerCounts
from shardmig.adapters.neptune3 import counting, listing
from shardmig.adapters.neptune3.ahead import ReadAhead
from shardmig.adapters.neptune3.client import Client
from shardmig.adapters.neptune3.downloads import Downloads
from shardmig.adapters.neptune3.options import Neptune3Options
from shardmig.adapters.neptune3.points import FilePoint, SeriesQuestions, SeriesReader
from shardmig.adapters.neptune3.protocol import client_version
from shardmig.adapters.neptune3.survey import Survey, read_survey
from shardmig.adapters.neptune_server import OUTLAST_A_MINUTE, ServerError
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import Denied, Permanent
from shardmig.records import (
    Chunk,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Header,
    HistogramPoints,
    Piece,
    ProjectId,
    RunRef,
    Selection,
    StringPoints,
)
from shardmig.selection import Matcher

C = TypeVar("C")

_FIELDS_PER_CHUNK: Final = 5_000
_CHARACTERS_PER_CHUNK: Final = 8_000_000
_FILES_PER_CHUNK: Final = 50
_HELD_BYTES: Final = 48 << 20


class _Cursor(msgspec.Struct, array_like=True):
    """How far a run was read."""

    stage: int = 0
    after: str = ""
    left: dict[str, str] = {}
    done: int = 0
    findings: list[Finding] = []

    def go_on(self) -> None:
        """To the next stage."""
        self.stage, self.after, self.left, self.done = self.stage + 1, "", {}, 0


class Neptune3Source:
    """A Neptune 3.x server as a source (see `adapters.base.ReadSide`). `patience`: of each single request."""

    def __init__(self, options: Neptune3Options, *, patience: RetryPolicy = OUTLAST_A_MINUTE) -> None:
        self.options = options
        self._client = Client(options, patience)
        self._download_threads = ThreadPoolExecutor(options.threads, thread_name_prefix="neptune3-file")

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """Projects by name."""
        yield from listing.projects(self._client, self.options, selection)

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """Runs by the id that the server gave them."""
        matcher = Matcher(selection)
        try:
            yield from filter(matcher.wants_run, listing.runs(self._client, project, self.options.runs_query))
        except Denied as error:
            if project in self.options.named_projects(selection):
                raise
            logs.get_logger().warning(logs.Event.PROJECT_SKIPPED, project=project, reason=error.message)

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run; the next ones are read ahead, see `adapters.base.ReadSide`."""
        matcher = Matcher(want.selection)
        streams = [partial(self._read_run, run, matcher, want, files) for run in runs]
        yield from ReadAhead(streams, width=self.options.threads, budget=_HELD_BYTES, size=_size_bytes)

    def counts_of(self, run: RunRef, selection: Selection) -> ServerCounts:
        """As `adapters.counts.Counting`."""
        lineage = self.options.lineage == "yes"
        survey = read_survey(self._client, run, Matcher(selection), lineage=lineage, previews=False)
        return counting.counts(survey, SeriesQuestions(self._client, run, lineage=lineage, previews=False))

    def close(self) -> None:
        """Close connections and end threads; idempotent."""
        self._download_threads.shutdown(cancel_futures=True)
        self._client.close()

    def _read_run(self, run: RunRef, matcher: Matcher, want: Want, sink: FileSink) -> Iterator[Piece]:
        given = want.cursors.get(run.id)
        cursor = msgspec.msgpack.decode(given, type=_Cursor) if given else _Cursor()
        lineage, previews = self.options.lineage == "yes", self.options.metric_previews == "yes"
        try:
            survey = read_survey(self._client, run, matcher, lineage=lineage, previews=previews)
            yield Piece(run, Header(run, "neptune3", client_version()), msgspec.msgpack.encode(cursor))
            questions = SeriesQuestions(
                self._client, run, lineage=lineage, previews=previews, chunk_points=want.chunk_points
            )
            downloads = Downloads(self._client, run, sink, self._download_threads)
            for chunk in _chunks(survey, questions, downloads, cursor):
                yield Piece(run, chunk, msgspec.msgpack.encode(cursor))
            yield Piece(run, End([*survey.findings, *cursor.findings]))
        except (Permanent, ServerError) as error:
            error.run = error.run or run.label
            raise


def _chunks(survey: Survey, questions: SeriesQuestions, downloads: Downloads, cursor: _Cursor) -> Iterator[Chunk]:
    """What is left behind `cursor`, which is moved on before each chunk is handed out."""
    series = survey.series
    stages: tuple[Callable[[], Iterator[Chunk]], ...] = (
        lambda: _field_chunks(survey.scalars, cursor),
        lambda: _series_chunks(questions.floats(series.get("float_series", {})), cursor),
        lambda: _series_chunks(questions.texts(series.get("string_series", {})), cursor),
        lambda: _series_chunks(questions.histograms(series.get("histogram_series", {})), cursor),
        lambda: _file_chunks(survey, downloads, cursor),
        lambda: _file_series_chunks(questions.files(series.get("file_series", {})), downloads, cursor),
    )
    for stage in stages[cursor.stage :]:
        yield from stage()
        cursor.go_on()


def _field_chunks(fields: list[Field], cursor: _Cursor) -> Iterator[Fields]:
    fields = [field for field in fields if field.path > cursor.after]
    while fields:
        count = characters = 0
        for field in fields[:_FIELDS_PER_CHUNK]:
            characters += len(field.value) if isinstance(field.value, str) else 8
            if count and characters > _CHARACTERS_PER_CHUNK:
                break
            count += 1
        cursor.after = fields[count - 1].path
        yield Fields(fields[:count])
        fields = fields[count:]


def _series_chunks(reader: SeriesReader[C], cursor: _Cursor) -> Iterator[C]:
    """Chunks of all series of one type. Findings of a page join the cursor with its last chunk."""
    while cursor.left or _begin_batch(reader, cursor):
        page = reader.page(cursor.left)
        for chunk in page.chunks[cursor.done : -1]:
            cursor.done += 1
            yield chunk
        cursor.left, cursor.done = page.left, 0
        cursor.findings = [*cursor.findings, *page.findings]
        yield from page.chunks[-1:]


def _begin_batch(reader: SeriesReader[Any], cursor: _Cursor) -> bool:
    batch = reader.batch(cursor.after)
    cursor.left = dict.fromkeys(batch, "")
    cursor.after = batch[-1] if batch else cursor.after
    return bool(batch)


def _file_chunks(survey: Survey, downloads: Downloads, cursor: _Cursor) -> Iterator[Files]:
    files = [FilePoint(path, "file", facts) for path, facts in survey.files.items() if path > cursor.after]
    for start in range(0, len(files), _FILES_PER_CHUNK):
        some = files[start : start + _FILES_PER_CHUNK]
        stored = _fetched(some, downloads, cursor)
        cursor.after = some[-1].path
        if stored:
            yield Files(stored)


def _file_series_chunks(
    reader: SeriesReader[list[FilePoint]], downloads: Downloads, cursor: _Cursor
) -> Iterator[Files]:
    for some in _series_chunks(reader, cursor):
        if stored := _fetched(some, downloads, cursor):
            yield Files(stored)


def _fetched(files: list[FilePoint], downloads: Downloads, cursor: _Cursor) -> list[FileRef]:
    stored, findings = downloads.fetch(files)
    cursor.findings = [*cursor.findings, *findings]
    return stored


def _size_bytes(piece: Piece) -> int:
    """About how much memory a piece holds."""
    match piece.chunk:
        case FloatPoints(values=values):
            return 3 * values.nbytes
        case StringPoints(values=texts):
            return 24 * len(texts) + len(texts.utf8)
        case HistogramPoints(values=histograms):
            return 64 * len(histograms) + histograms.edges.nbytes + histograms.values.nbytes
        case Fields(fields):
            return sum(200 + len(field.value) if isinstance(field.value, str) else 200 for field in fields)
        case _:
            return 1_000
