"""Reads the log of 1.x container folders: data-<version>.log files of JSON lines.

Never opened with the client's queue classes: those create, append to and delete files.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from shardmig.adapters.neptune_local.lines2 import decode_block
from shardmig.adapters.neptune_local.operations2 import Record, Trouble, UploadFile
from shardmig.adapters.neptune_local.versions2 import Position, Versions

BLOCK_BYTES: Final = 32 * 1024
"""Measured: decoding 100 000 one-point lines takes 0.5 us a line in blocks of 30 kB, 2 us in blocks of 1 MB (caches)."""

_DATA_FILE: Final = re.compile(r"data-(\d+)\.log$")
_MERGED_RECORDS: Final = 256


class Block(NamedTuple):
    """Some records, and where each folder's log stands behind them."""

    records: Sequence[Record | Trouble]
    end: tuple[Position, ...]


class FolderLog:
    """The log of one folder. `skip_to`: leave out records up to this version. `acked`: up to this one the server has had
    everything. `start_s`: orders a log whose records carry no time among others of the same run."""

    def __init__(self, folder: Path, *, skip_to: int = 0, acked: int = 0, start_s: float = 0.0) -> None:
        self.folder = folder
        self.files = data_files(folder)
        self.skip_to = skip_to
        self.acked = acked
        self.start_s = start_s
        self.versions = Versions(self.files, skip_to)

    def blocks(
        self, start: Position, block_bytes: int, *, is_first_pass: bool
    ) -> Iterator[tuple[Sequence[Record | Trouble], Position]]:
        """Records in order, and the position behind them. Lines longer than a block make it longer. The first pass
        learns which records are repetitions; the second leaves out the same ones."""
        for number in range(start.file, len(self.files)):
            line = 1
            with open(self.files[number], "rb") as file:
                file.seek(start.offset if number == start.file else 0)
                at = Position(number, file.tell())
                while block := file.read(block_bytes):
                    block += file.readline()
                    is_tail = not block.endswith(b"\n") and number == len(self.files) - 1
                    records = decode_block(block, str(self.files[number]), line, is_tail=is_tail)
                    line += block.count(b"\n")
                    if self.skip_to:
                        records = [one for one in records if one.version == 0 or one.version > self.skip_to]
                    new = self.versions.learn(at, records) if is_first_pass else self.versions.new(at, records)
                    at = Position(number, file.tell())
                    if self.acked and is_first_pass:
                        _mark_acked(new, self.acked)
                    yield new, at


def _mark_acked(records: Sequence[Record | Trouble], acked: int) -> None:
    for record in records:
        if type(record.obj) is UploadFile:
            record.obj.is_acked = 0 < record.version <= acked


def is_data_file(name: str) -> bool:
    """Is a file of this name part of a log?"""
    return _DATA_FILE.match(name) is not None


def data_files(folder: Path) -> list[Path]:
    """The log files of a folder in the order of their first version."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _DATA_FILE.match(path.name))]
    return [path for _, path in sorted(found)]


def read_counter(path: Path) -> int | None:
    """The number in last_put_version or last_ack_version. None: absent, empty or unreadable."""
    try:
        return int(path.read_text("ascii", "replace"))
    except (FileNotFoundError, ValueError):
        return None


def merged_blocks(logs: Sequence[FolderLog], starts: Sequence[Position], *, is_first_pass: bool) -> Iterator[Block]:
    """The records of all folders of a run, ordered by the time of writing. Which record is next depends on the
    positions alone, so reading can go on from any `Block.end`."""
    if len(logs) == 1:
        for records, end in logs[0].blocks(starts[0], BLOCK_BYTES, is_first_pass=is_first_pass):
            yield Block(records, (end,))
        return
    ends = list(starts)
    merged: list[Record | Trouble] = []
    streams = [
        _timed(number, log, start, is_first_pass) for number, (log, start) in enumerate(zip(logs, starts, strict=True))
    ]
    for _, number, records, end in heapq.merge(*streams, key=lambda line: line[0]):
        merged += records
        ends[number] = end
        if len(merged) >= _MERGED_RECORDS:
            yield Block(merged, tuple(ends))
            merged = []
    yield Block(merged, tuple(ends))


def _timed(
    number: int, log: FolderLog, start: Position, is_first_pass: bool
) -> Iterator[tuple[float, int, Sequence[Record | Trouble], Position]]:
    for records, end in log.blocks(start, 1, is_first_pass=is_first_pass):
        at = records[0].at if records else None
        yield log.start_s if at is None else at, number, records, end
