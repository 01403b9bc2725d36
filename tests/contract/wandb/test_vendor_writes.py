"""What W&B's own client recorded offline, in this test and with no server, is what the source gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.conformance import field_digests
from shardmig.adapters.wandb.source import open_source
from shardmig.archive.files import DigestSink
from shardmig.records import Chunk, Fields, FloatPoints, Selection

SCRIPT = """
import sys, wandb, numpy as np
settings = wandb.Settings(mode="offline", root_dir=sys.argv[1], silent=True, disable_git=True, x_save_requirements=False)
run = wandb.init(project="p", entity="e", name="first", group="g", tags=["b", "a"], notes="n", settings=settings,
                 id="abc", config={"lr": 0.1, "deep": {"a": [1, 2]}, "big": 2**53 + 1, "typed": {"_type": "t"}})
run.name, run.tags = "second", ("c",)
for step in range(50):
    row = {"loss": 1 / (step + 3), "deep": {"x": step / 7}, "odd": float("nan") if step % 2 else float("-inf")}
    if step % 10 == 0:
        row["hist"] = wandb.Histogram(np_histogram=(np.array([1, 2]), np.array([0.0, 0.1, 0.7])))
        row["image"] = wandb.Image(np.zeros((2, 2, 3), dtype=np.uint8), caption=f"image {step}")
        row["table"] = wandb.Table(columns=["a"], data=[[step]])
        row["word"] = f"w{step}"
    run.log(row)
for version in range(2):
    artifact = wandb.Artifact("model", "model", metadata={"acc": version})
    with artifact.new_file("w.txt") as file:
        file.write(f"version {version}")
    run.log_artifact(artifact)
run.summary["_best"] = 7
run.finish(exit_code=3)
wandb.teardown()
"""


@pytest.mark.server
def test_a_run_that_was_never_synced_is_read_whole(tmp_path: Path) -> None:
    own = {f"WANDB_{name}_DIR": str(tmp_path / "own") for name in ("CACHE", "CONFIG", "DATA")}
    environment = os.environ | own | {"WANDB_ERROR_REPORTING": "false"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, check=True, timeout=200)
    chunks = _read(tmp_path)
    fields = {field.path: field.value for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}
    assert fields["config/lr"] == 0.1
    assert fields["config/big"] == 2**53 + 1
    assert (fields["sys/custom_run_id"], fields["sys/tags"]) == ("second", ["c"])
    assert (fields["config/typed"], fields["summary/_best"]) == ('{"_type": "t"}', 7)
    assert [json.loads(str(fields[f"artifacts/model:{version}"]))["metadata"]["acc"] for version in (0, 1)] == [0, 1]
    assert (fields["sys/failed"], fields["sys/wandb/state"]) == (True, "failed")
    values = {
        path: points.values.tolist()
        for chunk in chunks
        if isinstance(chunk, FloatPoints)
        for path, points in chunk.series()
    }
    assert values["metrics/loss"] == [1 / (step + 3) for step in range(50)]
    assert values["metrics/deep.x"] == [step / 7 for step in range(50)]
    rows = {key: digest.rows for key, digest in field_digests(chunks).items()}
    assert [rows[f"metrics/{name}", "file_series"] for name in ("image", "table")] == [5, 5]
    assert [rows[f"artifacts/model:{version}", "file_set"] for version in (0, 1)] == [1, 1]
    assert rows["metrics/image", "string_series"] == 5  # the captions
    assert rows["metrics/hist", "histogram_series"] == rows["metrics/word", "string_series"] == 5


def _read(root: Path) -> list[Chunk]:
    source = open_source({"path": str(root)})
    (project,) = source.list_projects(Selection())
    (run,) = source.list_runs(project, Selection())
    return [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]
