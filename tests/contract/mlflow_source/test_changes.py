"""What a listing tells: what changed since, and what is not there. A listing that was cut is never taken for a whole one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, LoggedModelOutput, Metric, ViewType

from shardmig.adapters.base import Want
from shardmig.adapters.mlflow.source import open_source
from shardmig.archive.files import DigestSink
from shardmig.cli.app import execute
from shardmig.errors import Unavailable
from shardmig.records import Field, Fields, RunRef, Selection
from tests.servers.scripted import Server, scripted_server

__all__ = ["scripted_server"]

BOTH_QUOTES = """it's "new\""""


@pytest.fixture
def changing(filled_objects: Path, tmp_path: Path) -> MlflowClient:
    """A database of its own with every object."""
    return MlflowClient(f"sqlite:///{shutil.copy(filled_objects, tmp_path / 'source.db')}")


def listed(uri: str, **options: str) -> dict[tuple[str, str], RunRef]:
    source = open_source({"tracking-uri": uri} | options)
    try:
        everything = Selection(include_archived=True)
        runs = (run for one in source.list_projects(everything) for run in source.list_runs(one, everything))
        return {(run.scope, run.id): run for run in runs}
    finally:
        source.close()


def run_named(client: MlflowClient, name: str) -> str:
    experiments = [one.experiment_id for one in client.search_experiments(ViewType.ALL)]
    [run] = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    found: str = run.info.run_id
    return found


def objects_of(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("objects: ünï")
    assert experiment is not None
    return str(experiment.experiment_id)


def lower_step(client: MlflowClient) -> None:
    client.log_batch(run_named(client, "run 1"), [Metric("late", 1.0, 5, -7)])


def another_value(client: MlflowClient) -> None:
    run = client.get_run(run_named(client, "run 1"))
    client.log_batch(run.info.run_id, [Metric("late", 0.5, 5, 0)])


def dataset_input(client: MlflowClient) -> None:
    client.log_inputs(run_named(client, "run 1"), [DatasetInput(MlflowDataset("new", "d", "local", "{}"))])


def model_output(client: MlflowClient) -> None:
    experiment = objects_of(client)
    model = client.search_logged_models([experiment])[0].model_id
    client.log_outputs(run_named(client, "run 1"), [LoggedModelOutput(model, 77)])


def experiment_tag(client: MlflowClient) -> None:
    client.set_experiment_tag(objects_of(client), "team", "others")


def linked_run(client: MlflowClient) -> None:
    store: Any = client._tracking_client.store
    experiment = objects_of(client)
    traces, _ = store.search_traces(locations=[experiment], max_results=100)
    store.link_traces_to_run(
        [next(one.trace_id for one in traces if one.tags.get("of") == "failed")], run_named(client, "run 1")
    )


def dataset_experiment(client: MlflowClient) -> None:
    store: Any = client._tracking_client.store
    new = client.create_experiment("with datasets")
    store.add_dataset_to_experiments(store.search_datasets()[0].dataset_id, [new])


@pytest.mark.parametrize(
    ("change", "scope"),
    [
        (lower_step, "runs"),
        (another_value, "runs"),
        (dataset_input, "runs"),
        (model_output, "runs"),
        (experiment_tag, "runs"),
        (linked_run, "traces"),
        (dataset_experiment, "datasets"),
    ],
)
def test_an_object_of_a_database_that_was_changed_is_told_as_changed(
    changing: MlflowClient, change: Callable[[MlflowClient], None], scope: str
) -> None:
    uri = changing.tracking_uri
    changing.log_batch(run_named(changing, "run 1"), [Metric("late", 1.0, 5, 0)])
    before = listed(uri)
    assert {one: run.fingerprint for one, run in listed(uri).items()} == {
        one: run.fingerprint for one, run in before.items()
    }
    change(changing)
    after = listed(uri)
    changed = {one for one, run in after.items() if one in before and before[one].fingerprint != run.fingerprint}
    scopes = {of for of, _ in changed}
    assert scope in scopes
    assert scopes <= {scope, "experiments"}
    if change is not experiment_tag:  # which every run of the experiment is read with
        assert len(changed) == 1


def answer(told: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()


def test_a_class_that_ends_in_the_middle_of_its_listing_is_not_taken_for_whole(scripted_server: Server) -> None:
    first = answer({"registered_models": [{"name": "first"}], "next_page_token": "more"})
    scripted_server.script = [first, answer({}), (404, {}, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')]
    with pytest.raises(Unavailable, match="while registered_models were listed"):
        listed(scripted_server.uri, objects="models")


def test_a_class_that_an_older_server_does_not_have_is_left_out(scripted_server: Server) -> None:
    scripted_server.script = [(404, {}, b'{"error_code": "ENDPOINT_NOT_FOUND"}')]
    assert listed(scripted_server.uri, objects="models") == {}


def test_a_model_whose_name_holds_both_kinds_of_quotes_is_read_with_its_versions(sqlite_file: Path) -> None:
    uri = f"sqlite:///{sqlite_file}"
    client = MlflowClient(uri)
    for name in (BOTH_QUOTES, "plain"):
        client.create_registered_model(name)
        client.create_model_version(name, "s3://bucket/model", description=f"of {name}")
    runs = listed(uri, objects="models")
    source = open_source({"tracking-uri": uri, "objects": "models"})
    source_of = {id_: source.read_runs([run], Want(), DigestSink()) for (_, id_), run in runs.items()}
    told: dict[str, list[Field]] = {
        id_: [field for piece in pieces if isinstance(piece.chunk, Fields) for field in piece.chunk.fields]
        for id_, pieces in source_of.items()
    }
    source.close()
    found = {id_: [one.value for one in fields if one.path.endswith("/description")] for id_, fields in told.items()}
    assert found == {BOTH_QUOTES: [f"of {BOTH_QUOTES}"], "plain": ["of plain"]}


@pytest.fixture
def places(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `a` and `b` with an empty `old.db` and `new.db` each; copies keep their archives in this folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for name in ("old.db", "new.db"):
            shutil.copy(sqlite_template, tmp_path / place / name)
    return tmp_path


def copy(*words: str) -> int:
    databases = ["--from", "sqlite:///old.db", "--to", "sqlite:///new.db"]
    return execute(["copy", *words, *databases, "--engine", "inline", "--no-progress"])


@pytest.mark.parametrize("words", [["model-version", "churn", "7"], ["model", "churn", "--versions", "1,7"]])
def test_a_version_that_another_model_has_is_not_there(
    places: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(f"sqlite:///{places}/a/old.db")
    for name, count in (("churn", 1), ("other", 7)):
        client.create_registered_model(name)
        for _ in range(count):
            client.create_model_version(name, "s3://bucket/model")
    monkeypatch.chdir(places / "a")
    assert copy(*words) == 2
    assert "churn has no version 7" in capsys.readouterr().err
    assert MlflowClient(f"sqlite:///{places}/a/new.db").search_registered_models() == []


def test_the_same_words_in_another_folder_are_another_copy(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a", "b"):
        MlflowClient(f"sqlite:///{places}/{place}/old.db").create_registered_model(f"of {place}")
    target = MlflowClient(f"sqlite:///{places}/a/new.db")
    target.create_registered_model("of a")
    monkeypatch.chdir(places / "a")
    assert copy("all", "--objects", "models") == 3  # that name is taken: the archive is kept
    monkeypatch.chdir(places / "b")
    assert copy("all", "--objects", "models") == 0
    copied = MlflowClient(f"sqlite:///{places}/b/new.db").search_registered_models()
    assert [model.name for model in copied] == ["of b"]


def test_a_kept_archive_that_holds_more_is_compared_as_far_as_it_was_copied(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places / "a")
    Path("mlruns").mkdir()  # where the runs' artifacts would be
    client = MlflowClient(f"sqlite:///{places}/a/old.db")
    for name in ("one", "two"):
        client.create_run(client.create_experiment(name), run_name=name)
    assert copy("experiment", "one", "--keep", "kept") == 0
    shutil.copy(places / "b" / "new.db", "new.db")  # a target that has none of it
    assert copy("experiment", "two", "--keep", "kept") == 0
