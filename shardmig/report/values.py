"""The answer of `show RUN FIELD`: one value, the files of a field, or the ends of a series."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.records import (
    NO_TIME,
    Chunk,
    Field,
    Fields,
    FieldType,
    FileRef,
    Files,
    FloatPoints,
    HistogramPoints,
    Histograms,
    Points,
    StringPoints,
)
from shardmig.report import terminal, words
from shardmig.report.tree import plain, plain_number


class Point(msgspec.Struct, frozen=True):
    """One point: its step as exact decimal text, its time in ISO form ("" = none), its value as JSON can hold it."""

    step: str
    time: str
    value: Any


class FieldAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of one run: its value, its files, or its first and last points (`points` counts all)."""

    run: str
    path: str
    type: FieldType
    value: Any = None
    files: list[FileRef] = []
    points: int = 0
    head: list[Point] = []
    tail: list[Point] = []


def answers(chunks: Iterable[Chunk], *, run: str, head: int, tail: int) -> list[FieldAnswer]:
    """What chunks of one path hold, one answer per type. Memory does not grow with a series."""
    found: list[FieldAnswer] = []
    files: dict[tuple[str, FieldType], list[FileRef]] = {}
    series: dict[tuple[str, FieldType], _Ends] = {}
    for chunk in chunks:
        if isinstance(chunk, Fields):
            found += [_scalar(run, field) for field in chunk.fields]
        elif isinstance(chunk, Files):
            for ref in chunk.files:
                files.setdefault((ref.path, ref.type), []).append(ref)
        elif isinstance(chunk, FloatPoints | StringPoints | HistogramPoints):
            for path, points in chunk.series():
                series.setdefault((path, _type(points)), _Ends(head, tail)).add(points)
    found += [FieldAnswer(run=run, path=path, type=kind, files=refs) for (path, kind), refs in files.items()]
    found += [
        FieldAnswer(run=run, path=path, type=kind, points=ends.count, head=ends.head, tail=list(ends.tail))
        for (path, kind), ends in series.items()
    ]
    return found


def shown(answer: FieldAnswer) -> Iterator[RenderableType]:
    """One field for people. A scalar is its text alone, so that a script can take it."""
    if answer.files:
        listed = terminal.table("file", ">bytes", "sha256", "step")
        for ref in answer.files:
            size = words.count(ref.size_bytes) if ref.size_bytes >= 0 else ""
            terminal.row(listed, ref.stored, size, ref.sha256, "" if ref.step is None else format(ref.step, "f"))
        yield listed
    elif answer.points:
        yield terminal.name(f"{answer.path}: {answer.type}, {words.plural(answer.points, 'point')}", style="bold")
        listed = terminal.table(">step", "time", "value")
        for point in answer.head:
            terminal.row(listed, point.step, point.time, str(point.value))
        if (left_out := answer.points - len(answer.head) - len(answer.tail)) > 0:
            terminal.row(listed, Text("…"), "", f"{words.plural(left_out, 'point')} between")
        for point in answer.tail:
            terminal.row(listed, point.step, point.time, str(point.value))
        yield listed
    elif isinstance(answer.value, list):
        yield from (terminal.name(member) for member in answer.value)
    else:
        yield terminal.name(str(answer.value))


class _Ends:
    """The first and last points of a series that comes in pieces."""

    def __init__(self, head: int, tail: int) -> None:
        self._most_head = head
        self.head: list[Point] = []
        self.tail: deque[Point] = deque(maxlen=tail)
        self.count = 0

    def add(self, points: Points) -> None:
        """Take the next piece."""
        size = len(points.times_ms)
        taken = min(size, self._most_head - len(self.head))
        self.head += _points(points, slice(0, taken))
        kept = min(self.tail.maxlen or 0, size - taken)
        self.tail.extend(_points(points, slice(size - kept, size)))
        self.count += size


def _points(points: Points, part: slice) -> list[Point]:
    steps = points.steps[part].to_decimals()
    times = points.times_ms[part].tolist()
    rows = zip(steps, times, _values(points, part), strict=True)
    return [
        Point(format(step, "f"), "" if time == NO_TIME else words.instant(time), value) for step, time, value in rows
    ]


def _values(points: Points, part: slice) -> list[Any]:
    if isinstance(points, FloatPoints):
        return [plain_number(value) for value in points.values[part].tolist()]
    if isinstance(points, StringPoints):
        return list(points.values[part].to_list())
    return list(_histograms(points.values[part]))


def _histograms(histograms: Histograms) -> Iterator[dict[str, Any]]:
    for index in range(len(histograms)):
        one = histograms[index : index + 1]
        edges, values = (list(map(plain_number, column.tolist())) for column in (one.edges, one.values))
        yield {"type": one.kinds[0], "edges": edges, "values": values}


def _scalar(run: str, field: Field) -> FieldAnswer:
    return FieldAnswer(run=run, path=field.path, type=field.type, value=plain(field))


def _type(points: Points) -> FieldType:
    if isinstance(points, FloatPoints):
        return "float_series"
    return "string_series" if isinstance(points, StringPoints) else "histogram_series"
