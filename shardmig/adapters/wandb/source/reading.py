"""One run that W&B's own client made, as chunks."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.history import TIME
from shardmig.adapters.wandb.scan import scanned
from shardmig.adapters.wandb.source.foreign import Artifact, ForeignRun
from shardmig.adapters.wandb.source.native import (
    ARTIFACTS,
    CONSOLE,
    FILES,
    METRICS,
    SYSTEM,
    Fielder,
    clean_text,
    media_of,
    says_more,
)
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
    Field,
    Fields,
    FieldType,
    FileRef,
    Files,
    Finding,
    FindingKind,
    RunRef,
    Steps,
)
from shardmig.records import Points as SeriesPoints
from shardmig.selection import Matcher

FIELDS_IN_CHUNK: Final = 5_000
FILES_IN_CHUNK: Final = 50
TEXTS_IN_CHUNK: Final = 5_000
_ENOUGH_SINGLES: Final = 100_000
_KINDS: Final[dict[str, FindingKind]] = dict.fromkeys(
    ("bool-as-number", "int-to-float", "lone-surrogate"), "approximation"
)
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
        self._temporary = itertools.count()
        self._findings: list[Finding] = []

    def chunks(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted but Header and End."""
        artifacts = list(self._foreign.artifacts())
        every, told = self.scalars(artifacts)
        fields = [field for field in every if self._matcher.wants_field(field.path, field.type)]
        fields.sort(key=lambda field: (field.path, field.type))
        for start in range(0, len(fields), FIELDS_IN_CHUNK):
            yield Fields(fields[start : start + FIELDS_IN_CHUNK])
        self._findings += told
        if set(self._want.selection.classes) - {"parameters"}:
            self.read_history()
            yield from self._files(sink, artifacts)
            yield from self._series()

    def findings(self) -> list[Finding]:
        """What was changed or could not be read."""
        counted = [
            Finding(_KINDS.get(code, "note"), code, path, number)
            for (code, path), number in sorted(self._tally.items())
        ]
        return [*self._findings, *counted, *self._foreign.findings()]

    def scalars(self, artifacts: Iterable[Artifact]) -> tuple[list[Field], list[Finding]]:
        """The scalar fields, in no order, and what had to be changed."""
        fielder = Fielder()
        return list(fielder.fields(self._foreign, artifacts)), fielder.findings

    def named(self, field: str) -> str:
        """What a field is called that is no scalar of config or summary. Always the same for one name."""
        return field

    def series(self, key: str) -> str:
        """What the series of a key of the history are called."""
        return METRICS + key

    def steps(self, path: str, steps: Steps) -> Steps:  # noqa: ARG002 (of a run that was brought some have others)
        """The steps of a series."""
        return steps

    def stat(self, time_ms: int, key: str, text: str) -> None:
        """As Aside."""
        if self._options.system_metrics == "yes":
            value = json.loads(text)
            if isinstance(value, int | float):
                number = self._numbers.setdefault(_STAT + key, len(self._numbers))
                self._add_single(self._measured[key], number, time_ms, float(value))
            else:
                self._as_json(self.named(SYSTEM + key), Entry(self._measured[key], time_ms, text))
            self._measured[key] += 1

    def line(self, stream: str, time_ms: int, text: str) -> None:
        """As Aside."""
        if self._options.console == "yes":
            path = self.named(CONSOLE + stream)
            self._entries.add((path, "string_series"), Entry(self._lines[stream], time_ms, text))
            self._lines[stream] += 1

    def read_history(self) -> None:
        """Put everything in order that the history holds, and what is met beside it."""
        rows = self._foreign.rows(self)
        for points in scanned(rows, self._numbers, self.take, self.take_inexact):
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

    def take(self, step: int, time_ms: int, key: str, text: str) -> None:
        """Something in the history that is no number."""
        path = self.series(key)
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
            elif (clean := clean_text(value_text)) != value_text:
                self._tally["lone-surrogate", path] += 1
                value_text = clean
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
            if says_more(value):
                self._as_json(path, entry)
        else:
            self._as_json(path, entry)

    def _as_json(self, path: str, entry: Entry) -> None:
        self._tally["value-as-json", path] += 1
        self._entries.add((path, "string_series"), entry)

    def take_inexact(self, key: str, number: int) -> None:
        """Numbers, or times of rows, that are not held exactly."""
        if key == TIME:
            self._findings.append(Finding("approximation", "time-rounded", "", number, "milliseconds"))
        else:
            self._tally["int-to-float", self.series(key)] += number

    def _files(self, sink: FileSink, artifacts: Iterable[Artifact]) -> Iterator[Files]:
        refs: list[FileRef] = []
        for ref in itertools.chain(self._each_file(sink), self._artifacts(sink, artifacts)):
            refs.append(ref)
            if len(refs) == FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def _each_file(self, sink: FileSink) -> Iterator[FileRef]:
        if "files" not in self._want.selection.classes:
            return
        superseded: set[str] = set()
        for key in self._entries.keys():  # noqa: SIM118 (no mapping)
            if key[1] == "file_series":
                kept = last_of_each_step(self._entries.entries(key))
                superseded.update(entry.text for entry in self._entries.entries(key))
                superseded.difference_update(entry.text for entry in kept)
                for entry in kept if self._matcher.wants_field(*key) else ():
                    yield from self._file(sink, *key, entry.text, entry)
        for path in self._foreign.files():
            field = self.named(FILES + path)
            if path in self._files_of_history and path not in superseded:
                continue
            if self._matcher.wants_field(field, "file"):
                yield from self._file(sink, field, "file", path, None)

    def _file(
        self, sink: FileSink, field: str, field_type: FieldType, path: str, entry: Entry | None
    ) -> Iterator[FileRef]:
        local = self._staging / f"{next(self._temporary)}.file"
        step = None if entry is None else self._step(field, entry)
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

    def _artifacts(self, sink: FileSink, artifacts: Iterable[Artifact]) -> Iterator[FileRef]:
        for artifact in artifacts if "files" in self._want.selection.classes else ():
            field = self.named(ARTIFACTS + artifact.name)
            if not self._matcher.wants_field(field, "file_set"):
                continue
            if artifact.lacks:
                self._findings.append(Finding("gap", "file-not-here", field, detail=artifact.lacks))
            try:
                yield sink.put_tree(self._run, field, "file_set", self._members(field, artifact.members))
            except HostilePath as error:
                self._findings.append(Finding("loss", "hostile-path", field, detail=error.message))
            except NotFound as error:
                self._findings.append(Finding("gap", "file-not-here", field, detail=error.message))
            except Permanent as error:
                self._findings.append(Finding("loss", "file-refused", field, detail=error.message))

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
            (self._path_of(key), "float_series", number) for key, number in self._numbers.items()
        ]
        others: list[tuple[str, FieldType, int | None]] = [(*key, None) for key in self._entries.keys()]  # noqa: SIM118
        for path, field_type, number in sorted(floats + others, key=lambda one: one[:2]):
            if not self._matcher.wants_field(path, field_type):
                continue
            if number is not None:
                for points in self._points.series(number, self._want.chunk_points):
                    yield self._placed(path, float_points(path, points))
            elif field_type != "file_series":
                rows = min(TEXTS_IN_CHUNK, self._want.chunk_points)
                for entries in batches(self._entries.entries((path, field_type)), rows):
                    make = text_points if field_type == "string_series" else histogram_points
                    yield self._placed(path, make(path, entries))

    def _placed(self, path: str, points: SeriesPoints) -> SeriesPoints:
        return msgspec.structs.replace(points, steps=self.steps(path, points.steps))

    def _step(self, path: str, entry: Entry) -> Decimal:
        (step,) = self.steps(path, Steps(np.array([entry.step], dtype=np.int64))).to_decimals()
        return step

    def _path_of(self, key: str) -> str:
        return self.named(SYSTEM + key[1:]) if key.startswith(_STAT) else self.series(key)
