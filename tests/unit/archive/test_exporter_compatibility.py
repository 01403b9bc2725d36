"""neptune-exporter reads a part with plain pyarrow and looks at its own 14 columns."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardmig.archive.files import ArchiveFiles
from shardmig.records import Chunk, Field, Fields, Files, FloatPoints, HistogramPoints, Steps, StringPoints, Texts
from tests.unit.archive.runs import (
    RUN,
    exporter_rows,
    floats,
    histograms,
    int64s,
    parts_in,
    paths_in,
    publish,
    texts,
)


def _run(folder: Path) -> list[Chunk]:
    files = ArchiveFiles(paths_in(folder), RUN.project)
    source = folder / "one.txt"
    source.write_text("one")
    return [
        Fields(
            [
                Field("p/int", "int", 9007199254740993),
                Field("p/float", "float", -0.0),
                Field("p/text", "string", "héllo"),
                Field("p/bool", "bool", False),
                Field("sys/creation_time", "datetime", 1_700_000_000_123),
                Field("sys/tags", "string_set", ["a", "b"]),
            ]
        ),
        floats("m/loss", [0, 25, 50], [1.0, float("nan"), float("-inf")], scale=2, times=[1, 2, 3]),
        texts("log", [1, 2], ["", "line"]),
        HistogramPoints(
            ["h"], int64s([1]), Steps(int64s([7])), int64s([5]), histograms([("DENSITY", [0, 1, 2], [3, 4])])
        ),
        Files([files.put(RUN, "f/one", "file", source, name="one.txt", step=None)]),
    ]


def test_its_columns_come_first_with_its_types(tmp_path: Path) -> None:
    publish(tmp_path, _run(tmp_path))
    (part,) = (tmp_path / "data").rglob("*.parquet")
    schema = pq.read_table(part).schema
    assert schema.names[:14] == exporter_rows([]).schema.names
    histogram = pa.struct(
        [("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]
    )
    expected = [
        *[pa.string()] * 4,
        pa.decimal128(18, 6),
        pa.timestamp("ms", "UTC"),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.bool_(),
        pa.timestamp("ms", "UTC"),
        pa.list_(pa.string()),
        pa.struct([("path", pa.string())]),
        histogram,
    ]
    assert [str(kind).replace("element", "item") for kind in schema.types[:14]] == [str(kind) for kind in expected]


def test_its_reader_gets_every_value(tmp_path: Path) -> None:
    publish(tmp_path, _run(tmp_path))
    (part,) = (tmp_path / "data").rglob("*.parquet")
    rows = pq.read_table(part).to_pylist()
    assert {row["project_id"] for row in rows} == {"ws/proj"}
    assert {row["run_id"] for row in rows} == {"RUN-1"}
    found = {row["attribute_path"]: row for row in rows}
    assert found["p/int"]["int_value"] == 9007199254740993
    assert np.signbit(found["p/float"]["float_value"])
    assert found["p/bool"]["bool_value"] is False
    assert found["sys/creation_time"]["datetime_value"].timestamp() * 1000 == 1_700_000_000_123
    assert found["sys/tags"]["string_set_value"] == ["a", "b"]
    assert found["h"]["histogram_value"] == {"type": "DENSITY", "edges": [0, 1, 2], "values": [3, 4]}
    loss = [row for row in rows if row["attribute_path"] == "m/loss"]
    assert [row["step"] for row in loss] == [Decimal("0.000000"), Decimal("0.250000"), Decimal("0.500000")]
    assert [row["timestamp"].timestamp() for row in loss] == [0.001, 0.002, 0.003]
    assert loss[0]["float_value"] == 1.0
    assert np.isnan(loss[1]["float_value"])
    assert loss[2]["float_value"] == float("-inf")
    stored = tmp_path / "files" / "ws_proj-00871eb7ac1bdb01" / found["f/one"]["file_value"]["path"]
    assert stored.read_text() == "one"


def test_its_pandas_path_reads_ours(tmp_path: Path) -> None:
    publish(tmp_path, _run(tmp_path))
    (part,) = (tmp_path / "data").rglob("*.parquet")
    frame = pq.read_table(part).to_pandas()
    assert list(frame[frame["attribute_type"] == "float_series"]["attribute_path"]) == ["m/loss"] * 3


@pytest.mark.parametrize(
    ("step", "shown", "exact"),
    [
        ("0.29", "0.290000", None),
        ("999999999999.999999", "999999999999.999999", None),
        ("1000000000000", None, "1000000000000"),
        ("1700000000000", None, "1700000000000"),
        ("9223372036854775807", None, "9223372036854775807"),
        ("-9223372036854775807", None, "-9223372036854775807"),
        ("0.0000005", "0.000000", "0.0000005"),
        ("0.0000015", "0.000002", "0.0000015"),
        ("1e-18", "0.000000", "1e-18"),
        ("-1.0000001", "-1.000000", "-1.0000001"),
    ],
)
def test_a_step_that_its_column_cannot_hold_is_exact_in_ours(
    tmp_path: Path, step: str, shown: str | None, exact: str | None
) -> None:
    scale = max(0, -int(Decimal(step).as_tuple().exponent))
    publish(tmp_path, [floats("m", [int(Decimal(step).scaleb(scale))], [1.0], scale=scale)])
    (part,) = (tmp_path / "data").rglob("*.parquet")
    (row,) = pq.read_table(part).to_pylist()
    assert row["step"] == (None if shown is None else Decimal(shown))
    assert row["exact_step"] == (None if exact is None else Decimal(exact))


def test_all_scalars_stand_in_part_0_however_small_the_parts(tmp_path: Path) -> None:
    fields = Fields(
        [Field(f"{space}/{index}", "string", "x" * 100) for space in ("a", "sys") for index in range(30_000)]
    )
    receipt = publish(tmp_path, [fields, floats("m", range(10), range(10))], part_bytes=1)
    first = next((tmp_path / "data").rglob("*_part_0.parquet"))
    assert len(receipt.parts) > 1 or receipt.parts[0].rows == 60_010
    paths = pq.read_table(first, columns=["attribute_path"]).column(0).to_pylist()
    assert sum(path.startswith("sys/") for path in paths) == 30_000


def test_a_string_series_never_spans_two_parts(tmp_path: Path) -> None:
    count = 400_000
    long = Texts.from_list(["line"] * count)
    log = StringPoints(["log"], int64s([count]), Steps(int64s(range(count))), np.full(count, 1), long)
    steps = range(count)
    publish(tmp_path, [log, floats("a", steps, steps), floats("z", steps, steps)], part_bytes=1)
    names = parts_in(tmp_path)
    assert len(names) > 3
    holding: dict[str, set[str]] = {}
    for part in (tmp_path / "data").rglob("*.parquet"):
        for path in set(pq.read_table(part, columns=["attribute_path"]).column(0).to_pylist()):
            holding.setdefault(path, set()).add(part.name)
    assert len(holding["log"]) == 1
    assert len(holding["a"]) > 1


def test_row_groups_are_of_use_for_pruning(tmp_path: Path) -> None:
    points = [floats(f"m/{index:03}", range(50_000), np.arange(50_000)) for index in range(10)]
    publish(tmp_path, points)
    (part,) = (tmp_path / "data").rglob("*.parquet")
    metadata = pq.read_metadata(part)
    assert metadata.num_row_groups >= 4
    bounds = [metadata.row_group(group).column(2).statistics for group in range(metadata.num_row_groups)]
    assert [bound.min for bound in bounds] == sorted(bound.min for bound in bounds)
    assert all(one.max <= other.min for one, other in itertools.pairwise(bounds))


@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_the_compression_is_the_one_asked_for(tmp_path: Path, compression: str) -> None:
    publish(tmp_path, [floats("m", [1], [1.0])], compression=compression)
    (part,) = (tmp_path / "data").rglob("*.parquet")
    found = pq.read_metadata(part).row_group(0).column(0).compression
    assert found == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())


def test_fields_of_one_path_and_two_types_are_both_kept(tmp_path: Path) -> None:
    publish(tmp_path, [Fields([Field("lr", "float", 0.1)]), floats("lr", [1], [0.2])])
    (part,) = (tmp_path / "data").rglob("*.parquet")
    assert pq.read_table(part).column("attribute_type").to_pylist() == ["float", "float_series"]


def test_a_column_of_floats_takes_few_bytes(tmp_path: Path) -> None:
    """What PartsWriter's docstring says, with a little room."""
    count = 125_000
    random = np.random.default_rng(1)
    times = 1_700_000_000_000 + np.cumsum(random.normal(500, 30, count)).astype(np.int64)
    curve = 2.3 * np.exp(-np.arange(count) / 50_000) + random.normal(0, 0.05, count)
    limits = {"float64": (curve, 8.0), "float32": (curve.astype(np.float32).astype(np.float64), 4.6)}
    limits["four digits"] = (np.round(curve, 4), 3.6)
    for name, (values, limit) in limits.items():
        loss = FloatPoints(["loss"], int64s([count]), Steps(int64s(range(count))), times, values)
        publish(tmp_path / name, [loss])
        (part,) = (tmp_path / name / "data").rglob("*.parquet")
        assert part.stat().st_size / count < limit, name
