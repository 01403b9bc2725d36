"""What export does with a run that the archive holds already, but not as it should."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from shardmig.archive.receipts import footer_metadata, receipt_in
from shardmig.cli.app import execute
from shardmig.records import Receipt

SAMPLES = Path(__file__).parents[2] / "samples"
EXPORT = f"export --source neptune-local {SAMPLES / 'offline'} -p ws/off --engine inline --no-progress -d data -f files"


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A part of a run that was exported."""
    monkeypatch.chdir(tmp_path)
    assert execute(EXPORT.split()) == 0
    return min((tmp_path / "data").rglob("*_part_0.parquet"))


def test_a_damaged_run_is_exported_anew(part: Path) -> None:
    whole = pq.read_table(part)
    part.write_bytes(part.read_bytes()[:-100])
    assert execute(EXPORT.split()) == 0
    assert pq.read_table(part).equals(whole)


def test_a_run_of_a_later_version_is_not_replaced(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = with_receipt(part, lambda receipt: msgspec.structs.replace(receipt, format_version=99))
    assert execute(EXPORT.split()) == 3
    assert "update shardmig" in capsys.readouterr().err
    assert part.read_bytes() == content


def test_a_run_that_came_from_another_source_is_not_replaced(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server may have had what the local folder has not, and the other way round."""

    def from_server(receipt: Receipt) -> Receipt:
        run = msgspec.structs.replace(receipt.run, fingerprint="of the server")
        return msgspec.structs.replace(receipt, source="neptune2", run=run)

    content = with_receipt(part, from_server)
    assert execute(EXPORT.split()) == 3
    assert "as neptune2 had it" in capsys.readouterr().err
    assert part.read_bytes() == content


def test_a_run_that_changed_since_it_was_planned_fails_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would never be settled otherwise: its outcome is of another version than the planned one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAMPLES / "exporter-3x", tmp_path / "theirs")
    again = "plan --source archive theirs/data theirs/files -d copy/data -f copy/files --out plan.msgpack"
    assert execute(again.split()) == 0
    for part in (tmp_path / "theirs").rglob("*.parquet"):
        os.utime(part, (1, 1))
    assert execute(["execute-shard", "--plan", "plan.msgpack", "--shard", "1"]) == 3
    assert "changed in its source" in capsys.readouterr().err


def with_receipt(part: Path, changed: Callable[[Receipt], Receipt]) -> bytes:
    """Write a part anew with another receipt; its bytes."""
    with pq.ParquetFile(part) as file:
        table, receipt = file.read(), receipt_in(file.metadata.metadata, "")
    assert receipt is not None
    with pq.ParquetWriter(part, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(footer_metadata(changed(receipt)))
    return part.read_bytes()
