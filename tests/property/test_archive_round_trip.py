from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardmig.archive.digest import RunDigest
from shardmig.archive.rows import slice_points
from shardmig.archive.spool import RunSpool, spooled_chunks
from shardmig.records import Chunk, End, Field, Fields, FloatPoints, Header, HistogramPoints, Piece, StringPoints
from tests.property.archive_runs import RUNS, ordered_rows, rows_of
from tests.unit.archive.runs import RUN, end_of, floats, publish, read, texts

few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@given(RUNS, st.integers(1, 7))
@few
def test_a_published_run_is_read_as_it_was(chunks: list[Chunk], chunk_points: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        receipt = publish(Path(name), chunks)
        found = read(Path(name), chunk_points=chunk_points)
    assert rows_of(found) == rows_of(chunks)
    assert end_of(found).digest == receipt.digest
    assert {(field.path, field.type): field.rows for field in receipt.fields} == {
        (path, _TYPES.get(kind, kind)): rows.total() for (path, kind), rows in rows_of(chunks).items()
    }


@given(RUNS, st.integers(1, 7))
@few
def test_chunks_come_in_canonical_order(chunks: list[Chunk], chunk_points: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        publish(Path(name), chunks)
        found = read(Path(name), chunk_points=chunk_points)
    order: list[tuple[str, str]] = []
    last: Any = None
    for chunk in found:
        if isinstance(chunk, Fields):
            keys = [(field.path, field.type) for field in chunk.fields]
            assert keys == sorted(keys)
            assert not order
        elif isinstance(chunk, FloatPoints | StringPoints | HistogramPoints):
            assert 0 < len(chunk.times_ms) <= chunk_points
            for path, series in chunk.series():
                key = (path, _TYPES[type(chunk).__name__])
                rows = [row[:2] for row in ordered_rows(series)]
                rows = [last, *rows] if order[-1:] == [key] else rows
                assert all(one <= other for one, other in pairwise(rows))
                order += [key] if order[-1:] != [key] else []
                last = rows[-1]
    assert order == sorted(set(order))


@given(RUNS, st.randoms(use_true_random=False))
@few
def test_the_digest_does_not_depend_on_chunks_or_order(chunks: list[Chunk], dice: random.Random) -> None:
    whole, cut = RunDigest(), RunDigest()
    pieces: list[Chunk] = []
    for chunk in chunks:
        whole.add(chunk)
        if isinstance(chunk, FloatPoints | StringPoints | HistogramPoints):
            pieces += [slice_points(chunk, slice(at, at + 2)) for at in range(0, len(chunk.times_ms), 2)]
        elif isinstance(chunk, Fields):
            pieces += [Fields([field]) for field in chunk.fields]
    dice.shuffle(pieces)
    for piece in pieces:
        cut.add(piece)
    assert (cut.digest(), cut.counters()) == (whole.digest(), whole.counters())
    assert cut.steps() == whole.steps()


@given(RUNS, st.randoms(use_true_random=False))
@few
def test_shuffled_chunks_publish_the_same_run(chunks: list[Chunk], dice: random.Random) -> None:
    shuffled = list(chunks)
    dice.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as other:
        one, two = publish(Path(name), chunks), publish(Path(other), shuffled)
        first, second = read(Path(name)), read(Path(other))
    assert one.digest == two.digest
    assert one.fields == two.fields
    assert rows_of(first) == rows_of(second)


def test_a_spool_cut_at_any_byte_is_continued_to_the_same_run(tmp_path: Path) -> None:
    pieces = [
        Piece(RUN, Header(RUN), b"1"),
        Piece(RUN, Fields([Field("p", "int", 2**63 - 1), Field("p", "string", "x")]), b"2"),
        Piece(RUN, floats("m", [1, 2], [float("nan"), -0.0]), b"3"),
        Piece(RUN, texts("log", [5], ["line"]), b"4"),
        Piece(RUN, End(), b"5"),
    ]
    path = tmp_path / "spool"
    _append(path, pieces)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        spool = RunSpool(path)
        done = int(spool.cursor() or b"0")
        assert spool.is_ended == (done == len(pieces))
        spool.close()
        _append(path, pieces[done:])
        assert path.read_bytes() == whole
    assert rows_of(spooled_chunks(path)) == rows_of(piece.chunk for piece in pieces)


def _append(path: Path, pieces: list[Piece]) -> None:
    spool = RunSpool(path)
    for piece in pieces:
        spool.append(piece)
    spool.close()


_TYPES = {"FloatPoints": "float_series", "StringPoints": "string_series", "HistogramPoints": "histogram_series"}
