"""Permissions and notebooks of Databricks are kept in the archive when they are asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from shardmig import open_archive
from shardmig.archive.namespace import Archive
from shardmig.cli.app import execute
from shardmig.records import Scope
from tests.servers.databricks import LEVELS, Workspace
from tests.servers.http import answering
from tests.servers.mlflow import mlflow_server

pytestmark = pytest.mark.xdist_group("databricks")

NOTEBOOK = "/Users/ünï@x.org/churn"
ACL = {"object_type": "mlflowExperiment", "access_control_list": [{"user_name": "ünï", "all_permissions": []}]}


class Place(NamedTuple):
    """A workspace with one run, and an archive of it."""

    workspace: Workspace
    folder: Path
    run: str

    def export(self, *options: str, code: int = 0) -> None:
        """Everything there is."""
        places = ["-d", str(self.folder / "data"), "-f", str(self.folder / "files")]
        line = ["export", "--source", "mlflow", self.workspace.url, *places, "--no-progress", *options]
        assert execute(line) == code

    @property
    def archive(self) -> Archive:
        """What came."""
        return open_archive(self.folder / "data", self.folder / "files")

    def permissions(self, project: str, scope: Scope, id_: str) -> object:
        """Those of an experiment or a model."""
        return json.loads(str(self.archive[project].scope(scope)[id_].field("sys/mlflow/permissions").fetch()))


@pytest.fixture(scope="module")
def filled(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace over a server with an experiment, a run and a model."""
    folder = tmp_path_factory.mktemp("databricks")
    database = Path(shutil.copy(sqlite_template, folder / "mlflow.db"))
    with mlflow_server(folder, database, workers=1) as server, answering(Workspace(server)) as workspace:
        client = MlflowClient(server.uri)
        tags = {"mlflow.databricks.notebookPath": NOTEBOOK, "mlflow.databricks.notebookRevisionID": "17"}
        run = client.create_run(client.create_experiment("churn"), tags=tags).info.run_id
        client.log_text(run, "its own", "notebooks/churn.html")
        client.create_registered_model("churn model")
        yield workspace


@pytest.fixture
def place(filled: Workspace, tmp_path: Path) -> Place:
    """The workspace, which tells everything."""
    client = MlflowClient(filled.mlflow.uri)
    experiment = client.get_experiment_by_name("churn")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    told = f"experiments/{experiment.experiment_id}"
    filled.acls = {"experiments/0": {}, told: ACL, "registered-models/7": ACL}
    filled.model_ids = {"churn model": "7"}
    filled.notebooks = {(NOTEBOOK, "17"): {"SOURCE": "# ünï".encode(), "HTML": b"<html>"}}
    filled.asked_of_databricks = 0
    return Place(filled, tmp_path, run.info.run_id)


def test_who_may_do_what_with_experiments_and_models_is_kept(place: Place) -> None:
    place.export("--permissions")
    told = LEVELS | {"permissions": ACL}
    assert place.permissions("churn", "experiments", "churn") == told
    assert place.permissions("registry", "registered_models", "churn model") == told


def test_a_run_has_the_notebook_that_it_came_from_as_an_artifact(place: Place) -> None:
    place.export("--notebooks", "source", "--objects", "runs")
    run = place.archive["churn"][place.run]
    assert run.field("artifacts/notebooks/churn.source").fetch_path().read_text() == "# ünï"
    assert run.field("artifacts/notebooks/churn.html").fetch_path().read_text() == "its own"


def test_what_was_not_asked_for_is_not_requested(place: Place) -> None:
    place.export()
    assert place.workspace.asked_of_databricks == 0


def test_asking_for_more_reads_again_what_has_more(place: Place) -> None:
    place.export()
    place.export("--permissions", "--notebooks", "SOURCE", "--update")
    assert place.permissions("churn", "experiments", "churn")
    assert "artifacts/notebooks/churn.source" in place.archive["churn"][place.run]


def test_permissions_that_are_not_told_are_a_loss_of_their_object_alone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    del place.workspace.acls["registered-models/7"]
    place.export("--permissions", "--json", code=3)
    assert lost(capsys) == {"churn model": {("permissions-not-read", "sys/mlflow/permissions")}}
    assert place.permissions("churn", "experiments", "churn")


def test_notebooks_that_do_not_come_are_losses_of_their_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.export("--notebooks", "SOURCE,HTML,DBC", "--json", code=3)
    folder = "artifacts/notebooks/churn"
    assert lost(capsys) == {
        place.run: {("notebook-not-read", f"{folder}.html"), ("notebook-not-read", f"{folder}.dbc")}
    }


@pytest.mark.parametrize("option", [["--permissions"], ["--notebooks", "SOURCE"]])
def test_a_database_cannot_tell_them(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "mlflow.db"
    database.touch()
    assert execute(["export", "--source", "mlflow", f"sqlite:///{database}", "-d", str(tmp_path / "d"), *option]) == 2
    assert "only Databricks tells them" in capsys.readouterr().err


def test_a_format_that_there_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", "--source", "mlflow", "http://localhost:1", "-d", str(tmp_path / "data"), "--notebooks", "PDF"]
    assert execute(line) == 2
    assert "SOURCE, HTML, JUPYTER, DBC" in capsys.readouterr().err


def lost(capsys: pytest.CaptureFixture[str]) -> dict[str, set[tuple[str, str]]]:
    """The losses that the last command reported: by the id of the run, (code, field)."""
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]["export"]
    return {
        outcome["run"]["id"]: {(one["code"], one.get("field", "")) for one in losses}
        for outcome in outcomes
        if (losses := [one for one in outcome["findings"] if one["kind"] == "loss"])
    }
