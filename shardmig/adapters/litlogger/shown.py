"""What Lightning shows of a run beside its numbers, as its media: pictures, videos, and each histogram series as a picture.

Media are for people. What is read back are the artifacts beside them, so whatever cannot be shown is a note: `not-shown`.
"""

from __future__ import annotations

import mimetypes
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shardmig import steps
from shardmig.adapters.base import FileStore
from shardmig.adapters.litlogger.answers import Media, Stream
from shardmig.adapters.litlogger.cloud import Cloud, NewMedium
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.heatmap import Heatmap
from shardmig.adapters.sidecar.manifest import wanted_path
from shardmig.adapters.sidecar.writing import REFUSED
from shardmig.archive.layout import disk_errors
from shardmig.errors import Permanent
from shardmig.records import Chunk, FileRef, Files, Finding, HistogramPoints

_KINDS: Final = ("image/", "video/")


class MediaOfRun:
    """The media of one experiment. One is told from the others by its caption, so none is there twice."""

    def __init__(self, cloud: Cloud, stream: Stream, drive: Drive, *, is_new: bool) -> None:
        self._cloud = cloud
        self._stream = stream
        self._drive = drive
        self._there: dict[str, Media] = {} if is_new else {one.caption: one for one in cloud.media(stream)}

    def put(self, file: Path, name: str, caption: str, mime_type: str, step: int | None) -> None:
        """Show a file, unless it is shown already."""
        medium = self._there.get(caption)
        if medium is None:
            wanted = NewMedium(name, caption, mime_type, file.stat().st_size, _hash_of(file), step)
            medium = self._there[caption] = self._cloud.add_medium(self._stream, wanted)
        if not medium.upload_complete:
            self._drive.put_on_drive(file, medium.storage_path)
            self._cloud.complete_medium(self._stream, medium)


class Shown:
    """The shown forms of one run. One use. `most`: media. `picture`: where a file may be written."""

    def __init__(self, media: MediaOfRun, files: FileStore, picture: Path, *, most: int, step_multiplier: int) -> None:
        self._media = media
        self._files = files
        self._picture = picture
        self._room = most
        self._step_multiplier = step_multiplier
        self._left_out: Counter[str] = Counter()
        self._heatmap: tuple[str, Heatmap] | None = None

    def watched(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same chunks; what is shown of them goes up on their way."""
        for chunk in chunks:
            if isinstance(chunk, HistogramPoints):
                for path, histograms in chunk.series():
                    self._heatmap_of(path).add(histograms)
            else:
                self._end_heatmap()
            if isinstance(chunk, Files):
                for ref in chunk.files:
                    self._show_file(ref)
            yield chunk

    def findings(self) -> list[Finding]:
        """What is not shown, or not all of it."""
        return [Finding("note", "not-shown", path, count=count) for path, count in sorted((+self._left_out).items())]

    def _heatmap_of(self, path: str) -> Heatmap:
        if self._heatmap is None or self._heatmap[0] != path:
            self._end_heatmap()
            self._heatmap = (path, Heatmap())
        return self._heatmap[1]

    def _end_heatmap(self) -> None:
        if self._heatmap is None:
            return
        (path, heatmap), self._heatmap = self._heatmap, None
        self._left_out[path] += heatmap.left_out
        if legend := heatmap.legend():
            with disk_errors(f"the picture of {path}"):
                self._picture.write_bytes(heatmap.png())
            self._show(self._picture, path, f"{path}: {legend}", "image/png", None)

    def _show_file(self, ref: FileRef) -> None:
        mime_type = mimetypes.guess_type(ref.name or ref.stored)[0] or ""
        if ref.is_tree or not mime_type.startswith(_KINDS):
            return
        try:
            file = self._files.path(ref)
        except REFUSED:  # a loss, which is told where the artifact is written
            return
        step = None if ref.step is None else steps.shown_step(ref.step, self._step_multiplier)
        self._show(file, ref.path, wanted_path(ref), mime_type, step)

    def _show(self, file: Path, path: str, caption: str, mime_type: str, step: int | None) -> None:
        if not self._room:
            self._left_out[path] += 1
            return
        self._room -= 1
        try:
            self._media.put(file, path, caption, mime_type, step)
        except Permanent:  # refused: it is not seen, and nothing else
            self._left_out[path] += 1


def _hash_of(file: Path) -> str:
    """As litlogger has it."""
    from blake3 import blake3

    return blake3().update_mmap(file).hexdigest()
