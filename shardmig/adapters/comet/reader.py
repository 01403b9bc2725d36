"""Offline archives, read: messages as a stream, assets by their name. Nothing of an archive is extracted by its own name."""

from __future__ import annotations

import itertools
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final, cast
from zipfile import BadZipFile, ZipFile

from shardmig.adapters.comet.messages import Block, ExperimentFile, Message, decode_block, decode_experiment
from shardmig.adapters.comet.writer import EXPERIMENT, MESSAGES
from shardmig.archive.layout import disk_errors
from shardmig.errors import BadInput, NotFound

_BLOCK_BYTES: Final = 1 << 20
_LONGEST_LINE: Final = 256 << 20
_HARMLESS_BYTES: Final = 64 << 20
_MOST_RATIO: Final = 500
_LONGEST_EXPERIMENT: Final = 16 << 20


def read_experiment(path: Path) -> ExperimentFile:
    """The archive's experiment.json. Raises NotFound, and BadInput for anything that is no offline archive."""
    with _opened(path) as archive, _member(archive, EXPERIMENT, path) as file:
        text = file.read(_LONGEST_EXPERIMENT + 1)
    if len(text) > _LONGEST_EXPERIMENT:
        raise BadInput(f"{path.name}: {EXPERIMENT} is too large to be one")
    return decode_experiment(text, path.name)


def read_messages(path: Path) -> Iterator[Block]:
    """The archive's messages, about 1 MiB of lines at a time. Raises BadInput."""
    with _opened(path) as archive, _member(archive, MESSAGES, path) as file:
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            head, newline, tail = (rest + block).rpartition(b"\n")
            if newline:
                yield decode_block(head)
            if len(tail) > _LONGEST_LINE:
                raise BadInput(f"{path.name}: a line of {MESSAGES} has more than {_LONGEST_LINE >> 20} MiB")
            rest = tail
        if rest.strip():
            yield decode_block(rest)


def member_sizes(path: Path) -> dict[str, int]:
    """How many bytes each file of the archive has. Raises NotFound and BadInput."""
    with _opened(path) as archive:
        return {member.filename: member.file_size for member in archive.infolist()}


def messages_mark(path: Path) -> tuple[int, int]:
    """Size in bytes and checksum of the archive's messages: copies of one archive have the same. Raises NotFound and
    BadInput."""
    with _opened(path) as archive:
        try:
            member = archive.getinfo(MESSAGES)
        except KeyError as error:
            raise NotFound(f"{path.name} has no {MESSAGES}") from error
    return member.file_size, member.CRC


@contextmanager
def opened_member(path: Path, member: str) -> Iterator[BinaryIO]:
    """One file of the archive, to be read. Raises NotFound, and BadInput where it is damaged."""
    with _opened(path) as archive, _member(archive, member, path) as content:
        yield cast("BinaryIO", content)


def copy_member(path: Path, member: str, file: Path) -> None:
    """Copy one file of the archive to a new local file. Raises NotFound, BadInput and DiskFull."""
    with (
        opened_member(path, member) as content,
        disk_errors(f"a copy of {member}"),
        file.open("wb") as target,
    ):
        shutil.copyfileobj(content, target, _BLOCK_BYTES)


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    try:
        with ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise NotFound(f"{path.name} does not exist") from error
    except (
        BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,  # encrypted, or packed in a way unknown
        UnicodeDecodeError,  # the name of a file in it
        OSError,
    ) as error:
        raise BadInput(f"{path.name} is damaged, or no offline archive: {error}") from error


@contextmanager
def _member(archive: ZipFile, name: str, path: Path) -> Iterator[IO[bytes]]:
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise NotFound(f"{path.name} has no {name}") from error
    if member.file_size > max(_HARMLESS_BYTES, _MOST_RATIO * member.compress_size):
        raise BadInput(f"{path.name}: {name} unpacks to {member.file_size} bytes: it is a bomb")
    with archive.open(member) as file:
        yield file


def all_messages(paths: Sequence[Path]) -> Iterator[tuple[Path, Message | None]]:
    """The messages of several archives, one after the other."""
    for path in paths:
        for block in read_messages(path):
            yield from zip(itertools.repeat(path), block.messages)
