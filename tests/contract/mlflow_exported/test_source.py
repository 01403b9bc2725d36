"""Folders that mlflow-export-import 1.2.0 wrote, in its layouts, whole and damaged, are a source."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.mlflow.exported import open_source
from shardmig.archive.files import DigestSink
from shardmig.cli.app import execute
from shardmig.errors import BadInput, UsageError
from shardmig.records import Chunk, End, Field, Fields, Files, FloatPoints, RunRef, Selection

SAMPLE = Path(__file__).parents[2] / "samples" / "mlflow-export-import"
EVERYTHING = Selection(include_archived=True)
FIRST = "1314b165fd664bb79bd452847c59ff05"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A copy of an export of everything."""
    return Path(shutil.copytree(SAMPLE / "all", tmp_path / "exported"))


class TestExported(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        return open_source({"path": str(SAMPLE / "all")})

    def snapshot(self, folder: Path) -> object:
        return super().snapshot(SAMPLE)


def runs(source: ReadSide) -> dict[str, RunRef]:
    projects = source.list_projects(EVERYTHING)
    listed = (run for project in projects for run in source.list_runs(project, EVERYTHING))
    return {run.id: run for run in listed if run.scope == "runs"}


def chunks(source: ReadSide, run: RunRef) -> list[Chunk]:
    return [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]


def fields(found: list[Chunk]) -> dict[str, Field]:
    return {field.path: field for chunk in found if isinstance(chunk, Fields) for field in chunk.fields}


def test_everything_of_a_run_is_read() -> None:
    source = open_source({"path": str(SAMPLE / "all")})
    found = chunks(source, runs(source)[FIRST])
    scalars = fields(found)
    assert scalars["params/lr"].value == "0.1"
    assert scalars["tags/ключ"].value == "значение"
    assert scalars["sys/mlflow/experiment/tags/owner"].value == "ünï"
    assert scalars["sys/mlflow/end_time"].value == 1700000099000
    [files] = [chunk for chunk in found if isinstance(chunk, Files)]
    assert {file.path for file in files.files} == {"artifacts/config.json", "artifacts/dir/notes.txt"}
    points = {chunk.paths[0]: chunk for chunk in found if isinstance(chunk, FloatPoints)}
    assert points["metrics/a/b"].values.tolist() == [-2.5]
    loss = points["metrics/loss"]
    assert len(loss.values) == 30
    assert math.isnan(loss.values[3])
    assert np.array_equal(loss.steps.units, np.arange(30))


def test_a_child_knows_its_parent_in_another_experiment() -> None:
    source = open_source({"path": str(SAMPLE / "all")})
    [child] = [run for run in runs(source).values() if run.parent]
    assert (child.project, child.parent, child.parent_project) == ("other", FIRST, "team/first")


def test_a_single_run_is_read_under_the_id_of_its_experiment() -> None:
    source = open_source({"path": str(SAMPLE / "run")})
    [run] = runs(source).values()
    assert (run.project, run.id) == ("experiment 1", FIRST)
    assert "params/lr" in fields(chunks(source, run))


def test_the_newer_layout_and_second_copies_change_nothing(exported: Path) -> None:
    old = exported / "experiments" / "1"
    (old / "runs").mkdir()
    (old / FIRST).rename(old / "runs" / FIRST)
    copy = exported / "models" / "m" / FIRST
    shutil.copytree(old / "runs" / FIRST, copy)
    (copy / "artifacts" / "config.json").write_text("another one")
    plain, moved = (open_source({"path": str(path)}) for path in (SAMPLE / "all", exported))
    assert runs(plain).keys() == runs(moved).keys()
    assert [repr(chunk) for chunk in chunks(plain, runs(plain)[FIRST])][2:] == [
        repr(chunk) for chunk in chunks(moved, runs(moved)[FIRST])
    ][2:]


@pytest.mark.parametrize("listed", ["runs", "failed_runs"])
def test_a_run_that_is_listed_and_not_there_fails_loudly(exported: Path, listed: str) -> None:
    path = exported / "experiments" / "1" / "experiment.json"
    told = json.loads(path.read_text())
    (told["mlflow"] if listed == "runs" else told["info"])[listed].append("lost")
    path.write_text(json.dumps(told))
    source = open_source({"path": str(exported)})
    with pytest.raises(BadInput, match="lists run lost and does not have it"):
        chunks(source, runs(source)["lost"])
    assert "params/lr" in fields(chunks(source, runs(source)[FIRST]))


@pytest.mark.parametrize("kept", [0, 100, 900, 3000])
def test_a_file_that_was_cut_fails_loudly_and_alone(exported: Path, kept: int) -> None:
    path = exported / "experiments" / "1" / FIRST / "run.json"
    path.write_bytes(path.read_bytes()[:kept])
    source = open_source({"path": str(exported)})
    found = runs(source)
    with pytest.raises(BadInput, match=r"run\.json"):
        chunks(source, found[FIRST])
    [other] = [run for run in found.values() if run.project == "team/first" and run.id != FIRST]
    assert isinstance(chunks(source, other)[-1], End)


@pytest.mark.parametrize("kept", [0, 300, 800, 1060])
@pytest.mark.parametrize("objects", ["runs", "runs,experiments"])
def test_a_list_of_runs_that_was_cut_fails_loudly_and_alone(exported: Path, kept: int, objects: str) -> None:
    path = exported / "experiments" / "1" / "experiment.json"
    path.write_bytes(path.read_bytes()[:kept])
    source = open_source({"path": str(exported), "objects": objects})
    found = runs(source)
    with pytest.raises(BadInput, match=r"experiment\.json"):
        chunks(source, found["experiments/1/experiment.json"])
    assert "params/lr" in fields(chunks(source, found[FIRST]))
    assert {run.project for run in found.values()} == {"team/first" if kept == 1060 else "experiment 1", "other"}
    if objects != "runs":
        listed = [one for project in source.list_projects(EVERYTHING) for one in source.list_runs(project, EVERYTHING)]
        [cut] = [one for one in listed if one.scope == "experiments" and one.project not in ("other", "Default")]
        with pytest.raises(BadInput, match=r"experiment\.json"):
            chunks(source, cut)


def test_points_that_are_none_are_counted_as_lost(exported: Path) -> None:
    path = exported / "experiments" / "1" / FIRST / "run.json"
    told = json.loads(path.read_text())
    told["mlflow"]["metrics"]["a/b"] += [{"value": 1.0}, {"value": "x", "timestamp": 1, "step": 1}]
    told["mlflow"]["metrics"]["a/b"].append({"value": 2.0, "timestamp": 9, "step": 1, "dataset_name": "train"})
    path.write_text(json.dumps(told))
    source = open_source({"path": str(exported)})
    end = chunks(source, runs(source)[FIRST])[-1]
    assert isinstance(end, End)
    assert {(one.code, one.field, one.count) for one in end.findings} == {
        ("bad-point", "metrics/a/b", 2),
        ("point-dataset", "metrics/a/b", 1),
    }


@pytest.mark.parametrize("options", [{}, {"path": "/nonexistent"}, {"path": ".", "speed": "high"}])
def test_options_that_mean_nothing_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        open_source(options)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["--engine", "inline", "--no-progress", "-d", "data", "-f", "files"]


def test_a_cut_list_is_named_all_else_is_copied_and_the_exit_code_tells(
    exported: Path, sqlite_file: Path, commands: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kept in (("experiments/1/experiment.json", 1060), ("models/models.json", 600)):
        path = exported / name
        path.write_bytes(path.read_bytes()[:kept])
    into = ["--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{sqlite_file}"]
    assert execute(["migrate", "--source", "mlflow-export-import", str(exported), *into, *commands]) == 3
    told = capsys.readouterr()
    assert "experiments/1/experiment.json" in told.out + told.err
    assert "models/models.json" in told.out + told.err
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    [experiment] = client.search_experiments(filter_string="name = 'team/first'")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_an_export_is_brought_back_into_mlflow_and_verified(sqlite_file: Path, commands: list[str]) -> None:
    into = ["--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{sqlite_file}"]
    assert execute(["migrate", "--source", "mlflow-export-import", str(SAMPLE / "all"), *into, *commands]) == 0
    assert execute(["verify", *into, *commands]) == 0
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    [experiment] = client.search_experiments(filter_string="name = 'team/first'")
    [run] = client.search_runs([experiment.experiment_id], "attributes.run_name = 'first run'")
    assert run.data.params["lr"] == "0.1"
    assert run.info.start_time == 1700000000000
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 30
