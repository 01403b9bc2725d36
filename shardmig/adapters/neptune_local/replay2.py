"""The second pass over a 1.x log: the points of series, streamed.

Steps and times are exact here, of images too (Neptune's own API has neither for them). An image's description has no
place in a file: it becomes a string series of its own, `shardmig/image_descriptions/<path>`, at the same steps.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from io import BytesIO
from math import isfinite
from typing import Final

import msgspec

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune_local import operations2 as ops
from shardmig.adapters.neptune_local.columns import SeriesState, SeriesTable
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.local_files import image_extension, name_with_extension
from shardmig.adapters.neptune_local.log2 import FolderLog, merged_blocks
from shardmig.adapters.neptune_local.recording import PlannedFile, Stretch, Window
from shardmig.adapters.neptune_local.survey2 import DESCRIPTIONS, Survey2
from shardmig.adapters.neptune_local.versions2 import Position
from shardmig.errors import Permanent
from shardmig.records import Field, FieldType, RunRef
from shardmig.selection import Matcher

_NOT_TAKEN: Final = -1


class _State(msgspec.Struct, array_like=True):
    """From where the second pass goes on."""

    positions: list[Position]
    series: list[SeriesState]
    clears: list[tuple[str, FieldType, int]]


class Replay2:
    """A surveyed run of a 1.x client (see `recording.Recording`)."""

    def __init__(self, run: RunRef, logs: Sequence[FolderLog], survey: Survey2, matcher: Matcher, version: str) -> None:
        self.source_version = version
        self.findings = survey.findings
        self.fields: list[Field] = survey.fields()
        self.files: list[PlannedFile] = survey.files(matcher.wants_field)
        self._run = run
        self._logs = logs
        self._survey = survey
        self._matcher = matcher

    def windows(self, state: bytes, most: int, sink: FileSink, findings: FindingLog) -> Iterator[Window]:
        """See `recording.Recording`."""
        if not any(self._matcher.wants_field(path, kind) for path, kind in self._survey.series):
            return
        if state:
            start = msgspec.msgpack.decode(state, type=_State)
        else:
            clears = [(path, kind, count) for (path, kind), count in self._survey.clears.items()]
            start = _State([Position()] * len(self._logs), [], clears)
        taker = _Taker(self._run, start, self._matcher, sink, findings)
        ends: Sequence[Position] = start.positions
        for block in merged_blocks(self._logs, start.positions, is_first_pass=False):
            taker.take(block.records)
            ends = block.end
            if taker.stretch.is_full(most):
                chunks = taker.stretch.take_chunks(most, findings)
                yield Window(chunks, taker.state(ends))
        if chunks := taker.stretch.take_chunks(most, findings):
            yield Window(chunks, taker.state(ends))


class _Taker:
    """Takes the points out of records. Points before the last clear of their series are passed over."""

    def __init__(self, run: RunRef, start: _State, matcher: Matcher, sink: FileSink, findings: FindingLog) -> None:
        self.stretch = Stretch(SeriesTable(start.series), micro_steps=False)
        self._run = run
        self._matcher = matcher
        self._sink = sink
        self._findings = findings
        self._clears: Counter[tuple[str, FieldType]] = Counter({(path, kind): n for path, kind, n in start.clears})
        self._float_numbers: dict[str, int] = {}

    def state(self, positions: Sequence[Position]) -> bytes:
        """For a cursor; only between stretches."""
        clears = [(path, kind, count) for (path, kind), count in self._clears.items()]
        return msgspec.msgpack.encode(_State(list(positions), self.stretch.table.states(), clears))

    def take(self, records: Sequence[ops.Record | ops.Trouble]) -> None:
        """The hot loop: one-point float records are what logs consist of."""
        rows = self.stretch.floats
        numbers, steps, times, values = rows.numbers, rows.steps, rows.times, rows.values
        known = self._float_numbers
        for record in records:
            operation = record.obj
            if type(operation) is ops.LogFloats:
                path = "/".join(operation.path)
                number = known.get(path)
                if number is None:
                    number = known[path] = self._number(path, "float_series")
                if number != _NOT_TAKEN:
                    for point in operation.values:
                        numbers.append(number)
                        steps.append(point.step)
                        times.append(point.ts)
                        values.append(point.value)
            else:
                self._take_other(operation)

    def _take_other(self, operation: ops.Operation | ops.Problem) -> None:
        if isinstance(operation, ops.LogStrings):
            self._take_texts(operation)
        elif isinstance(operation, ops.LogImages):
            self._take_images(operation)
        elif isinstance(operation, ops.ClearFloatLog):
            self._cleared("/".join(operation.path), "float_series")
        elif isinstance(operation, ops.ClearStringLog):
            self._cleared("/".join(operation.path), "string_series")
        elif isinstance(operation, ops.ClearImageLog):
            self._cleared("/".join(operation.path), "file_series")
        elif isinstance(operation, ops.DeleteAttribute):
            for kind in ("float_series", "string_series", "file_series"):
                self._cleared("/".join(operation.path), kind)

    def _number(self, path: str, kind: FieldType) -> int:
        if self._clears[path, kind] or not self._matcher.wants_field(path, kind):
            return _NOT_TAKEN
        return self.stretch.table.number(path, kind)

    def _cleared(self, path: str, kind: FieldType) -> None:
        self._clears[path, kind] -= 1
        if kind == "float_series":
            self._float_numbers.pop(path, None)

    def _take_texts(self, operation: ops.LogStrings) -> None:
        number = self._number("/".join(operation.path), "string_series")
        if number == _NOT_TAKEN:
            return
        for point in operation.values:
            self._add_text(number, point.step, point.ts, point.value)

    def _add_text(self, number: int, step: int | float | None, ts: float | None, text: str) -> None:
        rows = self.stretch.texts
        rows.numbers.append(number)
        rows.steps.append(step)
        rows.times.append(ts)
        rows.values.append(text)
        self.stretch.text_characters += len(text)

    def _take_images(self, operation: ops.LogImages) -> None:
        path = "/".join(operation.path)
        if self._clears[path, "file_series"]:
            return
        wants_image = self._matcher.wants_field(path, "file_series")
        texts = self._number(f"{DESCRIPTIONS}/{path}", "string_series")
        if not wants_image and texts == _NOT_TAKEN:
            return
        number = self.stretch.table.number(path, "file_series")
        for point in operation.values:
            image = point.value if isinstance(point.value, ops.Image) else ops.Image(point.value)
            given = None if point.step is None else Decimal(repr(point.step))
            if given is not None and not given.is_finite():
                self._findings.add("loss", "bad-step", field=path, detail=f"step {point.step}")
                continue
            step, rises = self.stretch.table.note_single(number, given)
            if wants_image:
                self._store_image(number, image, step, point.ts, rises=rises)
            if image.description and texts != _NOT_TAKEN:
                same = int(step) if step == step.to_integral_value() else float(step)
                self._add_text(texts, same, point.ts, image.description)

    def _store_image(self, number: int, image: ops.Image, step: Decimal, ts: float | None, *, rises: bool) -> None:
        path = self.stretch.table.paths[number]
        try:
            content = base64.b64decode(image.data or "", validate=True)
        except (binascii.Error, ValueError):
            self._findings.add("loss", "bad-record", field=path, detail=f"the image at step {step} is not base64")
            return
        if not content:
            # The client stores images above its size limit without content.
            self._findings.add("gap", "image-without-content", field=path, detail=f"step {step}")
        stem = (image.name or path.rpartition("/")[2]).replace("/", "_")
        if not rises:
            self._findings.add("note", "step-not-increasing", field=path)
            stem = f"{self.stretch.table.rows[number]}-{stem}"
        name = name_with_extension(stem, image_extension(content) if content else None)
        time_ms = int(ts * 1000) if ts is not None and isfinite(ts) else None
        try:
            stored = self._sink.put(
                self._run, path, "file_series", BytesIO(content), name=name, step=step, time_ms=time_ms
            )
        except Permanent as error:
            self._findings.add("loss", "file-refused", field=path, detail=f"step {step}: {error.message}")
            return
        self.stretch.files.append(stored)
