"""The second pass over the databases of a neptune-scale run: the points of series, streamed.

What the server would refuse for its step alone is kept and counted (`step-not-increasing`): it was logged, it
contradicts nothing and the archive can hold it. Points at or before the step at which the run was forked do
contradict: there the parent's points are the run's history. They are left out and reported (`before-fork-step`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune_local.columns import MICRO, Histogram, SeriesState, SeriesTable
from shardmig.adapters.neptune_local.database3 import SNAPSHOT, merged_rows
from shardmig.adapters.neptune_local.files3 import FoundFile, Uploads3
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.messages3 import messages
from shardmig.adapters.neptune_local.recording import PlannedFile, Stretch, Window
from shardmig.adapters.neptune_local.survey3 import Survey3, milliseconds, step_micro
from shardmig.errors import Permanent
from shardmig.records import Field, FieldType, FileRef, RunRef
from shardmig.selection import Matcher

_NOT_TAKEN: Final = -1
_CHECK_EVERY: Final = 16
"""Operations with points between two looks at how much was gathered; each holds at most 1 MiB. Counted from the beginning
of a window, so that reading on from there cuts the next one at the same place."""
_FLOAT_EXACT: Final = 2**53
_BY_PATH: Final = itemgetter(0)


class _State(msgspec.Struct, array_like=True):
    """From where the second pass goes on. `highest`: step of the run in 1e-6 as text (it may need
    more than 64 bits), -1 = none yet."""

    sequences: list[int]
    series: list[SeriesState] = []
    highest: str = "-1"
    has_previews: bool = False


class _Surveyed(NamedTuple):
    """A run after its first pass."""

    run: RunRef
    survey: Survey3
    uploads: Uploads3
    matcher: Matcher


class Replay3:
    """A surveyed run of neptune-scale (see `recording.Recording`). The connections stay open while it is read."""

    def __init__(
        self,
        run: RunRef,
        connections: Sequence[sqlite3.Connection],
        survey: Survey3,
        uploads: Uploads3,
        matcher: Matcher,
    ) -> None:
        self.source_version = ""
        self.findings = survey.findings
        self.fields: list[Field] = survey.fields()
        self.files = _planned(survey, uploads, matcher)
        self._connections = connections
        self._surveyed = _Surveyed(run, survey, uploads, matcher)

    def windows(self, state: bytes, most: int, sink: FileSink, findings: FindingLog) -> Iterator[Window]:
        """See `recording.Recording`."""
        if not {"metrics", "series", "files"} & set(self._surveyed.matcher.selection.classes):
            return
        start = msgspec.msgpack.decode(state, type=_State) if state else _State([0] * len(self._connections))
        taker = _Taker(self._surveyed, start, sink, findings)
        sequences = list(start.sequences)
        taken = 0
        parse = messages().UpdateRunSnapshot.FromString
        for time_ms, database, sequence, kind, message in merged_rows(self._connections, list(sequences)):
            sequences[database] = sequence
            if kind != SNAPSHOT:
                continue
            try:
                snapshot = parse(message)
            except DecodeError:
                continue  # reported by the survey
            if snapshot.append and not snapshot.preview.is_preview:
                taker.take(snapshot, time_ms, database)
                taken += 1
                if taken % _CHECK_EVERY == 0 and taker.stretch.is_full(most):
                    taken = 0
                    chunks = taker.stretch.take_chunks(most, findings)
                    yield Window(chunks, taker.state(sequences, has_previews=False))
        if not start.has_previews:
            taker.take_previews()
        if chunks := taker.stretch.take_chunks(most, findings):
            yield Window(chunks, taker.state(sequences, has_previews=True))


class _Taker:
    """Takes the points out of snapshots."""

    def __init__(self, surveyed: _Surveyed, start: _State, sink: FileSink, findings: FindingLog) -> None:
        self.stretch = Stretch(SeriesTable(start.series), micro_steps=True)
        self._run, self._survey, self._uploads, self._matcher = surveyed
        self._sink = sink
        self._findings = findings
        self._highest = int(start.highest)
        self._fork_micro = fork_micro(surveyed.survey.created)
        self._numbers: dict[tuple[str, FieldType], int] = {}
        self._float_numbers: dict[str, int] = {}

    def state(self, sequences: Sequence[int], *, has_previews: bool) -> bytes:
        """For a cursor; only between stretches."""
        return msgspec.msgpack.encode(
            _State(list(sequences), self.stretch.table.states(), str(self._highest), has_previews)
        )

    def take(self, snapshot: Any, row_ms: int, database: int) -> None:
        """The hot loop. A snapshot without step stands at the next whole step of the run. Its series are met in the order
        of their names: protobuf's own differs from process to process, and a reading that another process goes on with
        must cut the same chunks."""
        micro = step_micro(snapshot)
        if micro is None:
            micro = (self._highest // MICRO + 1) * MICRO
        self._highest = max(self._highest, micro)
        if self._fork_micro is not None and micro <= self._fork_micro:
            for path in sorted(snapshot.append):
                self._findings.add("gap", "before-fork-step", field=path)
            return
        time_ms = milliseconds(snapshot.timestamp) if snapshot.HasField("timestamp") else row_ms
        rows = self.stretch.floats
        known = self._float_numbers
        for path, value in sorted(snapshot.append.items(), key=_BY_PATH):
            number = value.float64
            if number or value.HasField("float64"):
                series = known.get(path)
                if series is None:
                    series = known[path] = self._number(path, "float_series")
                if series != _NOT_TAKEN:
                    rows.numbers.append(series)
                    rows.steps.append(micro)
                    rows.times.append(time_ms)
                    rows.values.append(number)
            else:
                self._take_other(path, value, micro, time_ms, database)

    def take_previews(self) -> None:
        """The previews that nothing replaced."""
        for preview in sorted(self._survey.previews.values()):
            if self._fork_micro is not None and preview.micro <= self._fork_micro:
                self._findings.add("gap", "before-fork-step", field=preview.path)
                continue
            self._findings.add("note", "preview-points", field=preview.path, detail="never committed")
            self._add("float_series", preview.path, preview.micro, preview.time_ms, preview.value)

    def _number(self, path: str, kind: FieldType) -> int:
        found = self._numbers.get((path, kind))
        if found is None:
            found = self._numbers[path, kind] = self._open(path, kind)
        return found

    def _open(self, path: str, kind: FieldType) -> int:
        if not self._matcher.wants_field(path, kind):
            return _NOT_TAKEN
        known = self.stretch.table.types_at(path)
        if kind not in known and (known or path in self._survey.types):
            self._findings.add("note", "type-changed", field=path, detail=kind)
        return self.stretch.table.number(path, kind)

    def _add(self, kind: FieldType, path: str, micro: int, time_ms: int, value: Any) -> None:
        number = self._number(path, kind)
        if number == _NOT_TAKEN:
            return
        rows = {
            "float_series": self.stretch.floats,
            "string_series": self.stretch.texts,
            "histogram_series": self.stretch.histograms,
        }[kind]
        rows.numbers.append(number)
        rows.steps.append(micro)
        rows.times.append(time_ms)
        rows.values.append(value)

    def _take_other(self, path: str, value: Any, micro: int, time_ms: int, database: int) -> None:
        kind = value.WhichOneof("value")
        if kind == "string":
            self._add("string_series", path, micro, time_ms, value.string)
            self.stretch.text_characters += len(value.string)
        elif kind == "int64":
            if abs(value.int64) > _FLOAT_EXACT:
                self._findings.add("approximation", "int-to-float", field=path)
            self._add("float_series", path, micro, time_ms, float(value.int64))
        elif kind == "histogram":
            self._add("histogram_series", path, micro, time_ms, self._histogram(path, value.histogram))
        elif kind == "file_ref":
            self._take_file(path, value.file_ref, Decimal(micro).scaleb(-6), time_ms, database)
        else:
            self._findings.add("loss", "unknown-value", field=path, detail=str(kind))

    def _histogram(self, path: str, histogram: Any) -> Histogram:
        edges = list(histogram.bin_edges)
        if histogram.WhichOneof("values") == "densities":
            return "DENSITY", edges, list(histogram.densities.values)
        counts = list(histogram.counts.values)
        if any(count > _FLOAT_EXACT for count in counts):
            self._findings.add("approximation", "count-rounded", field=path)
        return "COUNTING", edges, [float(count) for count in counts]

    def _take_file(self, path: str, reference: Any, step: Decimal, time_ms: int, database: int) -> None:
        number = self._number(path, "file_series")
        if number == _NOT_TAKEN:
            return
        step, rises = self.stretch.table.note_single(number, step)
        found = self._uploads.find(path, database, reference, self._findings)
        if found is None:
            return
        name = found.name
        if not rises:
            self._findings.add("note", "step-not-increasing", field=path)
            name = f"{self.stretch.table.rows[number]}-{name}"
        try:
            stored = self._sink.put(self._run, path, "file_series", found.source, name=name, step=step, time_ms=time_ms)
        except Permanent as error:
            self._findings.add("loss", "file-refused", field=path, detail=f"step {step}: {error.message}")
            return
        self.stretch.files.append(stored)


def fork_micro(created: Any | None) -> int | None:
    """The step in 1e-6 at which a run was forked; None = it was not, or the server was to choose."""
    if created is None or not created.HasField("fork_point"):
        return None
    return step_micro(created.fork_point)


def _planned(survey: Survey3, uploads: Uploads3, matcher: Matcher) -> list[PlannedFile]:
    planned = []
    for path, (database, reference) in sorted(survey.files.items()):
        if matcher.wants_field(path, "file") and (found := uploads.find(path, database, reference, survey.findings)):
            planned.append(PlannedFile(path, "file", partial(_put_file, path, found)))
    return planned


def _put_file(path: str, found: FoundFile, sink: FileSink, run: RunRef) -> FileRef:
    return sink.put(run, path, "file", found.source, name=found.name)
