"""One experiment that Lightning has of its own, as chunks.

field                                from
sys/id, sys/name                     the experiment's name
sys/creation_time, sys/modification_time
sys/state, sys/failed                its phase
litlogger/<fact>                     stream id, phase, colours; system/<fact> what the client told of its computer
metadata/<name>                      metadata, as texts
metrics/<name>                       points with step and, where it was stored, time
artifacts/<path>                     files
media/<name>                         images, texts and videos: a file, or a file series where there are several
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import count, groupby
from pathlib import Path
from typing import Final

import numpy as np

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.litlogger.answers import Media, Stream
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.histories import Histories, times_of
from shardmig.errors import Permanent
from shardmig.records import (
    NO_TIME,
    Chunk,
    Field,
    Fields,
    FieldType,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    RunRef,
    Steps,
)
from shardmig.selection import Matcher

METADATA: Final = "metadata/"
METRICS: Final = "metrics/"
ARTIFACTS: Final = "artifacts/"
MEDIA: Final = "media/"
OWN_FACTS: Final = "litlogger/"
_FILES_IN_CHUNK: Final = 50


class Reading:
    """One experiment as chunks. Memory: one chunk, and one window of points."""

    def __init__(self, cloud: Cloud, run: RunRef, stream: Stream, drive: Drive, want: Want) -> None:
        self._cloud = cloud
        self._run = run
        self._stream = stream
        self._drive = drive
        self._want = want
        self._wants = Matcher(want.selection).wants_field
        self._findings: list[Finding] = []

    @property
    def findings(self) -> list[Finding]:
        """What could not be read."""
        return self._findings

    def artifacts(self) -> Iterable[str]:
        """The paths of the artifacts to read."""
        return self._cloud.artifacts(self._stream)

    def media(self) -> Iterable[Media]:
        """The media to read."""
        return self._cloud.media(self._stream)

    def named(self, field: str) -> str:
        """What the field of an artifact or of media is called."""
        return field

    def fields(self) -> Iterator[Chunk]:
        """The scalar fields, sorted."""
        found = {(field.path, field.type): field for field in self._all_fields()}
        wanted = [field for field in found.values() if self._wants(field.path, field.type)]
        if wanted:
            yield Fields(sorted(wanted, key=lambda field: (field.path, field.type)))

    def files(self, sink: FileSink, staging: Path) -> Iterator[Chunk]:
        """Artifacts, then media. `staging`: an empty folder."""
        if "files" not in self._want.selection.classes:
            return
        refs: list[FileRef] = []
        for ref in self._all_files(sink, staging):
            refs.append(ref)
            if len(refs) == _FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def points(self) -> Iterator[Chunk]:
        """All points of the metrics, sorted by name."""
        summaries = self._cloud.summaries(self._stream)
        keys = sorted(key for key in summaries if self._wants(METRICS + key, "float_series"))
        if not keys:
            return
        histories = Histories(self._cloud, self._stream, summaries)
        try:
            for metrics in histories.points(keys, self._want.chunk_points):
                paths = [METRICS + key for key in metrics.keys]
                yield from _bounded(
                    FloatPoints(paths, metrics.lengths, Steps(metrics.steps), metrics.times_ms, metrics.values),
                    self._want.chunk_points,
                )
        finally:
            histories.close()
        for key in sorted(histories.short.keys() & set(keys)):
            detail = f"Lightning counts {summaries[key].num_values} values"
            self._findings.append(Finding("loss", "series-cut", METRICS + key, histories.short[key], detail))

    def _all_fields(self) -> Iterator[Field]:
        stream = self._stream
        yield Field("sys/id", "string", stream.name)
        yield Field("sys/name", "string", stream.name)
        yield Field("sys/failed", "bool", stream.phase == "FAILED")
        yield Field("sys/state", "string", "running" if stream.phase == "RUNNING" else "inactive")
        for path, text in (("sys/creation_time", stream.created_at), ("sys/modification_time", stream.updated_at)):
            if (time_ms := time_of(text)) is not None:
                yield Field(path, "datetime", time_ms)
        own = {"stream_id": stream.id, "phase": stream.phase, "light_color": stream.light_color}
        own |= {"dark_color": stream.dark_color}
        own |= {f"system/{name}": str(fact) for name, fact in (stream.system_info or {}).items() if fact is not None}
        yield from (Field(OWN_FACTS + name, "string", text) for name, text in own.items() if text)
        yield from (Field(METADATA + name, "string", text) for name, text in stream.metadata.items())

    def _all_files(self, sink: FileSink, staging: Path) -> Iterator[FileRef]:
        numbers = count()
        for path in self.artifacts():
            field = self.named(ARTIFACTS + path)
            if not self._wants(field, "file"):
                continue
            local = staging / str(next(numbers))
            try:
                self._drive.get(path, local)
                yield sink.put(self._run, field, "file", local, name=path.rpartition("/")[2])
            except Permanent as error:
                self._findings.append(Finding("loss", "artifact-unreadable", field, detail=error.message))
            local.unlink(missing_ok=True)
        for field, field_type, media in _media_fields(self.media()):
            field = self.named(field)
            if self._wants(field, field_type):
                yield from self._medium(field, field_type, media, sink, staging / str(next(numbers)))

    def _medium(
        self, field: str, field_type: FieldType, media: Media, sink: FileSink, local: Path
    ) -> Iterator[FileRef]:
        step = None if field_type == "file" or media.step is None else Decimal(int(media.step))
        name = media.storage_path.rpartition("/")[2]
        try:
            self._drive.get_from_drive(media.storage_path, local, media.cluster_id)
            time_ms = time_of(media.created_at)
            yield sink.put(self._run, field, field_type, local, name=name, step=step, time_ms=time_ms)
        except Permanent as error:
            self._findings.append(Finding("loss", "artifact-unreadable", field, detail=error.message))
        local.unlink(missing_ok=True)


def time_of(text: str | None) -> int | None:
    """A time of the API in ms, None where there is none."""
    time_ms = int(times_of([text])[0])
    return None if time_ms == NO_TIME else time_ms


def _media_fields(media: Iterable[Media]) -> Iterator[tuple[str, FieldType, Media]]:
    """A field for each. Those of one name are a series where their steps tell them apart; else each has a field."""
    for name, group in groupby(sorted(media, key=lambda one: one.name), key=lambda one: one.name):
        same = list(group)
        steps = Counter(one.step for one in same)
        if len(same) == 1 and same[0].step is None:
            yield f"{MEDIA}{name}", "file", same[0]
        elif None not in steps and max(steps.values()) == 1:
            for one in sorted(same, key=lambda one: int(one.step or 0)):
                yield f"{MEDIA}{name}", "file_series", one
        else:
            yield from ((f"{MEDIA}{name}/{one.id}", "file", one) for one in sorted(same, key=lambda one: one.id))


def _bounded(points: FloatPoints, rows: int) -> Iterator[FloatPoints]:
    """The same points, at most `rows` at a time: whoever logs without steps has all of them at one."""
    if len(points.times_ms) <= rows:
        yield points
        return
    for path, series in points.series():
        for start in range(0, len(series.times_ms), rows):
            part = slice(start, start + rows)
            times_ms = series.times_ms[part]
            lengths = np.array([len(times_ms)], np.int64)
            yield FloatPoints([path], lengths, series.steps[part], times_ms, series.values[part])
