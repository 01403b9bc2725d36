"""Offline archives, written directly: what `comet upload` takes, without the vendor's client.

An archive is a zip of `experiment.json`, `messages.json` and asset files. A long run becomes several archives of one
experiment: `<key>-0001.zip` … hold points alone, and `<key>.zip`, finished last, everything else. In this order, which is
also that of the shell, the vendor's uploader creates the experiment, goes on with it, and ends with its end time.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import msgspec

from shardmig.adapters.comet.lines import Asset, Plain, file_line, metric_lines, other_line, param_line
from shardmig.adapters.comet.messages import ExperimentFile
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.archive.layout import disk_errors

EXPERIMENT: Final = "experiment.json"
MESSAGES: Final = "messages.json"
_QUICK: Final = 1
_BLOCK_BYTES: Final = 1 << 20


class ArchiveWriter:
    """The archives of one experiment while they are written into `folder`, which is its own. Memory: one chunk.

    Methods raise DiskFull. `add_file` may be called from another thread than the rest.
    """

    def __init__(self, folder: Path, experiment: ExperimentFile, *, points_per_archive: int) -> None:
        self._folder = folder
        self._experiment = experiment
        self._key = experiment.offline_id
        self._points_per_archive = points_per_archive
        self._room = points_per_archive
        self._files = 0
        self._numbered: list[Path] = []
        self._lock = threading.Lock()
        with disk_errors("an offline archive"):
            self._messages: IO[bytes] = (folder / "messages.jsonl").open("w+b")
            self._points: IO[bytes] = (folder / "points.jsonl").open("w+b")
            self._zip = ZipFile(folder / f"{self._key}.zip", "w", allowZip64=True)

    @property
    def numbered(self) -> int:
        """How many archives are finished."""
        return len(self._numbered)

    def add_params(self, params: Mapping[str, Plain]) -> None:
        """Parameters."""
        self._add(b"".join(param_line(key, value, self._experiment.start_time) for key, value in params.items()))

    def add_others(self, others: Mapping[str, Plain]) -> None:
        """Facts of the experiment itself."""
        self._add(b"".join(other_line(key, value) for key, value in others.items()))

    def add_points(self, metrics: Metrics) -> None:
        """Points."""
        every = metrics.points()
        for key, rows in metrics.spans():
            points = every.part(rows)
            while len(points.steps):
                if not self._room:
                    self._end_numbered()
                some = points.part(slice(0, self._room))
                with disk_errors("an offline archive"):
                    self._points.writelines(metric_lines(key, some))
                self._room -= len(some.steps)
                points = points.part(slice(len(some.steps), None))

    def add_file(self, file: Path, asset: Asset) -> None:
        """A file."""
        with disk_errors(f"asset {asset.name}"), file.open("rb") as content:
            self.add_content(content, asset)

    def add_content(self, content: BinaryIO, asset: Asset) -> None:
        """A file from what it holds."""
        with self._lock, disk_errors(f"asset {asset.name}"):
            self._files += 1
            member = f"{self._files:07}{_plain_suffix(asset.name)}"
            with self._zip.open(_member(member, ZIP_STORED), "w", force_zip64=True) as target:
                shutil.copyfileobj(content, target, _BLOCK_BYTES)
            self._messages.write(file_line(asset, member))

    def finish(self) -> list[Path]:
        """Close everything; the archives in the order in which they are to be uploaded."""
        with disk_errors("an offline archive"):
            _pack(self._zip, self._experiment, [self._messages, self._points])
        self.close()
        return [*self._numbered, self._folder / f"{self._key}.zip"]

    def close(self) -> None:
        """Give up, or end; idempotent."""
        with disk_errors("an offline archive"):
            self._messages.close()
            self._points.close()
            self._zip.close()

    def _add(self, lines: bytes) -> None:
        with self._lock, disk_errors("an offline archive"):
            self._messages.write(lines)

    def _end_numbered(self) -> None:
        path = self._folder / f"{self._key}-{len(self._numbered) + 1:04}.zip"
        with disk_errors("an offline archive"):
            with ZipFile(path, "w", allowZip64=True) as archive:
                _pack(archive, self._experiment, [self._points])
            self._points.seek(0)
            self._points.truncate()
        self._numbered.append(path)
        self._room = self._points_per_archive


def _pack(archive: ZipFile, experiment: ExperimentFile, messages: list[IO[bytes]]) -> None:
    archive.writestr(_member(EXPERIMENT, ZIP_STORED), msgspec.json.encode(experiment))
    with archive.open(_member(MESSAGES, ZIP_DEFLATED), "w", force_zip64=True) as target:
        for lines in messages:
            lines.seek(0)
            shutil.copyfileobj(lines, target, _BLOCK_BYTES)


def _member(name: str, compression: int) -> ZipInfo:
    """A member without a date of its own: the same run gives the same archive, byte for byte."""
    info = ZipInfo(name)
    info.compress_type = compression
    info._compresslevel = _QUICK if compression == ZIP_DEFLATED else None  # type: ignore[attr-defined]  # noqa: SLF001
    return info


def _plain_suffix(name: str) -> str:
    """An extension that the vendor's client may show; any other is left out."""
    suffix = Path(name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 10 else ""
