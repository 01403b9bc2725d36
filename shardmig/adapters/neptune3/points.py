"""Pages of series: what is asked of the server, what comes back, what is left to ask.

A page is asked for many series at once. What is left of a batch is its series with a mark each, from which the next
page goes on: the last step of float series, that and the server's token for the others, "" for the beginning.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from shardmig import steps as exact_steps
from shardmig.adapters.neptune3.client import Client
from shardmig.adapters.neptune3.protocol import body, parsed
from shardmig.adapters.neptune3.survey import FileFacts, SeriesFacts, is_answered_for
from shardmig.adapters.neptune3.wire import FloatColumns, float_series
from shardmig.adapters.neptune_server import BRIEF, ServerError
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import BadInput, Denied, NotFound, StepConflict
from shardmig.records import FieldType, Finding, FloatPoints, HistogramPoints, Histograms, RunRef, StringPoints, Texts

C = TypeVar("C")

PREVIEW_VALUES: Final = "sys/metric_previews/value/"
PREVIEW_COMPLETIONS: Final = "sys/metric_previews/completion/"
"""Where previews are kept: nobody can write below sys/, so no field of a run is there."""

_SERIES_PER_REQUEST: Final = 500
_PATH_BYTES_PER_REQUEST: Final = 100_000
_POINTS_PER_REQUEST: Final = 50_000
_FILES_PER_CHUNK: Final = 50
_ALL_STEPS: Final = {"from": None, "to": None}


_decoding = threading.Lock()
"""One thread decodes at a time: more would not be faster, and each takes several times the memory of its page."""


class FilePoint(NamedTuple):
    """One file to fetch."""

    path: str
    type: FieldType
    facts: FileFacts
    step: Decimal | None = None
    time_ms: int | None = None


class Page(NamedTuple, Generic[C]):
    """One answer: chunks of it, what is left of the batch, and what went wrong for good."""

    chunks: list[C]
    left: dict[str, str]
    findings: list[Finding]


class SeriesReader(Generic[C]):
    """Reads all series of one type of a run, page by page."""

    def __init__(
        self,
        ask: Callable[[Mapping[str, str], RetryPolicy | None], Page[C]],
        is_server_well: Callable[[], bool],
        series: Mapping[str, SeriesFacts],
        at_most: int,
    ) -> None:
        self._ask = ask
        self._is_server_well = is_server_well
        self._paths = list(series)
        self._at_most = min(at_most, _SERIES_PER_REQUEST)
        self._patience: RetryPolicy | None = None

    def batch(self, after: str) -> list[str]:
        """The series that are read together, behind the path `after`; empty at the end."""
        first = bisect_right(self._paths, after) if after else 0
        batch: list[str] = []
        size = 0
        for path in islice(self._paths, first, first + self._at_most):
            size += len(path.encode())
            if batch and size > _PATH_BYTES_PER_REQUEST:
                break
            batch.append(path)
        return batch

    def page(self, left: dict[str, str]) -> Page[C]:
        """The next page of a batch. A series that the server refuses, or always fails at, is a loss; the others of its
        batch are read."""
        try:
            return self._ask(left, self._patience)
        except (BadInput, Denied, NotFound, StepConflict, ServerError) as error:
            if isinstance(error, Denied | ServerError) and not self._is_server_well():
                raise
            if isinstance(error, ServerError):
                self._patience = BRIEF  # it fails at some series of this run: nothing to wait for
            if len(left) == 1:
                return Page([], {}, [Finding("loss", "field-refused", next(iter(left)), 1, error.message)])
            first = dict(islice(left.items(), len(left) // 2))
            page = self.page(first)
            rest = {path: mark for path, mark in left.items() if path not in first}
            return page._replace(left=page.left | rest)


class SeriesQuestions:
    """What is asked of the server for the series of one run."""

    def __init__(self, client: Client, run: RunRef, *, lineage: bool, previews: bool, chunk_points: int = 1) -> None:
        self._client = client
        self._run = run
        self._lineage = "FULL" if lineage else "NONE"
        self._previews = previews
        self._chunk_points = chunk_points

    def floats(self, series: Mapping[str, SeriesFacts]) -> SeriesReader[FloatPoints]:
        """Float series."""
        return self._reader(partial(self._float_page, series), series, self._chunk_points)

    def texts(self, series: Mapping[str, SeriesFacts]) -> SeriesReader[StringPoints]:
        """String series."""
        return self._others(series, "stringValue", self._chunk_points, _string_points)

    def histograms(self, series: Mapping[str, SeriesFacts]) -> SeriesReader[HistogramPoints]:
        """Histogram series."""
        return self._others(series, "histogram", self._chunk_points, _histogram_points)

    def files(self, series: Mapping[str, SeriesFacts]) -> SeriesReader[list[FilePoint]]:
        """File series: a few files to fetch at a time."""
        return self._others(series, "fileRef", _FILES_PER_CHUNK, _file_points)

    def count_floats(self, paths: Sequence[str]) -> dict[str, int]:
        """How many points the server counts in each float series; 0 in one that it does not know."""
        found = dict.fromkeys(paths, 0)
        for start in range(0, len(paths), _SERIES_PER_REQUEST):
            some = paths[start : start + _SERIES_PER_REQUEST]
            requests = [self._request(number, path, includePreview=False) for number, path in enumerate(some)]
            asked = {"requests": requests, "perSeriesPointsLimit": 1, "order": "ascending", "stepRange": _ALL_STEPS}
            answer = self._client.ask(
                f"counts of {self._run.label}",
                "retrieval.get_multiple_float_series_values_proto",
                partial(parsed, "series_values.ProtoFloatSeriesValuesResponseDTO"),
                body=body("FloatTimeSeriesValuesRequest", asked),
            )
            found |= {some[int(one.requestId)]: one.series.total_item_count for one in answer.series}
        return found

    def _reader(
        self,
        ask: Callable[[Mapping[str, str], RetryPolicy | None], Page[C]],
        series: Mapping[str, SeriesFacts],
        most: int,
    ) -> SeriesReader[C]:
        return SeriesReader(ask, partial(is_answered_for, self._client, self._run), series, most)

    def _float_page(
        self, series: Mapping[str, SeriesFacts], left: Mapping[str, str], patience: RetryPolicy | None
    ) -> Page[FloatPoints]:
        limit = max(1, min(self._chunk_points, _POINTS_PER_REQUEST) // len(left))
        requests = [
            self._request(number, path, includePreview=self._previews) | ({"afterStep": float(mark)} if mark else {})
            for number, (path, mark) in enumerate(left.items())
        ]
        asked = {"requests": requests, "perSeriesPointsLimit": limit, "order": "ascending", "stepRange": _ALL_STEPS}
        answered = self._client.ask(
            f"points of {self._run.label}",
            "retrieval.get_multiple_float_series_values_proto",
            _decoded,
            patience=patience,
            body=body("FloatTimeSeriesValuesRequest", asked),
        )
        found: list[tuple[str, FloatColumns]] = []
        marks: dict[str, str] = {}
        findings: list[Finding] = []
        for number, (path, mark) in enumerate(left.items()):
            points = answered.get(str(number))
            count = 0 if points is None else len(points.steps)
            last = float(points.steps[-1]) if points is not None and count else float(mark) if mark else None
            if points is not None and count:
                _require_progress(path, points, mark)
                found.append((path, points))
            must = series[path].must_end_at
            is_short = must is not None and (last is None or last < must)
            if count and (count >= limit or is_short):
                marks[path] = repr(last)
            elif is_short:
                findings.append(_cut(path, last, must))
        return Page(_float_chunks(_with_previews(found), self._chunk_points), marks, findings)

    def _others(
        self,
        series: Mapping[str, SeriesFacts],
        value: str,
        bound: int,
        chunk: Callable[[list[tuple[str, list[Any]]]], C],
    ) -> SeriesReader[C]:
        def ask(left: Mapping[str, str], patience: RetryPolicy | None) -> Page[C]:
            found, marks, findings = self._other_page(left, series, value, patience)
            return Page([chunk(part) for part in _cut_rows(found, bound)], marks, findings)

        return self._reader(ask, series, _SERIES_PER_REQUEST)

    def _other_page(
        self, left: Mapping[str, str], series: Mapping[str, SeriesFacts], value: str, patience: RetryPolicy | None
    ) -> tuple[list[tuple[str, list[Any]]], dict[str, str], list[Finding]]:
        requests = [
            self._request(number, path) | _search_after(mark) for number, (path, mark) in enumerate(left.items())
        ]
        asked = {"requests": requests, "order": "ascending", "stepRange": _ALL_STEPS}
        answer = self._client.ask(
            f"series of {self._run.label}",
            "retrieval.get_series_values_proto",
            partial(parsed, "series_values.ProtoSeriesValuesResponseDTO"),
            patience=patience,
            body=body("SeriesValuesRequest", asked),
            use_deprecated_string_fields=False,
        )
        answered = {one.requestId: one for one in answer.series}
        # The server goes on about series that do not exist: without progress there is nothing more to ask.
        is_moving = any(one.HasField("searchAfter") for one in answer.series)
        found, marks, findings = [], {}, []
        for number, (path, mark) in enumerate(left.items()):
            one = answered.get(str(number))
            points = [] if one is None else list(one.seriesValues.values)
            readable = [point for point in points if point.object.HasField(value)]
            if len(readable) < len(points):
                findings.append(Finding("loss", "unknown-value", path, len(points) - len(readable)))
            if readable:
                found.append((path, readable))
            last = points[-1].step if points else _Mark.read(mark).last
            must = series[path].must_end_at
            if one is not None and one.HasField("searchAfter") and one.searchAfter.finished:
                is_cut = must is not None and (last is None or last < must)
            elif one is not None and is_moving:
                marks[path] = _Mark(last, one.searchAfter.token).text() if one.HasField("searchAfter") else mark
                continue
            else:
                is_cut = bool(mark or points) or must is not None
            if is_cut:
                findings.append(_cut(path, last, must))
        return found, marks, findings

    def _request(self, number: int, path: str, **more: bool) -> dict[str, Any]:
        series = {
            "holder": {"identifier": f"{self._run.project}/{self._run.locator}", "type": "experiment"},
            "attribute": path,
            "lineage": self._lineage,
            "lineageEntityType": "RUN",
        }
        return {"requestId": str(number), "series": series | more}


def _decoded(content: bytes) -> dict[str, FloatColumns]:
    with _decoding:
        return float_series(content)


class _Mark(NamedTuple):
    """From where a series that is no float series goes on: behind its last step (None = no point came yet)."""

    last: float | None
    token: str

    def text(self) -> str:
        """For a cursor."""
        return f"{'' if self.last is None else repr(self.last)}\n{self.token}"

    @classmethod
    def read(cls, text: str) -> _Mark:
        """The mark of a text; without a step, as cursors once were, it is the token alone."""
        last, is_marked, token = text.partition("\n")
        return cls(float(last) if last else None, token) if is_marked else cls(None, text)


def _search_after(mark: str) -> dict[str, Any]:
    return {"searchAfter": {"finished": False, "token": _Mark.read(mark).token}} if mark else {}


def _require_progress(path: str, points: FloatColumns, mark: str) -> None:
    if (mark and points.steps[0] <= float(mark)) or points.steps[0] > points.steps[-1]:
        raise BadInput(f"the server gives the points of {path!r} in another order than asked", field=path)


def _cut(path: str, last: float | None, must: float | None) -> Finding:
    reached = "no more points" if last is None else f"points up to step {last:g}"
    more = "there are more" if must is None else f"there are some at {must:g}"
    return Finding("loss", "series-cut", path, 1, f"the server gives {reached}, and says that {more}")


def _with_previews(found: Sequence[tuple[str, FloatColumns]]) -> list[tuple[str, FloatColumns]]:
    """Previews become fields of their own, beside the committed points."""
    if not any(points.previews.any() for _, points in found):
        return list(found)
    apart: list[tuple[str, FloatColumns]] = []
    for path, points in found:
        previews = points.only(points.previews)
        apart.append((path, points.only(~points.previews)))
        apart.append((PREVIEW_VALUES + path, previews))
        apart.append((PREVIEW_COMPLETIONS + path, previews._replace(values=previews.completions)))
    return [(path, points) for path, points in apart if len(points.steps)]


def _float_chunks(found: Sequence[tuple[str, FloatColumns]], bound: int) -> list[FloatPoints]:
    chunks = []
    for part in _cut_spans([len(points.steps) for _, points in found], bound):
        columns = [found[place][1].only(span) for place, span in part]
        chunks.append(
            FloatPoints(
                [found[place][0] for place, _ in part],
                np.array([len(one.steps) for one in columns], np.int64),
                exact_steps.from_floats(np.concatenate([one.steps for one in columns])),
                np.concatenate([one.times_ms for one in columns]),
                np.concatenate([one.values for one in columns]),
            )
        )
    return chunks


def _cut_rows(found: Sequence[tuple[str, list[Any]]], bound: int) -> Iterator[list[tuple[str, list[Any]]]]:
    for part in _cut_spans([len(points) for _, points in found], bound):
        yield [(found[place][0], found[place][1][span]) for place, span in part]


def _cut_spans(lengths: Sequence[int], bound: int) -> Iterator[list[tuple[int, slice]]]:
    """Rows of several series, cut into parts of at most `bound` rows: (which series, which rows)."""
    part: list[tuple[int, slice]] = []
    room = bound
    for place, length in enumerate(lengths):
        start = 0
        while start < length:
            stop = min(length, start + room)
            part.append((place, slice(start, stop)))
            room -= stop - start
            start = stop
            if not room:
                yield part
                part, room = [], bound
    if part:
        yield part


def _rows(part: list[tuple[str, list[Any]]]) -> tuple[list[str], Any, Any, Any, list[Any]]:
    """paths, lengths, steps, times and the points themselves."""
    points = [point for _, some in part for point in some]
    return (
        [path for path, _ in part],
        np.array([len(some) for _, some in part], np.int64),
        exact_steps.from_floats(np.array([point.step for point in points], np.float64)),
        np.array([point.timestamp_millis for point in points], np.int64),
        points,
    )


def _string_points(part: list[tuple[str, list[Any]]]) -> StringPoints:
    paths, lengths, steps, times_ms, points = _rows(part)
    return StringPoints(
        paths, lengths, steps, times_ms, Texts.from_list([point.object.stringValue for point in points])
    )


def _histogram_points(part: list[tuple[str, list[Any]]]) -> HistogramPoints:
    paths, lengths, steps, times_ms, points = _rows(part)
    found = [point.object.histogram for point in points]
    values = Histograms(
        [one.type for one in found],
        np.array([len(one.edges) for one in found], np.int64),
        np.array([edge for one in found for edge in one.edges], np.float64),
        np.array([len(one.values) for one in found], np.int64),
        np.array([value for one in found for value in one.values], np.float64),
    )
    return HistogramPoints(paths, lengths, steps, times_ms, values)


def _file_points(part: list[tuple[str, list[Any]]]) -> list[FilePoint]:
    files = []
    for path, points in part:
        for point in points:
            reference = point.object.fileRef
            step = exact_steps.from_floats(np.array([point.step])).to_decimals()[0]
            facts = FileFacts(reference.path, reference.sizeBytes, reference.mimeType)
            files.append(FilePoint(path, "file_series", facts, step, point.timestamp_millis))
    return files
