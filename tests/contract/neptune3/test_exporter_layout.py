"""What was exported from a server, read as neptune-exporter's own loaders read it: by path, columns and rows."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardmig.cli.app import execute
from tests.contract.neptune3.filling import CREATED_MS, rich_project
from tests.servers.neptune3.server import Neptune3

PROJECT = "ws_rich-cac648d93a78da02"
COLUMN_OF = {
    "int": "int_value",
    "float": "float_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    "float_series": "float_value",
    "string_series": "string_value",
    "histogram_series": "histogram_value",
    "file": "file_value",
    "file_series": "file_value",
}
EXPORTER_COLUMNS = {
    "project_id": pa.string(),
    "run_id": pa.string(),
    "attribute_path": pa.string(),
    "attribute_type": pa.string(),
    "step": pa.decimal128(18, 6),
    "timestamp": pa.timestamp("ms", "UTC"),
    "int_value": pa.int64(),
    "float_value": pa.float64(),
    "string_value": pa.string(),
    "bool_value": pa.bool_(),
    "datetime_value": pa.timestamp("ms", "UTC"),
    "string_set_value": pa.list_(pa.string()),
    "file_value": pa.struct([("path", pa.string())]),
    "histogram_value": pa.struct(
        [("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]
    ),
}


@pytest.fixture
def rows(server: Neptune3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """The rows of each run, from its part_0."""
    monkeypatch.chdir(tmp_path)
    rich_project(server)
    assert execute(["export", "--source", "neptune3", "-p", "ws/rich", "--engine", "inline", "--no-progress"]) == 0
    parts = sorted(Path("exports/data", PROJECT).glob("*_part_0.parquet"))
    tables = [pq.read_table(part) for part in parts]
    for table in tables:
        held = {name: str(table.schema.field(name).type).replace("element", "item") for name in EXPORTER_COLUMNS}
        assert held == {name: str(kind) for name, kind in EXPORTER_COLUMNS.items()}
        assert table.schema.names[: len(EXPORTER_COLUMNS)] == list(EXPORTER_COLUMNS)
    return {part.name: table.to_pylist() for part, table in zip(parts, tables, strict=True)}


def test_paths_columns_and_rows_are_where_its_reader_looks(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert [name.rpartition("-")[0] for name in rows] == ["fork", "run-1"]
    for name, held in rows.items():
        assert {(row["project_id"], row["run_id"]) for row in held} == {("ws/rich", name.rpartition("-")[0])}
        for row in held:
            payload = {column for column in set(COLUMN_OF.values()) if row[column] is not None}
            assert payload == {COLUMN_OF[row["attribute_type"]]}, row
            is_series = row["attribute_type"].endswith("_series")
            assert is_series == (row["step"] is not None) == (row["timestamp"] is not None), row
            if row["file_value"] is not None:
                assert Path("exports/files", PROJECT, row["file_value"]["path"]).is_file()


def test_values_are_exact(rows: dict[str, list[dict[str, Any]]]) -> None:
    fork, run = (
        {(row["attribute_path"], row["step"]): row for row in held} for held in (rows[name] for name in sorted(rows))
    )
    assert run["params/big", None]["int_value"] == 2**53 + 1
    assert run["params/set", None]["string_set_value"] == ["a", "b"]
    assert run["sys/creation_time", None]["datetime_value"].timestamp() * 1000 == CREATED_MS
    assert run["metrics/m0", Decimal("0.500000")]["timestamp"].timestamp() * 1000 == CREATED_MS + 1
    assert math.isnan(run["metrics/m0", Decimal("1.500000")]["float_value"])
    assert run["hist/w", Decimal(1)]["histogram_value"]["edges"] == [0.0, 0.5, 2.0]
    assert fork["sys/forking/parent", None]["string_value"] == "run-1"
    assert fork["sys/forking/step", None]["float_value"] == 4.0
