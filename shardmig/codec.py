"""msgpack encoding of records, and framed files. Nothing else in shardmig encodes a record.

A framed file is a magic line followed by frames: u32 length, u32 CRC-32, payload (little endian). A frame that is
empty or short, or whose checksum is wrong, ends the file for a reader: what stands before it is whole.
"""

from __future__ import annotations

import os
import struct
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec
import numpy as np

from shardmig.errors import JournalCorrupt

T = TypeVar("T")

MAGIC: Final = b"shardmig frames 1\n"
_FRAME_HEAD: Final = struct.Struct("<II")
MAX_FRAME_BYTES: Final = 1 << 30


def _encode_array(value: Any) -> memoryview:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).data.cast("B")
    raise NotImplementedError(type(value))


def _decode_array(kind: Any, payload: Any) -> Any:
    if typing.get_origin(kind) is np.ndarray:
        dtype = typing.get_args(typing.get_args(kind)[1])[0]
        return np.frombuffer(payload, dtype=dtype)
    raise NotImplementedError(kind)


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_encode_array, decimal_format="string")
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(record: Any) -> bytes:
    """A record as msgpack. Arrays become their little-endian bytes; floats keep their bits."""
    return _encoder.encode(record)


def decode(payload: bytes, kind: type[T] | Any) -> T:
    """A record of `kind` back from msgpack. Raises msgspec.ValidationError or DecodeError if it is not one."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_decode_array)
    return typing.cast("T", decoder.decode(payload))


def encode_json(record: Any) -> bytes:
    """A record as JSON for people and scripts. Never for metric values: JSON has no NaN and no infinities."""
    return msgspec.json.encode(record, enc_hook=lambda value: value.tolist(), order="deterministic")


class FrameWriter:
    """Appends frames to a file. The caller closes it; `sync` makes everything appended so far durable."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Open `path` for appending after its first `keep_bytes` bytes; what follows them is cut off."""
        self.path = path
        self._file: BinaryIO = open(path, "r+b" if keep_bytes and path.exists() else "w+b")  # noqa: SIM115
        self._file.truncate(keep_bytes)
        self._file.seek(keep_bytes)
        if keep_bytes == 0:
            self._file.write(MAGIC)

    def append(self, payload: bytes) -> int:
        """Append one frame; returns the offset behind it. Buffered until `flush` or `sync`."""
        self._file.write(_FRAME_HEAD.pack(len(payload), zlib.crc32(payload)))
        self._file.write(payload)
        return self._file.tell()

    def flush(self) -> None:
        """Hand everything to the operating system: it survives the death of this process."""
        self._file.flush()

    def sync(self) -> None:
        """Make everything durable: it survives the death of the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()


def write_whole(path: Path, payload: bytes) -> None:
    """Write a file that appears durable and whole, or not at all."""
    scratch = path.with_suffix(".tmp")
    with open(scratch, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    replace_durably(scratch, path)


def replace_durably(scratch: Path, path: Path) -> None:
    """Rename a synced file over another; its new name survives the death of the machine."""
    os.replace(scratch, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Frame(typing.NamedTuple):
    """One whole frame: its payload, where it starts, and the offset behind it."""

    payload: bytes
    start: int
    end: int


def read_frames(path: Path, *, start: int = 0) -> Iterator[Frame]:
    """The whole frames of a file, from offset `start` (0 = the first). Stops silently at the first torn frame.

    Raises JournalCorrupt if the file is not a framed file at all; an empty file, or one whose magic line is cut,
    holds no frames.
    """
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):
                return
            raise JournalCorrupt(f"{path} is not a shardmig file of format 1", hint="move it away and start again")
        if start:
            file.seek(start)
        offset = file.tell()
        while len(head := file.read(_FRAME_HEAD.size)) == _FRAME_HEAD.size:
            length, checksum = _FRAME_HEAD.unpack(head)
            if not 0 < length <= MAX_FRAME_BYTES:  # zeros that a power cut left read as empty frames, checksum and all
                return
            payload = file.read(length)
            if len(payload) != length or zlib.crc32(payload) != checksum:
                return
            end = offset + _FRAME_HEAD.size + length
            yield Frame(payload, offset, end)
            offset = end


def read_frame_at(file: BinaryIO, offset: int) -> bytes:
    """The payload of the frame that starts at `offset` in an open framed file, already known to be whole."""
    file.seek(offset)
    length, _ = _FRAME_HEAD.unpack(file.read(_FRAME_HEAD.size))
    return file.read(length)
