"""shardmig copy as a user types it: from one MLflow database into another."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from shardmig.cli.app import execute
from tests.servers.tracking_databases import sqlite_file, sqlite_template

__all__ = ["sqlite_file", "sqlite_template"]


@pytest.fixture
def source(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two experiments: one run with a point, a child of it in the other one, and a deleted run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    one, two = client.create_experiment("one"), client.create_experiment("two's")
    parent = client.create_run(one, run_name="parent").info.run_id
    client.log_metric(parent, "loss", 0.5, timestamp=5, step=3)
    client.log_text(parent, "text", "notes.txt")
    client.set_terminated(parent)
    child = client.create_run(two, run_name="child", tags={"mlflow.parentRunId": parent}).info.run_id
    client.set_terminated(child, "FAILED")
    client.delete_run(client.create_run(one, run_name="deleted").info.run_id)
    return sqlite_file


@pytest.fixture
def target(sqlite_template: Path, tmp_path: Path) -> Path:
    """An empty database."""
    made = tmp_path / "target.db"
    made.write_bytes(sqlite_template.read_bytes())
    return made


def copy(what: str, source: Path, target: Path, *options: str, code: int = 0) -> None:
    line = ["copy", *what.split(), "--from", f"sqlite:///{source}", "--to", f"sqlite:///{target}", *options]
    inline = [] if what == "database" else ["--engine", "inline", "--no-progress"]
    assert execute([*line, *inline]) == code


def runs(database: Path, *experiments: str) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{database}")
    ids = [found.experiment_id for found in client.search_experiments() if found.name in experiments]
    return {str(run.info.run_name): run for run in client.search_runs(ids, run_view_type=3)}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("shardmig-copy-*"))


def test_all_is_copied_compared_and_leaves_nothing_behind(
    source: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("all", source, target)
    found = runs(target, "one", "two's")
    assert found.keys() == {"parent", "child"}
    assert found["child"].data.tags["mlflow.parentRunId"] == found["parent"].info.run_id
    assert found["parent"].data.metrics == {"loss": 0.5}
    told = capsys.readouterr().err
    assert "`shardmig copy database` is faster" in told
    assert "shardmig verify: complete" in told
    assert leftovers(tmp_path) == []


def test_deleted_runs_come_when_they_are_asked_for(source: Path, target: Path) -> None:
    copy("all", source, target, "--include-deleted")
    assert runs(target, "one")["deleted"].info.lifecycle_stage == "deleted"


def test_an_experiment_is_copied_by_its_name(source: Path, target: Path) -> None:
    copy("experiment one", source, target)
    assert runs(target, "one", "two's").keys() == {"parent"}


def test_a_run_is_copied_by_its_id_under_a_name_of_choice(source: Path, target: Path) -> None:
    copy(f"run {runs(source, 'one')['parent'].info.run_id}", source, target, "--name-prefix", "from-old")
    assert runs(target, "from-old/one").keys() == {"parent"}


def test_what_is_not_there_is_an_error(source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy("run 0123", source, target, code=2)
    assert "no run is selected" in capsys.readouterr().err
    copy("experiment three", source, target, code=2)


def test_a_copy_that_was_refused_goes_on_with_its_archive(
    source: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = target.read_bytes()
    target.write_bytes(b"no database")
    copy("all", source, target, code=7)
    assert "the same command goes on" in capsys.readouterr().err
    [kept] = leftovers(tmp_path)
    assert list(kept.rglob("*.parquet"))
    target.write_bytes(whole)
    copy("all", source, target)
    assert runs(target, "one", "two's").keys() == {"parent", "child"}
    assert leftovers(tmp_path) == []


def test_the_archive_in_between_can_be_kept(source: Path, target: Path, tmp_path: Path) -> None:
    copy("all", source, target, "--keep", str(tmp_path / "kept"))
    assert list((tmp_path / "kept" / "data").rglob("*.parquet"))


def test_a_file_cannot_keep_the_archive(source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy("all", source, target, "--keep", str(source), code=2)
    assert f"--keep: {source} is a file" in capsys.readouterr().err


def test_a_database_is_copied_with_its_ids_and_its_files(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(f"sqlite:///{source}")
    [experiment] = client.search_experiments(filter_string="name = 'one'")
    old = experiment.artifact_location.rpartition("/")[0]
    new = tmp_path / "moved"
    options = ("--artifact-root", f"{old}={new}", "--copy-artifacts", "--json")
    target = tmp_path / "copied.db"
    copy("database", source, target, *options)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert all(table["is_equal"] for table in told["tables"])
    theirs, ours = runs(source, "one", "two's"), runs(target, "one", "two's")
    assert {name: run.info.run_id for name, run in theirs.items()} == {
        name: run.info.run_id for name, run in ours.items()
    }
    assert {name: run.info.start_time for name, run in theirs.items()} == {
        name: run.info.start_time for name, run in ours.items()
    }
    copied = ours["parent"].info.artifact_uri
    assert copied.startswith(str(new))
    assert Path(copied, "notes.txt").read_text() == "text"


def test_a_database_that_has_it_already_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("database", source, tmp_path / "copied.db")
    copy("database", source, tmp_path / "copied.db", code=3)
    assert "already" in capsys.readouterr().err


def test_a_difference_between_databases_is_an_exit_code(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shardmig.adapters.mlflow.database import prepare_database

    prepare_database(f"sqlite:///{tmp_path / 'copied.db'}")
    with closing(sqlite3.connect(tmp_path / "copied.db")) as connection, connection:
        connection.execute(
            "CREATE TRIGGER harm AFTER INSERT ON metrics BEGIN UPDATE metrics SET value = value + 1; END"
        )
    copy("database", source, tmp_path / "copied.db", code=5)
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--artifact-root", "nonsense"), "OLD=NEW"),
        (("--copy-artifacts",), "--artifact-root"),
        (("--copy-artifacts", "--artifact-root", "s3://b=/x"), "not on this machine"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: str
) -> None:
    copy("database", source, tmp_path / "copied.db", *options, code=2)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "copied.db").exists()


def test_a_password_in_a_database_uri_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["copy", "database", "--from", "postgresql://u:secret@h/d", "--to", "sqlite:///x.db"]) == 2
    said = capsys.readouterr().err
    assert "~/.pgpass" in said
    assert "secret" not in said


@pytest.fixture
def registry(source: Path) -> Path:
    """A registered model with three versions, the second deleted, the last of the run `parent`."""
    client = MlflowClient(f"sqlite:///{source}")
    run = runs(source, "one")["parent"].info
    client.create_registered_model("m", description="about")
    for number in (1, 2, 3):
        client.create_model_version("m", f"{run.artifact_uri}/v{number}", run_id=run.run_id, description=f"v{number}")
    client.delete_model_version("m", "2")
    client.create_registered_model("other")
    return source


def versions(database: Path) -> dict[int, str]:
    found = MlflowClient(f"sqlite:///{database}").search_model_versions("name = 'm'")
    return {int(version.version): str(version.description) for version in found}


def test_a_model_is_copied_with_its_versions_and_linked_to_runs_that_are_there(registry: Path, target: Path) -> None:
    copy("experiment one", registry, target)
    copy("model m", registry, target)
    client = MlflowClient(f"sqlite:///{target}")
    assert [model.name for model in client.search_registered_models()] == ["m"]
    assert versions(target) == {1: "v1", 3: "v3"}
    assert client.get_model_version("m", "3").run_id == runs(target, "one")["parent"].info.run_id


def test_one_version_is_copied_under_its_number(registry: Path, target: Path) -> None:
    copy("model-version m 3", registry, target)
    assert versions(target) == {3: "v3"}


def test_classes_of_objects_are_chosen(registry: Path, target: Path) -> None:
    copy("all", registry, target, "--objects", "models")
    client = MlflowClient(f"sqlite:///{target}")
    assert {model.name for model in client.search_registered_models()} == {"m", "other"}
    assert [experiment.name for experiment in client.search_experiments()] in (["Default"], [])
