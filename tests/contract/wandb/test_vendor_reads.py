"""What a load left on a server, seen with the vendor's own public API: what people and their scripts find there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import migration_key
from shardmig.adapters.conformance import rich_run
from shardmig.adapters.wandb import open_target
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Field, Fields, Header, LoadOptions, ProjectId
from tests.servers.wandb.server import KEY, WandbServer

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("wandb-server")]


def test_a_run_looks_in_wandb_as_people_expect_it(wandb: WandbServer, tmp_path: Path) -> None:
    run = _loaded(wandb, tmp_path)
    assert (run.name, run.state, run.group, run.job_type) == ("RICH-1", "failed", "name of RICH-1", "imported")
    assert sorted(run.tags) == ["group", "one", "two words"]
    assert run.config["values/int/2"] == 2**53 + 1
    assert run.config["values/bool/true"] is True
    assert run.config["shardmig"]["run_id"] == "RICH-1"
    assert run.summary["series/constant"] == 1.0
    rows = list(run.scan_history(page_size=2**53))
    long = [row for row in rows if "series/long" in row]
    assert [row["_step"] for row in long] == [100 * step for step in range(1000)]
    assert [row["_timestamp"] for row in long[30:]] == [1_700_000_000.123 + step for step in range(30, 1000)]
    odd = [row["series/odd_values"] for row in rows if "series/odd_values" in row]
    assert math.isnan(odd[0])
    assert odd[1:3] == [math.inf, -math.inf]
    assert [row["_step"] for row in rows] == sorted(row["_step"] for row in rows)


def test_histograms_tables_images_and_files_are_there(wandb: WandbServer, tmp_path: Path) -> None:
    run = _loaded(wandb, tmp_path)
    rows = list(run.scan_history(page_size=2**53))
    histograms = [row["histograms/weights"] for row in rows if "histograms/weights" in row]
    assert histograms[0] == {"_type": "histogram", "values": [3.0, 4.0], "bins": [0.0, 1.0, 2.0]}
    table = next(row["logs/stdout"] for row in rows if "logs/stdout" in row)
    assert (table["_type"], table["nrows"]) == ("table-file", 5)
    names = {file.name for file in run.files()}
    assert {table["path"], "files/model.pt", "images/step_0.5.png", "files/tree/deep/er/ąę.txt"} <= names
    with run.file("files/model.pt").download(root=str(tmp_path / "down")) as file:
        assert Path(file.name).read_bytes() == bytes(range(256)) * 300


def _loaded(wandb: WandbServer, tmp_path: Path) -> Any:
    import wandb as vendor

    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), ProjectId("ws/rich"))
    chunks = rich_run(files)
    header, fields = chunks[0], chunks[1]
    assert isinstance(header, Header)
    assert isinstance(fields, Fields)
    failed = [Field("sys/failed", "bool", True) if one.path == "sys/failed" else one for one in fields.fields]
    target = open_target({"job-type": "imported"}, LoadOptions(step_multiplier=100))
    stream = iter([header, Fields(failed), *chunks[2:]])
    written = target.write_run(migration_key(header.run), "digest", stream, files, None)
    return vendor.Api(overrides={"base_url": wandb.url}, api_key=KEY).run(written.id)
