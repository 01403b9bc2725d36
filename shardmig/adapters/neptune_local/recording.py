"""What both generations offer to the read side: a run that was replayed once and whose series can be streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune_local.columns import Rows, SeriesTable
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.records import Field, FieldType, FileRef, Files, Points, RunRef

WINDOW_FILES: Final = 500
WINDOW_TEXT_CHARACTERS: Final = 16_000_000


class PlannedFile(NamedTuple):
    """A file field whose final content is known; `put` stores it."""

    path: str
    type: FieldType
    put: Callable[[FileSink, RunRef], FileRef]


class Window(NamedTuple):
    """The chunks of one stretch of a log, and the state from which the next stretch is read."""

    chunks: list[Points | Files]
    state: bytes


class Recording(Protocol):
    """One run, replayed: scalars and files in their final state, series to be streamed."""

    source_version: str
    fields: list[Field]
    files: list[PlannedFile]
    findings: FindingLog

    def windows(self, state: bytes, most: int, sink: FileSink, findings: FindingLog) -> Iterator[Window]:
        """The series from `state` on (b"" = from the start), in chunks of at most `most` points. The same state and
        `most` give the same windows."""
        ...


class Stretch:
    """Rows and stored files gathered since the last window."""

    def __init__(self, table: SeriesTable, *, micro_steps: bool) -> None:
        self.table = table
        self.floats = Rows("float_series", micro_steps=micro_steps)
        self.texts = Rows("string_series", micro_steps=micro_steps)
        self.histograms = Rows("histogram_series", micro_steps=micro_steps)
        self.files: list[FileRef] = []
        self.text_characters = 0

    def is_full(self, most: int) -> bool:
        """Is it time to close the window? A little early, so that what one more block brings makes no tiny chunk."""
        enough = most - most // 64
        return (
            len(self.floats) >= enough
            or len(self.texts) >= enough
            or self.text_characters >= WINDOW_TEXT_CHARACTERS
            or len(self.histograms) >= most // 16
            or len(self.files) >= WINDOW_FILES
        )

    def take_chunks(self, most: int, findings: FindingLog) -> list[Points | Files]:
        """Everything gathered, as chunks; empty afterwards."""
        chunks: list[Points | Files] = []
        for rows in (self.floats, self.texts, self.histograms):
            chunks += rows.chunks(self.table, most, findings)
            rows.clear()
        if self.files:
            chunks.append(Files(self.files))
        self.files = []
        self.text_characters = 0
        return chunks
