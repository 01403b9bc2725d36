from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardmig.archive.layout import project_folder
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.receipts import footer_metadata
from shardmig.errors import BadInput
from shardmig.records import (
    FORMAT_VERSION,
    End,
    Field,
    Fields,
    Finding,
    FloatPoints,
    Receipt,
    RunId,
    RunRef,
    Selection,
)
from tests.unit.archive.runs import RUN, end_of, floats, paths_in, points_of_kind, publish, read

COUNT = 300_000


def _publish_several_parts(folder: Path) -> Receipt:
    steps = range(COUNT)
    return publish(folder, [floats(name, steps, np.arange(COUNT) / 3) for name in ("a", "b")], part_bytes=1)


def _part(folder: Path, number: int) -> Path:
    return project_folder(folder / "data", RUN.project) / f"RUN-1-549fcb30a0f06072_part_{number}.parquet"


def _rewrite(path: Path, change: Any) -> None:
    """Change the rows of a part and keep its footer metadata, receipt included."""
    with pq.ParquetFile(path) as file:
        metadata, table = file.metadata.metadata, file.read()
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(change(table))
        writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})


def test_a_receipt_says_what_was_published(tmp_path: Path) -> None:
    asked = Selection(projects=("ws/proj",), attributes=("m.*",))
    findings = [Finding("gap", "tail-not-flushed", "m", 3)]
    receipt = publish(
        tmp_path,
        [Fields([Field("sys/creation_time", "datetime", 5)]), floats("m", [25, 50], [1.0, 2.0], scale=2)],
        asked=asked,
        source="neptune-local",
        source_version="1.14",
        started_ms=7,
        end=End(findings),
    )
    assert ArchiveReader(paths_in(tmp_path)).receipt(RUN) == receipt
    assert (receipt.format_version, receipt.asked, receipt.started_ms) == (FORMAT_VERSION, asked, 7)
    assert (receipt.source, receipt.source_version, receipt.findings) == ("neptune-local", "1.14", findings)
    assert (receipt.run.created_ms, receipt.run.weight) == (5, 3)
    assert [(field.path, field.type, field.rows) for field in receipt.fields] == [
        ("m", "float_series", 2),
        ("sys/creation_time", "datetime", 1),
    ]
    assert (receipt.counters.points, receipt.counters.fields, receipt.counters.runs) == (2, 2, 1)
    assert (receipt.steps.denominator, receipt.steps.lowest, receipt.steps.highest) == (4, "0.25", "0.5")


def test_a_run_without_rows_is_published_and_read(tmp_path: Path) -> None:
    publish(tmp_path, [])
    reader = ArchiveReader(paths_in(tmp_path))
    assert list(reader.projects()) == ["ws/proj"]
    assert [run.id for run in reader.runs(RUN.project)] == ["RUN-1"]
    assert len(read(tmp_path)) == 2


def test_a_run_that_is_not_there_has_no_receipt(tmp_path: Path) -> None:
    assert ArchiveReader(paths_in(tmp_path)).receipt(RUN) is None
    publish(tmp_path, [])
    assert ArchiveReader(paths_in(tmp_path)).receipt(RunRef(project=RUN.project, id=RunId("RUN-2"))) is None


def test_reading_gives_the_digest_of_the_receipt_and_its_findings(tmp_path: Path) -> None:
    receipt = publish(tmp_path, [floats("m", [1], [1.0])], end=End([Finding("gap", "tail-not-flushed")]))
    end = end_of(read(tmp_path))
    assert end.digest == receipt.digest
    assert end.findings == receipt.findings


def test_a_run_listed_from_its_receipt_keeps_what_its_source_knew(tmp_path: Path) -> None:
    run = RunRef(
        project=RUN.project,
        id=RUN.id,
        created_ms=3,
        archived=True,
        parent=RunId("RUN-0"),
        locator="/x",
        fingerprint="f",
    )
    receipt = publish(tmp_path, [floats("m", [1], [1.0])], run)
    (listed,) = ArchiveReader(paths_in(tmp_path)).runs(RUN.project)
    assert (listed.created_ms, listed.archived, listed.parent, listed.weight) == (3, True, "RUN-0", 1)
    assert listed.fingerprint == receipt.digest
    assert listed.locator.endswith("/RUN-1-549fcb30a0f06072")
    assert receipt.run.fingerprint == "f"


@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_part_is_noticed_even_if_it_is_the_last(tmp_path: Path, number: int) -> None:
    receipt = _publish_several_parts(tmp_path)
    missing = _part(tmp_path, number if number == 1 else len(receipt.parts) - 1)
    missing.unlink()
    for call in (lambda: ArchiveReader(paths_in(tmp_path)).receipt(RUN), lambda: read(tmp_path)):
        with pytest.raises(BadInput, match=f"{missing.name} is missing"):
            call()


def test_a_part_that_does_not_belong_to_the_run_is_noticed(tmp_path: Path) -> None:
    receipt = _publish_several_parts(tmp_path)
    shutil.copy(_part(tmp_path, 1), _part(tmp_path, len(receipt.parts)))
    with pytest.raises(BadInput, match="not in the run's receipt"):
        read(tmp_path)


def test_a_flipped_byte_in_a_part_is_noticed(tmp_path: Path) -> None:
    _publish_several_parts(tmp_path)
    path = _part(tmp_path, 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"part_1\.parquet has other content"):
        read(tmp_path)


CHANGES: dict[str, Any] = {
    "a row less": lambda table: table.slice(1),
    "a row twice": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "another value": lambda table: table.set_column(
        table.schema.get_field_index("float_value"), "float_value", pa.array([1.0, 2.0, np.nextafter(3.0, 4.0)])
    ),
    "another name": lambda table: table.set_column(2, "attribute_path", pa.array(["m", "m", "n"])),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_part_0_is_noticed(tmp_path: Path, what: str) -> None:
    publish(tmp_path, [floats("m", [1, 2, 3], [1.0, 2.0, 3.0])])
    _rewrite(_part(tmp_path, 0), CHANGES[what])
    with pytest.raises(BadInput):
        read(tmp_path)


def test_an_unchanged_part_0_written_by_another_tool_is_fine(tmp_path: Path) -> None:
    publish(tmp_path, [floats("m", [1, 2, 3], [1.0, 2.0, 3.0])])
    _rewrite(_part(tmp_path, 0), lambda table: table)
    assert len(read(tmp_path)) == 3


@pytest.mark.parametrize("damage", [b"", b"!!!", b"AAAA", b"eJwDAAAAAAE="])
def test_a_damaged_receipt_is_no_missing_receipt(tmp_path: Path, damage: bytes) -> None:
    publish(tmp_path, [floats("m", [1], [1.0])])
    path = _part(tmp_path, 0)
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"shardmig.receipt": damage})
    with pytest.raises(BadInput, match="receipt"):
        read(tmp_path)


def test_an_archive_of_a_later_format_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    receipt = publish(tmp_path, [floats("m", [1], [1.0])])
    path = _part(tmp_path, 0)
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        later = msgspec.structs.replace(receipt, format_version=FORMAT_VERSION + 1)
        writer.add_key_value_metadata(footer_metadata(later))
    with pytest.raises(BadInput, match="format 2") as caught:
        read(tmp_path)
    assert caught.value.hint == "update shardmig"


def test_fields_that_are_not_wanted_are_neither_read_nor_checked(tmp_path: Path) -> None:
    _publish_several_parts(tmp_path)
    wanted = read(tmp_path, selection=Selection(attributes=("^a$",)))
    assert {path for path, _ in points_of_kind(wanted, FloatPoints)} == {"a"}
    assert sum(len(series.values) for _, series in points_of_kind(wanted, FloatPoints)) == COUNT


def test_reading_goes_on_behind_a_cursor(tmp_path: Path) -> None:
    series = [floats(name, range(25_000), range(25_000)) for name in ("a", "b", "c")]
    receipt = publish(tmp_path, [Fields([Field("p", "int", 1)]), *series])
    pieces = list(ArchiveReader(paths_in(tmp_path)).read(RUN, _want(chunk_points=10_000)))
    for index in range(len(pieces) - 1):
        want = _want(chunk_points=10_000, cursors={RUN.id: pieces[index].cursor})
        header, *rest = ArchiveReader(paths_in(tmp_path)).read(RUN, want)
        assert header.cursor == pieces[index].cursor or index == 0
        assert _plain([piece.chunk for piece in rest]) == _plain([piece.chunk for piece in pieces[index + 1 :]])
    assert isinstance(pieces[-1].chunk, End)
    assert pieces[-1].chunk.digest == receipt.digest


def test_a_cursor_into_content_that_has_changed_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, [floats("m", [1], [1.0])])
    *_, last = ArchiveReader(paths_in(tmp_path)).read(RUN, _want())
    publish(tmp_path, [floats("m", [1], [2.0])])
    with pytest.raises(BadInput, match="has changed"):
        list(ArchiveReader(paths_in(tmp_path)).read(RUN, _want(cursors={RUN.id: last.cursor})))


def test_a_run_published_in_another_selection_keeps_only_that(tmp_path: Path) -> None:
    publish(tmp_path, [floats("m", [1], [1.0])], RunRef(project=RUN.project, id=RUN.id))
    publish(tmp_path, [floats("n", [1], [1.0])], RunRef(project=RUN.project, id=RUN.id))
    assert [path for path, _ in points_of_kind(read(tmp_path), FloatPoints)] == ["n"]


def _want(**options: Any) -> Any:
    from shardmig.adapters.base import Want

    return Want(**options)


def _plain(chunks: list[Any]) -> list[str]:
    return [str(msgspec.to_builtins(chunk, enc_hook=lambda column: column.tolist())) for chunk in chunks]
