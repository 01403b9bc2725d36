"""One run that W&B's own client made, as chunks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.history import TIME
from shardmig.adapters.wandb.scan import scanned
from shardmig.adapters.wandb.source.foreign import ForeignRun
from shardmig.adapters.wandb.source.native import ARTIFACTS, CONSOLE, FILES, METRICS, SYSTEM, Fielder, media_of
from shardmig.adapters.wandb.source.options import SourceOptions
from shardmig.adapters.wandb.source.points import (
    batches,
    float_points,
    histogram_points,
    is_histogram,
    last_of_each_step,
    text_points,
)
from shardmig.adapters.wandb.source.spools import Entry, EntrySpool
from shardmig.adapters.wandb.spools import SeriesSpool
from shardmig.errors import HostilePath, NotFound, Permanent
from shardmig.records import (
    NO_TIME,
    Chunk,
    Fields,
    FieldType,
    FileRef,
    Files,
    Finding,
    FindingKind,
    RunRef,
)
from shardmig.selection import Matcher

FIELDS_IN_CHUNK: Final = 5_000
FILES_IN_CHUNK: Final = 50
TEXTS_IN_CHUNK: Final = 5_000
_ENOUGH_SINGLES: Final = 100_000
_KINDS: Final[dict[str, FindingKind]] = {"bool-as-number": "approximation", "int-to-float": "approximation"}
_STAT: Final = "\0"
"""Before the keys of measurements, so that no key of the history is one of them."""


class Reading:
    """One run as chunks. One use. `staging`: an empty folder of its own. Memory: about a million points."""

    def __init__(self, run: RunRef, foreign: ForeignRun, want: Want, options: SourceOptions, staging: Path) -> None:
        self._run = run
        self._foreign = foreign
        self._want = want
        self._matcher = Matcher(want.selection)
        self._options = options
        self._staging = staging
        self._numbers: dict[str, int] = {}
        self._points = SeriesSpool(staging)
        self._entries = EntrySpool(staging)
        self._lines: Counter[str] = Counter()
        self._measured: Counter[str] = Counter()
        self._singles: list[tuple[int, int, int, float]] = []
        self._tally: Counter[tuple[str, str]] = Counter()
        self._files_of_history: set[str] = set()
        self._temporary = count()
        self._findings: list[Finding] = []

    def chunks(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted but Header and End."""
        fielder = Fielder()
        fields = [field for field in fielder.fields(self._foreign) if self._matcher.wants_field(field.path, field.type)]
        fields.sort(key=lambda field: (field.path, field.type))
        for start in range(0, len(fields), FIELDS_IN_CHUNK):
            yield Fields(fields[start : start + FIELDS_IN_CHUNK])
        self._findings += fielder.findings
        if set(self._want.selection.classes) - {"parameters"}:
            self._read_history()
            yield from self._files(sink)
            yield from self._series()

    def findings(self) -> list[Finding]:
        """What was changed or could not be read."""
        counted = [
            Finding(_KINDS.get(code, "note"), code, path, number)
            for (code, path), number in sorted(self._tally.items())
        ]
        return [*self._findings, *counted, *self._foreign.findings()]

    def stat(self, time_ms: int, key: str, text: str) -> None:
        """As Aside."""
        if self._options.system_metrics == "yes":
            number = self._numbers.setdefault(_STAT + key, len(self._numbers))
            self._add_single(self._measured[key], number, time_ms, float(json.loads(text)))
            self._measured[key] += 1

    def line(self, stream: str, time_ms: int, text: str) -> None:
        """As Aside."""
        if self._options.console == "yes":
            self._entries.add((CONSOLE + stream, "string_series"), Entry(self._lines[stream], time_ms, text))
            self._lines[stream] += 1

    def _read_history(self) -> None:
        rows = self._foreign.rows(self)
        for points in scanned(rows, self._numbers, self._take, self._take_inexact):
            self._points.add(points)
        self._store_singles()
        self._points.finish()

    def _add_single(self, step: int, number: int, time_ms: int, value: float) -> None:
        self._singles.append((step, number, time_ms, value))
        if len(self._singles) >= _ENOUGH_SINGLES:
            self._store_singles()

    def _store_singles(self) -> None:
        if self._singles:
            steps, numbers, times_ms, values = zip(*self._singles, strict=True)
            places = [np.array(column, dtype=np.int64) for column in (steps, numbers, times_ms)]
            self._points.add(Points(places[0], places[1], places[2], np.array(values, dtype=np.float64)))
            self._singles = []

    def _take(self, step: int, time_ms: int, key: str, text: str) -> None:
        """Something in the history that is no number."""
        path = METRICS + key
        if text in ("true", "false"):
            number = self._numbers.setdefault(key, len(self._numbers))
            self._add_single(step, number, time_ms, float(text == "true"))
            self._tally["bool-as-number", path] += 1
        elif text == "null":
            self._tally["null-value", path] += 1
        elif text[0] != "{":
            value_text = json.loads(text) if text[0] == '"' else text
            if text[0] != '"':
                self._tally["value-as-json", path] += 1
            self._entries.add((path, "string_series"), Entry(step, time_ms, value_text))
        else:
            self._take_object(path, Entry(step, time_ms, text))

    def _take_object(self, path: str, entry: Entry) -> None:
        value = json.loads(entry.text)
        if value.get("_type") == "histogram" and is_histogram(value):
            self._entries.add((path, "histogram_series"), entry)
        elif names := media_of(value):
            self._files_of_history.update(names)
            for number, name in enumerate(names):
                place = path if len(names) == 1 else f"{path}/{number}"
                self._entries.add((place, "file_series"), Entry(entry.step, entry.time_ms, name))
        else:
            self._tally["value-as-json", path] += 1
            self._entries.add((path, "string_series"), entry)

    def _take_inexact(self, key: str, number: int) -> None:
        if key == TIME:
            self._findings.append(Finding("approximation", "time-rounded", "", number, "milliseconds"))
        else:
            self._tally["int-to-float", METRICS + key] += number

    def _files(self, sink: FileSink) -> Iterator[Files]:
        refs: list[FileRef] = []
        for ref in self._each_file(sink):
            refs.append(ref)
            if len(refs) == FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def _each_file(self, sink: FileSink) -> Iterator[FileRef]:
        for path in self._foreign.files() if "files" in self._want.selection.classes else ():
            field = FILES + path
            if path not in self._files_of_history and self._matcher.wants_field(field, "file"):
                yield from self._file(sink, field, "file", path, None)
        for key in self._entries.keys():  # noqa: SIM118 (no mapping)
            if key[1] == "file_series" and self._matcher.wants_field(*key):
                for entry in last_of_each_step(self._entries.entries(key)):
                    yield from self._file(sink, *key, entry.text, entry)
        yield from self._artifacts(sink)

    def _file(
        self, sink: FileSink, field: str, field_type: FieldType, path: str, entry: Entry | None
    ) -> Iterator[FileRef]:
        local = self._staging / f"{next(self._temporary)}.file"
        step = None if entry is None else Decimal(entry.step)
        time_ms = None if entry is None or entry.time_ms == NO_TIME else entry.time_ms
        try:
            self._foreign.get(path, local)
            name = path.rpartition("/")[2]
            yield sink.put(self._run, field, field_type, local, name=name, step=step, time_ms=time_ms)
        except NotFound as error:
            self._findings.append(Finding("gap", "file-not-here", field, detail=error.message))
        except Permanent as error:
            self._findings.append(Finding("loss", "file-refused", field, detail=error.message))
        finally:
            local.unlink(missing_ok=True)

    def _artifacts(self, sink: FileSink) -> Iterator[FileRef]:
        if "files" not in self._want.selection.classes:
            return
        for artifact in self._foreign.artifacts():
            field = ARTIFACTS + artifact.name
            if not self._matcher.wants_field(field, "file_set"):
                continue
            try:
                yield sink.put_tree(self._run, field, "file_set", self._members(field, artifact.members))
            except HostilePath as error:
                self._findings.append(Finding("loss", "hostile-path", field, detail=error.message))

    def _members(self, field: str, members: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Path]]:
        for name, address in members:
            local = self._staging / f"{next(self._temporary)}.file"
            try:
                self._foreign.member(address, local)
            except NotFound as error:
                self._findings.append(Finding("gap", "file-not-here", field, detail=f"{name}: {error.message}"))
                continue
            yield name, local
            local.unlink(missing_ok=True)

    def _series(self) -> Iterator[Chunk]:
        floats: list[tuple[str, FieldType, int | None]] = [
            (_path_of(key), "float_series", number) for key, number in self._numbers.items()
        ]
        others: list[tuple[str, FieldType, int | None]] = [(*key, None) for key in self._entries.keys()]  # noqa: SIM118
        for path, field_type, number in sorted(floats + others, key=lambda one: one[:2]):
            if not self._matcher.wants_field(path, field_type):
                continue
            if number is not None:
                for points in self._points.series(number, self._want.chunk_points):
                    yield float_points(path, points)
            elif field_type != "file_series":
                rows = min(TEXTS_IN_CHUNK, self._want.chunk_points)
                for entries in batches(self._entries.entries((path, field_type)), rows):
                    make = text_points if field_type == "string_series" else histogram_points
                    yield make(path, entries)


def _path_of(key: str) -> str:
    return SYSTEM + key[1:] if key.startswith(_STAT) else METRICS + key
