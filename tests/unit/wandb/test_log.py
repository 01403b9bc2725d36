"""The framing of transaction logs: what is written is read, and damage stays where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.wandb.log import LogReader, LogWriter
from shardmig.errors import BadInput

BLOCK = 32 * 1024


def written(path: Path, records: list[bytes]) -> LogReader:
    with path.open("wb") as file:
        LogWriter(file).add_all(records)
    return LogReader(path)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 21, BLOCK - 15, BLOCK - 14, BLOCK - 13, BLOCK, 3 * BLOCK, 200_000])
def test_records_of_every_size_come_back(tmp_path: Path, size: int) -> None:
    records = [b"first", b"x" * size, b"last", b"y" * size]
    reader = written(tmp_path / "log", records)
    assert list(reader) == records
    assert not reader.is_cut
    assert reader.damaged == 0


@given(st.lists(st.binary(max_size=40_000), max_size=8))
def test_any_records_come_back(records: list[bytes]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        assert list(written(Path(folder, "log"), records)) == records


def test_a_log_that_was_cut_anywhere_gives_its_whole_records(tmp_path: Path) -> None:
    records = [bytes([number]) * (number * 97) for number in range(60)]
    path = tmp_path / "log"
    written(path, records)
    content = path.read_bytes()
    for stop in range(7, len(content), 1009):
        path.write_bytes(content[:stop])
        found = list(LogReader(path))
        assert found == records[: len(found)]


def test_a_damaged_record_is_left_out_and_counted(tmp_path: Path) -> None:
    records = [b"%d" % number * 1000 for number in range(1000)]
    path = tmp_path / "log"
    written(path, records)
    content = bytearray(path.read_bytes())
    content[BLOCK * 3 + 5000] ^= 0xFF
    path.write_bytes(content)
    reader = LogReader(path)
    found = list(reader)
    assert reader.damaged == 1
    assert set(found) < set(records)
    assert (found[0], found[-1]) == (records[0], records[-1])


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(BadInput, match="no W&B transaction log"):
        list(LogReader(tmp_path / "log"))
