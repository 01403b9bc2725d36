"""Reads the log of 1.x container folders: data-<version>.log files of JSON lines.

Never opened with the client's queue classes (those create, append to and delete files). A block of lines is decoded
at once; a block that is refused is decoded line by line, and such a line with the standard library's lenient decoder,
which is what the client itself reads with. What stays unreadable becomes a `Trouble` record in its place.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.operations2 import CUT_RECORD, Problem, Record, Trouble, name_of_unknown

BLOCK_BYTES: Final = 32 * 1024
"""Measured: decoding 100 000 one-point lines takes 0.5 us a line in blocks of 30 kB, 2 us in blocks of 1 MB (caches)."""

_DATA_FILE: Final = re.compile(r"data-(\d+)\.log$")
_MERGED_RECORDS: Final = 256
_decoder: Final = msgspec.json.Decoder(list[Record])
_line_decoder: Final = msgspec.json.Decoder(Record)
_lenient: Final = JSONDecoder(strict=False)


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where in a folder's log reading goes on: data file by number, byte offset."""

    file: int = 0
    offset: int = 0


class Block(NamedTuple):
    """Some records, and where each folder's log stands behind them."""

    records: Sequence[Record | Trouble]
    end: tuple[Position, ...]


class FolderLog:
    """The log of one folder. `skip_to`: leave out records up to this version. `start_s`: orders a log whose records
    carry no time among others of the same run."""

    def __init__(self, folder: Path, *, skip_to: int = 0, start_s: float = 0.0) -> None:
        self.folder = folder
        self.files = data_files(folder)
        self.skip_to = skip_to
        self.start_s = start_s
        self.tally = Tally(skip_to)

    def blocks(self, start: Position, block_bytes: int) -> Iterator[tuple[Sequence[Record | Trouble], Position]]:
        """Records in order, and the position behind them. Lines longer than a block make it longer."""
        for number in range(start.file, len(self.files)):
            line = 1
            with open(self.files[number], "rb") as file:
                file.seek(start.offset if number == start.file else 0)
                while block := file.read(block_bytes):
                    block += file.readline()
                    is_tail = not block.endswith(b"\n") and number == len(self.files) - 1
                    records = _decode_block(block, f"{self.files[number]}:", line, is_tail)
                    line += block.count(b"\n")
                    if self.skip_to:
                        records = [one for one in records if one.version == 0 or one.version > self.skip_to]
                    yield records, Position(number, file.tell())


class Tally:
    """Counts which versions a folder's log holds: they rise by one, so what is missing is known exactly."""

    def __init__(self, skip_to: int) -> None:
        self._first = 0
        self._last = skip_to
        self._skip_to = skip_to
        self._missing = 0
        self._unreadable = 0
        self._cut = ""

    def add(self, records: Sequence[Record | Trouble]) -> None:
        """Count the next records of the folder."""
        versions = [record.version for record in records]
        if (
            self._first
            and not self._unreadable
            and versions == list(range(self._last + 1, self._last + 1 + len(versions)))
        ):
            self._last += len(versions)
            return
        for record in records:
            if isinstance(record.obj, Problem) and record.version == 0:
                if record.obj.code == CUT_RECORD:
                    self._cut = record.obj.detail
                self._unreadable += record.obj.code == "bad-record"
            elif record.version > 0:
                self._count(record.version)

    def report(self, last_put: int | None, findings: FindingLog) -> None:
        """What the counted versions and the client's own counter say about records that are gone."""
        if self._first > self._skip_to + 1 and self._first - self._skip_to - 1 > 0:
            findings.add(
                "gap",
                "partial-start",
                count=self._first - self._skip_to - 1,
                detail=f"the log begins with record {self._first}",
            )
        lost = self._missing
        if last_put is not None:
            lost += max(0, last_put - self._last - self._unreadable)
        if lost:
            detail = f"the client wrote {last_put} records, the last one found is {self._last}"
            findings.add("gap", "lost-records", count=lost, detail=detail)
        elif self._cut:
            findings.add("gap", CUT_RECORD, detail=self._cut)

    def _count(self, version: int) -> None:
        if not self._first:
            self._first = version - self._unreadable
        else:
            self._missing += max(0, version - self._last - 1 - self._unreadable)
        self._unreadable = 0
        self._last = max(self._last, version)


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


def merged_blocks(logs: Sequence[FolderLog], starts: Sequence[Position], *, tally: bool = False) -> Iterator[Block]:
    """The records of all folders of a run, ordered by the time of writing. Which record is next depends on the
    positions alone, so reading can go on from any `Block.end`."""
    if len(logs) == 1:
        for records, end in logs[0].blocks(starts[0], BLOCK_BYTES):
            if tally:
                logs[0].tally.add(records)
            yield Block(records, (end,))
        return
    ends = list(starts)
    merged: list[Record | Trouble] = []
    streams = [_timed(number, log, start) for number, (log, start) in enumerate(zip(logs, starts, strict=True))]
    for _, number, records, end in heapq.merge(*streams, key=lambda line: line[0]):
        if tally:
            logs[number].tally.add(records)
        merged += records
        ends[number] = end
        if len(merged) >= _MERGED_RECORDS:
            yield Block(merged, tuple(ends))
            merged = []
    yield Block(merged, tuple(ends))


def _timed(
    number: int, log: FolderLog, start: Position
) -> Iterator[tuple[float, int, Sequence[Record | Trouble], Position]]:
    for records, end in log.blocks(start, 1):
        at = records[0].at if records else None
        yield log.start_s if at is None else at, number, records, end


def _decode_block(block: bytes, file: str, line: int, is_tail: bool) -> Sequence[Record | Trouble]:
    body = block[:-1] if block.endswith(b"\n") else block
    try:
        return _decoder.decode(b"[" + body.replace(b"\n", b",") + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        lines = body.split(b"\n")
    records: list[Record | Trouble] = []
    for number, text in enumerate(lines):
        try:
            records.append(_line_decoder.decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            last = is_tail and number == len(lines) - 1
            records += _decode_leniently(text, f"{file}{line + number}", last)
    return records


def _decode_leniently(line: bytes, where: str, is_tail: bool) -> Iterator[Record | Trouble]:
    """Whole records of a line that may hold a cut one before, behind or between them."""
    if not line.strip(b"\0\r\n\t "):
        return
    text = line.decode("utf-8", "surrogateescape")
    if not line.isascii() and not _is_utf8(line):
        yield Trouble(Problem("loss", "bad-bytes", where))
    start = 0
    while start < len(text):
        try:
            value, end = _lenient.raw_decode(text, start)
        except (JSONDecodeError, RecursionError):
            start = text.find('{"obj"', start + 1)
            if start < 0 and is_tail:
                yield Trouble(Problem("gap", CUT_RECORD, where))
                return
            yield Trouble(Problem("loss", "bad-record", where))
            if start < 0:
                return
        else:
            yield from _convert(value, where)
            start = end + len(text[end:]) - len(text[end:].lstrip("\0\r\n\t "))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _convert(value: Any, where: str) -> Iterator[Record | Trouble]:
    try:
        repaired = _without_surrogates(value)
        record = msgspec.convert(repaired, Record)
    except (msgspec.ValidationError, RecursionError):
        name = name_of_unknown(value)
        if name is None:
            yield Trouble(Problem("loss", "bad-record", where))
        else:
            version = value.get("version")
            problem = Problem("loss", "unknown-operation", _without_surrogates(name))
            yield Trouble(problem, version if isinstance(version, int) else 0)
    else:
        if repaired != value:
            yield Trouble(Problem("approximation", "lone-surrogate", where))
        yield record


def _without_surrogates(value: Any) -> Any:
    """Lone surrogates have no UTF-8: U+FFFD takes their place."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    return value
