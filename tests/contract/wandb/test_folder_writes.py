"""What a load writes into run folders, at its limits and over damage."""

from __future__ import annotations

import itertools
import re
import struct
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.conformance import field_digests, plain_run
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.log import LogReader, LogWriter
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput, TargetConflict
from shardmig.records import ArchivePaths, Chunk, FloatPoints, Header, LoadOptions, RunRef, TargetRunId

_FAR_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""


@pytest.mark.parametrize("created_ms", [0, _FAR_MS, _FAR_MS + 1000])
def test_runs_at_the_ends_of_time_are_loaded(tmp_path: Path, created_ms: int) -> None:
    target = _target(tmp_path)
    header, _, *rest = plain_run()
    assert isinstance(header, Header)
    run = msgspec.structs.replace(header.run, created_ms=created_ms)
    late = [
        msgspec.structs.replace(chunk, times_ms=np.full_like(chunk.times_ms, _FAR_MS))
        if isinstance(chunk, FloatPoints)
        else chunk
        for chunk in rest
    ]
    chunks: list[Chunk] = [Header(run, header.source, header.source_version), *late]
    _write(target, chunks)
    found = target.find_run(migration_key(run))
    assert found is not None
    assert field_digests(piece.chunk for piece in target.read_run(found, Want(), DigestSink())) == field_digests(chunks)
    assert target.read_facts(found)["start_time"] == str(created_ms)


def test_a_link_to_a_parent_does_not_cover_up_a_damaged_log(tmp_path: Path) -> None:
    target, chunks = _target(tmp_path), plain_run()
    _write(target, chunks)
    log = next(tmp_path.rglob("*.wandb"))
    content = bytearray(log.read_bytes())
    content[-20] ^= 1
    log.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        _write(target, chunks, parent=TargetRunId("a" * 32))
    assert log.read_bytes() == content
    assert [path.name for path in log.parent.iterdir() if path.is_file()] == [log.name]


def test_a_run_that_is_to_be_replaced_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target, chunks = _target(tmp_path), plain_run()
    _write(target, chunks)
    before = next(tmp_path.rglob("*.wandb")).read_bytes()
    replacing = open_target({"offline-dir": str(tmp_path)}, LoadOptions(step_multiplier=1, on_existing="replace"))
    with pytest.raises(BadInput, match="torn"):
        _write(replacing, _torn(chunks), digest="e" * 32)
    (log,) = tmp_path.rglob("*.wandb")
    assert (log.parent.name[:12], log.read_bytes()) == ("offline-run-", before)
    _write(replacing, chunks, digest="e" * 32)
    assert [path.name for path in tmp_path.iterdir()] == [log.parent.name]
    assert next(tmp_path.rglob("*.wandb")).read_bytes() != before


def test_a_run_that_was_sent_is_not_replaced(tmp_path: Path) -> None:
    """A sync of the new one would append its rows to the old one's."""
    target, chunks = _target(tmp_path), plain_run()
    _write(target, chunks)
    log = next(tmp_path.rglob("*.wandb"))
    before = log.read_bytes()
    mark = log.with_name(log.name + ".synced")
    mark.touch()
    replacing = open_target({"offline-dir": str(tmp_path)}, LoadOptions(step_multiplier=1, on_existing="replace"))
    with pytest.raises(TargetConflict, match="was sent to W&B already"):
        _write(replacing, chunks, digest="e" * 32)
    assert log.read_bytes() == before
    mark.unlink()
    _write(replacing, chunks, digest="e" * 32)
    assert log.read_bytes() != before


def test_a_log_is_written_in_little_memory_however_long_it_is(tmp_path: Path) -> None:
    record = bytes(range(256)) * 40
    tracemalloc.start()
    with (tmp_path / "long.wandb").open("wb") as file:
        LogWriter(file).add_all(record + number.to_bytes(4) for number in range(5_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20
    assert sum(1 for _ in LogReader(tmp_path / "long.wandb")) == 5_000


@pytest.mark.parametrize("size", range(32_700, 32_761))
def test_a_record_that_a_block_cuts_has_one_beginning(tmp_path: Path, size: int) -> None:
    log = tmp_path / "cut.wandb"
    records = [bytes(size - 7), b"next", bytes(70_000), b"last"]
    with log.open("wb") as file:
        LogWriter(file).add_all(records)
    assert list(LogReader(log)) == records
    assert re.fullmatch("(1|23*4)+", _kinds(log.read_bytes()))


def _kinds(content: bytes) -> str:
    """The kind of each part of a log: 1 = whole, 2 = beginning, 3 = middle, 4 = end."""
    kinds, place = "", 7
    while place < len(content):
        if 32_768 - place % 32_768 < 7:
            place += 32_768 - place % 32_768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        kinds += str(kind)
        place += 7 + length
    return kinds


def _target(folder: Path) -> WriteSide:
    return open_target({"offline-dir": str(folder)}, LoadOptions(step_multiplier=1))


def _torn(chunks: list[Chunk]) -> Iterator[Chunk]:
    yield from chunks[:-1]
    raise BadInput("torn")


def _write(
    target: WriteSide, chunks: Iterable[Chunk], parent: TargetRunId | None = None, digest: str = "d" * 32
) -> None:
    chunks = iter(chunks)
    header = next(chunks)
    assert isinstance(header, Header)
    run: RunRef = header.run
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), run.project)
    target.write_run(migration_key(run), digest, itertools.chain([header], chunks), nowhere, parent)
