"""Counting what passes, and telling it while an attempt lasts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from shardmig import codec
from shardmig.records import (
    Chunk,
    Counters,
    Fields,
    Files,
    FloatPoints,
    Header,
    HistogramPoints,
    StringPoints,
)

_EVERY_S: Final = 0.5


def count(chunk: Chunk) -> Counters:
    """What one chunk holds; a run is counted by its Header. Series are counted as fields by whoever sees them whole."""
    if isinstance(chunk, FloatPoints):
        return Counters(points=len(chunk.values))
    if isinstance(chunk, StringPoints):
        return Counters(texts=len(chunk.values))
    if isinstance(chunk, HistogramPoints):
        return Counters(histograms=len(chunk.values))
    if isinstance(chunk, Fields):
        return Counters(fields=len(chunk.fields))
    if isinstance(chunk, Files):
        return Counters(files=len(chunk.files), bytes=sum(max(0, file.size_bytes) for file in chunk.files))
    return Counters(runs=1) if isinstance(chunk, Header) else Counters()


def fields_of(chunk: Chunk) -> set[tuple[str, str]]:
    """The fields that a chunk holds a part of, by path and type: a series may go on in the next one."""
    if isinstance(chunk, FloatPoints | StringPoints | HistogramPoints):
        return {(path, type(chunk).__name__) for path in chunk.paths}
    if isinstance(chunk, Fields):
        return {(field.path, field.type) for field in chunk.fields}
    return {(ref.path, ref.type) for ref in chunk.files} if isinstance(chunk, Files) else set()


class ProgressFile:
    """Counters of the attempt in progress, rewritten at most twice a second. Lossy by intent: display only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counters = Counters()
        self._written_s = time.monotonic()

    def add(self, counters: Counters) -> None:
        """Count, and tell it if it is time to."""
        self._counters += counters
        if time.monotonic() - self._written_s < _EVERY_S:
            return
        self._written_s = time.monotonic()
        scratch = self._path.with_suffix(".tmp")
        scratch.write_bytes(codec.encode(self._counters))
        os.replace(scratch, self._path)


def read_progress(path: Path) -> Counters:
    """What an attempt in progress told last; nothing if it told nothing yet."""
    try:
        return codec.decode(path.read_bytes(), Counters)
    except (OSError, ValueError):
        return Counters()
