"""Folders `mlruns` are a source, whatever MLflow's own store makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.mlflow.source import open_source
from shardmig.archive.files import DigestSink
from shardmig.records import Files, Selection
from tests.contract.mlflow_source.comparer import differences
from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.objects_world import fill_folder_objects
from tests.contract.mlflow_source.world import fill

REPORTED = {
    "infinity-clamped": "metric odd",
    "negative-zero": "metric größe/日本 - 1",
    "duplicate-points-collapse": "metric loss",
    "experiment-deleted-later": "experiment gone",
    "model-linked-later": "model outputs",
}
"""What a database cannot hold of it, and where it shows."""

MLFLOWS_OWN = ("latest metrics", "run in a deleted experiment: artifact", "model inputs")
"""What MLflow's own store reads wrongly: latest points by its rules, artifacts below `.trash`."""


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with points that were logged twice, without step, and with a dataset."""
    root = tmp_path_factory.mktemp("file-store") / "mlruns"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        fill(str(root), points=60, second="övning")
    for path in root.glob("*/*/metrics/loss"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines, *lines[:2], "1700 0.25\n", "1701 0.5 9 data digest\n"]))
    return root


class TestFolder(SourceSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, filled: Path) -> None:
        self.filled = filled

    def open_source(self, folder: Path) -> ReadSide:
        return open_source({"tracking-uri": str(self.filled)})

    def snapshot(self, folder: Path) -> object:
        return super().snapshot(self.filled)


def test_a_folder_whose_points_repeat_is_copied_and_verified(
    filled: Path, sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    copy = Copy(tmp_path, str(filled), f"sqlite:///{sqlite_file}")
    reported = copy.migrate("--engine", "inline")
    assert reported.keys() >= REPORTED.keys()
    expected = [*REPORTED.values(), *MLFLOWS_OWN]
    assert [line for line in differences(*copy[1:]) if not any(known in line for known in expected)] == []
    child = _loss_of(copy.target, "child")
    assert child[:2] == [(0, 1700, 0.25), (0, 1_700_000_001_000, 1.0)]
    assert child[-1] == (9, 1701, 0.5)
    assert set(copy.verify("--engine", "inline")) == {"approximated", "equal"}


def test_objects_of_a_folder_are_copied(sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    # ./mlruns is where the target puts its artifacts
    copy = Copy(tmp_path, str(tmp_path / "source" / "mlruns"), f"sqlite:///{sqlite_file}")
    fill_folder_objects(copy.source)
    copy.migrate("--engine", "inline")
    assert object_differences(copy.source, copy.target) == []
    assert set(copy.verify("--engine", "inline")) == {"equal"}


def test_a_folder_that_was_moved_still_has_its_artifacts(filled: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(filled, tmp_path / "elsewhere" / "mlruns")
    for meta in moved.glob("*/*/meta.yaml"):
        meta.write_text(meta.read_text().replace(str(filled), "/gone"))
    source = open_source({"tracking-uri": str(moved)})
    everything = Selection(include_archived=True)
    runs = [run for project in source.list_projects(everything) for run in source.list_runs(project, everything)]
    pieces = source.read_runs(runs, Want(), DigestSink())
    files = [ref.path for piece in pieces if isinstance(piece.chunk, Files) for ref in piece.chunk.files]
    assert files.count("artifacts/plain.txt") == 10


def _loss_of(uri: str, name: str) -> list[tuple[int, int, float]]:
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    points = client.get_metric_history(run.info.run_id, "loss")
    return sorted((point.step, point.timestamp, point.value) for point in points)
