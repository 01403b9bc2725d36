"""Folders `mlruns` are a source, whatever MLflow's own store makes of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.mlflow.source import open_source
from shardmig.adapters.mlflow.source.files import FileStore
from shardmig.archive.files import DigestSink
from shardmig.errors import Permanent
from shardmig.records import Files, Selection, TargetRunId
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


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two experiments; in the first a run for each thing that may be damaged, and a whole one."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    root = tmp_path / "source" / "mlruns"
    client = MlflowClient(str(root))
    first = client.create_experiment("first")
    for name in ("whole", "empty meta", "broken meta", "no meta", "bad tag", "bad metric", "no dataset"):
        run = client.create_run(first, run_name=name).info.run_id
        client.log_param(run, "lr", "0.1")
        client.log_metric(run, "loss", 0.5)
        dataset = Dataset("train", name, "local", "{}")
        client.log_inputs(run, [DatasetInput(dataset)])
        client.set_terminated(run)
    client.create_run(client.create_experiment("second"), run_name="in a damaged experiment")
    return root


def damage(root: Path) -> set[str]:
    """Damage all of `small` but the whole run; the ids of the runs that are not."""
    client = MlflowClient(str(root))
    runs = {
        run.info.run_name: Path(root, run.info.experiment_id, run.info.run_id)
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    }
    (runs["empty meta"] / "meta.yaml").write_text("")
    (runs["broken meta"] / "meta.yaml").write_text("{broken")
    (runs["no meta"] / "meta.yaml").unlink()
    (runs["bad tag"] / "tags" / "tag").write_bytes(b"\xff")
    (runs["bad metric"] / "metrics" / "gone").symlink_to("nowhere")
    for meta in runs["whole"].parent.glob("datasets/*/meta.yaml"):
        if "no dataset" in meta.read_text():
            meta.unlink()
    (runs["in a damaged experiment"].parent / "meta.yaml").unlink()
    del runs["whole"]
    return {path.name for path in runs.values()}


def test_damaged_runs_fail_alone(small: Path, sqlite_file: Path, tmp_path: Path) -> None:
    every = read_ids(small)
    damaged = damage(small)
    assert len(damaged) == 7
    assert read_ids(small) == every
    copy = Copy(tmp_path, str(small), f"sqlite:///{sqlite_file}")
    copy.migrate("--engine", "inline", "--max-attempts", "1", code=3)
    client = MlflowClient(copy.target)
    arrived = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert [run.info.run_name for run in arrived] == ["whole"]
    store = FileStore(small)
    for run in damaged:
        with pytest.raises(Permanent, match=str(small)):
            store.get_run(TargetRunId(run))


def test_folders_of_somebody_else_are_no_runs(small: Path) -> None:
    """A database keeps the artifacts of its runs in such folders."""
    before = read_ids(small)
    artifact = small / "7" / ("0" * 32) / "artifacts" / "a.txt"
    artifact.parent.mkdir(parents=True)
    artifact.touch()
    (small / ".ipynb_checkpoints").mkdir()
    assert read_ids(small) == before


def read_ids(root: Path) -> set[str]:
    source = open_source({"tracking-uri": str(root), "objects": "runs"})
    runs = [run for project in source.list_projects(Selection()) for run in source.list_runs(project, Selection())]
    source.close()
    return {str(run.id) for run in runs}


def test_artifacts_are_looked_for_where_the_run_says_they_are(small: Path, tmp_path: Path) -> None:
    [experiment] = [one.id for one in FileStore(small).experiments() if one.name == "first"]
    run = next(FileStore(small).search_runs([experiment], only_migrated=False))
    meta = small / experiment / run.id / "meta.yaml"
    beside = str(meta.parent / "artifacts")
    assert Path(beside).is_dir()  # MLflow makes it, wherever artifacts go
    for place in (
        "s3://bucket/{}/{}/artifacts",
        "mlflow-artifacts:/{}/{}/artifacts",
        f"{tmp_path}/other/{{}}/{{}}/artifacts",
    ):
        told = place.format(experiment, run.id)
        if told.startswith("/"):
            Path(told).mkdir(parents=True)
        meta.write_text(re.sub("artifact_uri: .*", f"artifact_uri: {told}", meta.read_text()))
        assert FileStore(small).get_run(run.id).artifact_uri == told
    shutil.rmtree(tmp_path / "other")
    assert FileStore(small).get_run(run.id).artifact_uri == beside


def _loss_of(uri: str, name: str) -> list[tuple[int, int, float]]:
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    points = client.get_metric_history(run.info.run_id, "loss")
    return sorted((point.step, point.timestamp, point.value) for point in points)
