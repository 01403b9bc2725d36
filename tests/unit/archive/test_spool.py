from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from shardmig.archive.spool import RunSpool, spooled_chunks
from shardmig.archive.writer import compact
from shardmig.errors import BadInput
from shardmig.records import End, Field, Fields, Header, Piece, Selection, StringPoints
from tests.unit.archive.runs import RUN, floats, paths_in, texts


def _cursor(path: Path) -> bytes | None:
    with closing(RunSpool(path)) as spool:
        return spool.cursor()


def test_a_successor_goes_on_behind_the_last_whole_piece(tmp_path: Path) -> None:
    spool = RunSpool(tmp_path / "s")
    assert spool.cursor() is None
    spool.append(Piece(RUN, Header(RUN), b"1"))
    spool.append(Piece(RUN, floats("m", [1], [1.0]), b"2"))
    spool.close()
    assert _cursor(tmp_path / "s") == b"2"
    with (tmp_path / "s").open("r+b") as file:
        file.truncate((tmp_path / "s").stat().st_size - 1)
    successor = RunSpool(tmp_path / "s")
    assert successor.cursor() == b"1"
    assert not successor.is_ended
    successor.append(Piece(RUN, End(), b"3"))
    successor.close()
    with closing(RunSpool(tmp_path / "s")) as ended:
        assert ended.is_ended
    assert [type(chunk) for chunk in spooled_chunks(tmp_path / "s")] == [Header, End]


def test_zeros_behind_the_last_frame_are_torn_off(tmp_path: Path) -> None:
    spool = RunSpool(tmp_path / "s")
    spool.append(Piece(RUN, Header(RUN), b"1"))
    spool.close()
    with (tmp_path / "s").open("ab") as file:
        file.write(bytes(4096))
    assert _cursor(tmp_path / "s") == b"1"
    assert len(list(spooled_chunks(tmp_path / "s"))) == 1


def test_a_piece_in_several_frames_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    long = "x" * (20 << 20)
    spool = RunSpool(tmp_path / "s")
    spool.append(Piece(RUN, Header(RUN), b"1"))
    spool.append(Piece(RUN, texts("log", [1, 2, 3], [long, long, long]), b"2"))
    spool.close()
    chunks = list(spooled_chunks(tmp_path / "s"))
    assert sum(len(chunk.times_ms) for chunk in chunks if isinstance(chunk, StringPoints)) == 3
    assert len(chunks) > 2
    with (tmp_path / "s").open("r+b") as file:
        file.truncate((tmp_path / "s").stat().st_size - 1)
    successor = RunSpool(tmp_path / "s")
    assert successor.cursor() == b"1"
    successor.close()
    assert [type(chunk) for chunk in spooled_chunks(tmp_path / "s")] == [Header]


def test_restart_forgets_everything(tmp_path: Path) -> None:
    spool = RunSpool(tmp_path / "s")
    spool.append(Piece(RUN, Fields([Field("p", "int", 1)]), b"1"))
    spool.restart()
    assert spool.cursor() is None
    spool.close()
    assert list(spooled_chunks(tmp_path / "s")) == []


def test_a_text_that_is_no_unicode_fails_its_run(tmp_path: Path) -> None:
    spool = RunSpool(tmp_path / "s")
    with pytest.raises(BadInput, match="Unicode") as caught:
        spool.append(Piece(RUN, Fields([Field("p", "string", "\ud800")])))
    assert caught.value.run == RUN.label
    spool.close()


def test_a_run_without_its_end_is_not_published(tmp_path: Path) -> None:
    spool = RunSpool(tmp_path / "s")
    spool.append(Piece(RUN, Header(RUN)))
    spool.close()
    with pytest.raises(BadInput, match="whole"):
        compact(tmp_path / "s", paths_in(tmp_path), asked=Selection(), source="t", source_version="", started_ms=0)
    assert not (tmp_path / "data").exists()
