"""Offline archives as shardmig writes them: valid for the vendor, the same each time, whole or not there."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile

import jsonschema
import numpy as np
import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.comet.lines import metric_lines
from shardmig.adapters.comet.messages import MetricMessage, decode_block
from shardmig.adapters.conformance.runs import HOSTILE_NAMES, field_digests, plain_run, rich_run
from shardmig.adapters.sidecar.fitting import NativePoints
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput
from shardmig.records import ArchivePaths, Chunk, Field, Fields, Header, LoadOptions, ProjectId

DIGEST: Final = "d" * 32
_SCHEMAS: Final = {
    "metric_msg": "offline-metric-msg",
    "parameter_msg": "offline-parameter-msg",
    "log_other": "offline-log-other-msg",
    "file_upload": "offline-file-upload-msg",
}
_CLOSED: Final = {"offline-log-other-msg"}
"""Schemas to which the vendor's uploader adds that nothing else may be there."""


def write(folder: Path, chunks: list[Chunk], files: ArchiveFiles | None = None, **options: str) -> list[Path]:
    """The archives of a run, in the order of their names."""
    target = open_target({"offline-dir": str(folder), **{k.replace("_", "-"): v for k, v in options.items()}}, _LOAD)
    header = chunks[0]
    assert isinstance(header, Header)
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws"))
    target.write_run(migration_key(header.run), DIGEST, iter(chunks), files or nowhere, None)
    return sorted(folder.glob("*.zip"))


_LOAD: Final = LoadOptions(step_multiplier=100)


@pytest.fixture
def rich(tmp_path: Path) -> tuple[list[Chunk], ArchiveFiles]:
    """A run with every hazard."""
    files = ArchiveFiles(
        ArchivePaths(str(tmp_path / "a" / "data"), str(tmp_path / "a" / "files")), ProjectId("ws/rich")
    )
    return rich_run(files), files


def test_every_message_is_valid_under_the_vendors_schemas(
    tmp_path: Path, rich: tuple[list[Chunk], ArchiveFiles]
) -> None:
    seen = set()
    for archive in write(tmp_path / "comet", *rich, points_per_upload="500"):
        with ZipFile(archive) as opened:
            _validator("offline-experiment").validate(json.loads(opened.read("experiment.json")))
            for line in opened.read("messages.json").decode().splitlines():
                message = json.loads(line)
                _validator(_SCHEMAS[message["type"]]).validate(message["payload"])
                seen.add(message["type"])
    assert seen == set(_SCHEMAS)


def test_names_that_the_vendor_would_refuse_or_cut_never_reach_an_archive(tmp_path: Path) -> None:
    refused = {"n" * 101, "", " x", "a\u2028b", *HOSTILE_NAMES}
    fields = [Field(name, "int", number) for number, name in enumerate(sorted(refused))]
    chunks = plain_run()
    chunks[1] = Fields(fields)
    [archive] = write(tmp_path, chunks)
    names = [m["payload"]["param"]["paramName"] for m in _messages(archive) if m["type"] == "parameter_msg"]
    assert len(names) == len(set(names)) == len(fields)
    assert all(0 < len(name) <= 100 and name.strip() == name and len(name.splitlines()) == 1 for name in names)


def test_values_are_written_so_that_every_json_reader_gets_the_same_double() -> None:
    values = np.array([0.1, -0.0, 0.0, 5e-324, 1.7976931348623157e308, 1e16, 3.0, np.nan, np.inf, -np.inf, 2.0**53])
    count = len(values)
    steps = np.arange(count, dtype=np.int64) - 3
    lines = b"".join(metric_lines('na"me', NativePoints(steps, steps * 1000, values))).splitlines()
    for line, value, step in zip(lines, values.tolist(), steps.tolist(), strict=True):
        payload = json.loads(line)["payload"]
        read = float(payload["metric"]["metricValue"])
        assert math.isnan(read) if math.isnan(value) else (read == value and str(read) == str(value))
        assert (payload["metric"]["step"], payload["local_timestamp"]) == (step, step * 1000)
        assert payload["metric"]["metricName"] == 'na"me'
    assert [payload["metric"]["metricValue"] for payload in map(_payload, lines[7:10])] == [
        "NaN",
        "Infinity",
        "-Infinity",
    ]


def test_parameters_keep_their_types_and_long_texts_are_cut_as_the_vendor_cuts_them(tmp_path: Path) -> None:
    chunks = plain_run()
    chunks[1] = Fields(
        [
            Field("b", "bool", True),
            Field("d", "datetime", 1_000),
            Field("f", "float", 2.0),
            Field("i", "int", 2**53 + 1),
            Field("n", "float", float("nan")),
            Field("s", "string", "x" * 1001),
            Field("t", "string_set", ["a", "b"]),
        ]
    )
    [archive] = write(tmp_path, chunks)
    params = [m["payload"]["param"] for m in _messages(archive) if m["type"] == "parameter_msg"]
    assert {param["paramName"]: param["paramValue"] for param in params} == {
        "b": True,
        "d": "1970-01-01T00:00:01.000Z",
        "f": 2.0,
        "i": 2**53 + 1,
        "n": "NaN",
        "s": "x" * 988 + " [truncated]",
        "t": '["a","b"]',
    }


def test_the_same_run_gives_the_same_archives(tmp_path: Path, rich: tuple[list[Chunk], ArchiveFiles]) -> None:
    first = [path.read_bytes() for path in write(tmp_path / "one", *rich, points_per_upload="500")]
    second = [path.read_bytes() for path in write(tmp_path / "two", *rich, points_per_upload="500")]
    assert len(first) > 1
    assert first == second


def test_a_missing_archive_of_a_long_run_is_noticed(tmp_path: Path) -> None:
    chunks = plain_run()
    numbered, *_ = write(tmp_path, chunks, points_per_upload="4")
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(tmp_path)}, _LOAD)
    held = target.find_run(migration_key(header.run))
    assert held is not None
    assert held.state == "complete"
    numbered.unlink()
    partial = target.find_run(migration_key(header.run))
    assert partial is not None
    assert partial.state == "partial"


def test_what_something_else_wrote_into_an_archive_is_no_run_of_ours(tmp_path: Path) -> None:
    chunks = plain_run()
    [archive] = write(tmp_path, chunks)
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(tmp_path)}, _LOAD)
    held = target.find_run(migration_key(header.run))
    assert held is not None
    _append(archive, [_metric("metrics/loss", 1.0, 0)])
    with pytest.raises(BadInput, match="step order"):
        list(target.read_run(held, Want(), DigestSink()))


def test_points_that_were_added_elsewhere_are_seen(tmp_path: Path) -> None:
    chunks = plain_run()
    [archive] = write(tmp_path, chunks)
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(tmp_path)}, _LOAD)
    held = target.find_run(migration_key(header.run))
    assert held is not None
    _append(archive, [_metric("metrics/new", 1.0, 0)])
    pieces = [piece.chunk for piece in target.read_run(held, Want(), DigestSink())]
    assert {path for path, _ in field_digests(pieces)} - {path for path, _ in field_digests(chunks)} == {"metrics/new"}


def test_a_file_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    chunks = plain_run()
    [archive] = write(tmp_path, chunks)
    with ZipFile(archive) as opened:
        experiment = opened.read("experiment.json")
    with ZipFile(archive, "w", ZIP_DEFLATED) as bomb:
        bomb.writestr("experiment.json", experiment)
        with bomb.open("messages.json", "w", force_zip64=True) as file:
            for _ in range(70):
                file.write(b"\0" * (1 << 20))
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(tmp_path)}, _LOAD)
    held = target.find_run(migration_key(header.run))
    assert held is not None
    with pytest.raises(BadInput, match="bomb"):
        list(target.read_run(held, Want(), DigestSink()))


def test_a_line_with_bare_nan_is_read_as_the_vendors_client_reads_it() -> None:
    good = json.dumps(_metric("loss", 1.0, 0)).encode()
    [point, odd, none], mended = decode_block(good + b"\n" + good.replace(b"1.0", b"NaN") + b"\n{half a line")
    assert mended == 0
    assert isinstance(point, MetricMessage)
    assert isinstance(odd, MetricMessage)
    assert odd.payload.metric is not None
    assert isinstance(odd.payload.metric.metricValue, float)
    assert math.isnan(odd.payload.metric.metricValue)
    assert none is None


def _payload(line: bytes) -> Any:
    return json.loads(line)["payload"]


def _metric(name: str, value: float, step: int) -> dict[str, Any]:
    point = {"metricName": name, "metricValue": value, "step": step, "epoch": None}
    return {"type": "metric_msg", "payload": {"metric": point, "local_timestamp": 1}}


def _append(archive: Path, messages: list[dict[str, Any]]) -> None:
    with ZipFile(archive) as opened:
        contents = {name: opened.read(name) for name in opened.namelist()}
    contents["messages.json"] += "".join(json.dumps(message) + "\n" for message in messages).encode()
    with ZipFile(archive, "w") as opened:
        for name, content in contents.items():
            opened.writestr(name, content)


def _messages(archive: Path) -> Iterator[Any]:
    with ZipFile(archive) as opened:
        yield from map(json.loads, opened.read("messages.json").decode().splitlines())


def _validator(name: str) -> Any:
    """The vendor's validator of that name; comet_ml itself is slow to import, its schemas are files."""
    spec = importlib.util.find_spec("comet_ml")
    assert spec is not None
    assert spec.submodule_search_locations
    schema = json.loads(Path(spec.submodule_search_locations[0], "schemas", f"{name}.schema.json").read_text())
    if name in _CLOSED:
        schema["additionalProperties"] = False
    return jsonschema.validators.validator_for(schema)(schema)
