"""What export does with a run that the archive holds already, but not as it should."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from shardmig.archive.receipts import footer_metadata, receipt_in
from shardmig.cli.app import execute

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
    with pq.ParquetFile(part) as file:
        table, receipt = file.read(), receipt_in(file.metadata.metadata, "")
    assert receipt is not None
    with pq.ParquetWriter(part, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(footer_metadata(msgspec.structs.replace(receipt, format_version=99)))
    content = part.read_bytes()
    assert execute(EXPORT.split()) == 3
    assert "update shardmig" in capsys.readouterr().err
    assert part.read_bytes() == content
