"""The framing of W&B's transaction logs (`.wandb`): records of any size in blocks of 32 KiB, each part with a checksum.

A file begins with `:W&B`, 0xBEE1 (little-endian) and version 0. A part of a record is {u32 CRC-32 of kind and content,
u16 length, u8 kind, content}; a block's last bytes are zero where no header fits. This is LevelDB's log with another
checksum. wandb reads and writes it in wandb-core (Go) only since 0.30.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from shardmig.errors import BadInput

MAGIC: Final = b":W&B\xe1\xbe\x00"
_BLOCK: Final = 32 * 1024
_MOST_WAITING: Final = 4 * 2**20
_PART: Final = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SEEDS: Final = {kind: crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}
_KINDS: Final = {(True, True): _FULL, (True, False): _FIRST, (False, True): _LAST, (False, False): _MIDDLE}


class LogWriter:
    """Appends records to a new log. The caller closes `file`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = file.write(MAGIC)

    def add_all(self, records: Iterable[bytes]) -> None:
        """Append records. One checksum and one header a record: about 1 µs each (measured). Memory: a few MiB, however
        many records there are."""
        parts: list[bytes] = []
        written = self._position
        for record in records:
            if self._position - written > _MOST_WAITING:
                self._file.write(b"".join(parts))
                parts, written = [], self._position
            left = _BLOCK - self._position % _BLOCK - _PART.size
            if left >= len(record):
                parts.append(_PART.pack(crc32(record, _SEEDS[_FULL]), len(record), _FULL))
                parts.append(record)
                self._position += _PART.size + len(record)
            else:
                parts += self._cut(record)
        self._file.write(b"".join(parts))

    def _cut(self, record: bytes) -> Iterator[bytes]:
        start = 0
        is_first, is_whole = True, False
        while not is_whole:
            left = _BLOCK - self._position % _BLOCK
            if left < _PART.size:
                yield bytes(left)
                self._position += left
                continue
            content = record[start : start + left - _PART.size]
            is_whole = start + len(content) == len(record)
            kind = _KINDS[is_first, is_whole]
            is_first = False
            yield _PART.pack(crc32(content, _SEEDS[kind]), len(content), kind)
            yield content
            start += len(content)
            self._position += _PART.size + len(content)


class LogReader:
    """The records of a log, as far as they are whole.

    A log whose writer was killed ends somewhere: that is its end (`is_cut`). A record that its checksum does not confirm is
    left out, with all up to the next block, and counted in `damaged`; so is a block that is zeros from somewhere on, as
    a disk leaves it that lost its power. Raises BadInput for a file that is no log or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[bytes]:
        held: list[bytes] | None = None
        start = len(MAGIC)
        for block in self._blocks():
            damaged = self.damaged
            for kind, content in self._parts(block, start):
                if kind == _FULL:
                    held = None
                    yield content
                elif kind == _FIRST:
                    held = [content]
                elif held is not None:
                    held.append(content)
                    if kind == _LAST:
                        yield b"".join(held)
                        held = None
            if self.damaged > damaged:  # what comes next does not belong to what was held
                held = None
            start = 0
        self.is_cut |= held is not None

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                block = file.read(_BLOCK)
                if block[: len(MAGIC)] != MAGIC:
                    raise BadInput(f"{self._path.name} is no W&B transaction log")
                while block:
                    yield block
                    block = file.read(_BLOCK)
        except OSError as error:
            raise BadInput(f"{self._path.name} cannot be read: {error.strerror or error}") from error

    def _parts(self, block: bytes, start: int) -> Iterator[tuple[int, bytes]]:
        size = len(block)
        while start + _PART.size <= size:
            checksum, length, kind = _PART.unpack_from(block, start)
            start += _PART.size
            if not (checksum or length or kind):  # a writer pads only where no header fits
                self.damaged += 1
                return
            content = block[start : start + length]
            if len(content) < length and size < _BLOCK:
                self.is_cut = True
                return
            if kind not in _SEEDS or crc32(content, _SEEDS[kind]) != checksum:
                self.damaged += 1
                return
            start += length
            yield kind, content
        self.is_cut |= size < _BLOCK and start < size
