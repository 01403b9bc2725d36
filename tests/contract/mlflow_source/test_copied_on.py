"""A copy that is copied on: the next MLflow gets all that is there, whichever copy brought it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow import MlflowClient
from mlflow.entities import ExperimentTag

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.test_objects_kept import INLINE, MERGE, copy, refusing
from tests.contract.mlflow_source.test_versions_kept import make_version, told

__all__ = ["copy"]

MODELS = ("--source-option", "objects=models")


@pytest.fixture
def on(copy: Copy, sqlite_template: Path) -> Copy:
    """From the copy to a third database, which is empty."""
    folder = copy.folder / "on"
    folder.mkdir()
    (folder / "third.db").write_bytes(sqlite_template.read_bytes())
    return Copy(folder, copy.target, f"sqlite:///{folder}/third.db")


def choose(copy: Copy, number: int, *options: str) -> dict[str, set[str]]:
    """Copy this version alone, through an archive of its own."""
    return chosen(copy, number).migrate(*INLINE, "--on-existing", "merge", *_version(number), *options)


def chosen(copy: Copy, number: int) -> Copy:
    """That copy."""
    folder = copy.folder / f"version {number}"
    folder.mkdir(exist_ok=True)
    return Copy(folder, copy.source, copy.target)


def two_versions(copy: Copy) -> None:
    """A model of two versions in the source."""
    client = MlflowClient(copy.source)
    client.create_registered_model("churn", {"team": "a", "old": "b"})
    for text in ("first", "second"):
        make_version(client, text)
    client.set_model_version_tag("churn", "1", "seen", "yes")


def test_versions_that_were_copied_one_after_the_other_are_both_copied_on(copy: Copy, on: Copy) -> None:
    two_versions(copy)
    copy.migrate(*INLINE, "--source-option", "objects=runs")
    choose(copy, 1)
    choose(copy, 2)
    assert told(copy.target) == {1: "first", 2: "second"}
    assert set(chosen(copy, 2).verify(*INLINE)) == {"equal"}
    on.migrate(*INLINE)
    assert object_differences(copy.source, on.target) == []
    assert set(on.verify(*INLINE)) == {"equal"}


def test_a_version_without_its_run_keeps_the_reference_whatever_is_copied_later(copy: Copy, on: Copy) -> None:
    two_versions(copy)
    choose(copy, 1)
    choose(copy, 2)
    copy.migrate(*INLINE, "--source-option", "objects=runs")
    on.migrate(*INLINE)
    assert told(on.target) == {1: "first", 2: "second"}
    for version in MlflowClient(on.target).search_model_versions("name = 'churn'"):
        assert MlflowClient(on.target).get_run(str(version.run_id)).info.run_id == version.run_id


def test_a_version_of_an_earlier_copy_is_not_lost_where_the_run_of_another_one_comes(copy: Copy) -> None:
    two_versions(copy)
    choose(copy, 1)
    choose(copy, 2)
    copy.migrate(*INLINE, "--source-option", "objects=runs")
    second = chosen(copy, 2)
    second.migrate(*INLINE, *_version(2), code=3)
    assert told(copy.target) == {1: "first", 2: "second"}
    assert second.migrate(*INLINE, *_version(2), "--on-existing", "merge")["reference-not-made"] == {
        "versions/2/run/id",
        "versions/1/run/id",
    }
    assert told(copy.target) == {1: "first", 2: "second"}


def test_a_version_that_is_chosen_again_is_the_same_one(copy: Copy) -> None:
    two_versions(copy)
    for number in (1, 2):
        choose(copy, number)
    MlflowClient(copy.source).update_model_version("churn", "1", "changed")
    reported = choose(copy, 1, "--update")
    assert "version-number-taken" not in reported
    assert told(copy.target) == {1: "changed", 2: "second"}
    assert set(chosen(copy, 1).verify(*INLINE)) == {"equal"}


def test_a_tag_that_was_removed_in_the_source_stays_in_the_copy_and_is_copied_on(copy: Copy, on: Copy) -> None:
    two_versions(copy)
    copy.migrate(*INLINE)
    MlflowClient(copy.source).delete_registered_model_tag("churn", "old")
    MlflowClient(copy.source).delete_model_version_tag("churn", "1", "seen")
    copy.migrate(*MERGE)
    assert set(copy.verify(*INLINE)) == {"equal"}
    on.migrate(*INLINE)
    client = MlflowClient(on.target)
    assert client.get_registered_model("churn").tags["old"] == "b"
    assert client.get_model_version("churn", "1").tags["seen"] == "yes"
    copy.migrate(*MERGE)
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_what_somebody_else_made_in_the_copy_is_copied_on_whole(copy: Copy, on: Copy) -> None:
    two_versions(copy)
    copy.migrate(*INLINE)
    MlflowClient(copy.target).create_model_version("churn", "s3://bucket/of/others", description="of others")
    MlflowClient(copy.source).set_registered_model_tag("churn", "new", "tag")
    copy.migrate(*MERGE)
    on.migrate(*INLINE)
    assert MlflowClient(on.target).get_model_version("churn", "3").source == "s3://bucket/of/others"
    assert object_differences(copy.target, on.target) == []


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_version_that_is_gone_or_not_chosen_leaves_no_ghost(copy: Copy, on: Copy, is_deleted: bool) -> None:
    two_versions(copy)
    copy.migrate(*INLINE, *MODELS)  # without the runs: their ids are in tags
    if is_deleted:
        MlflowClient(copy.target).delete_model_version("churn", "1")
    on.migrate(*INLINE, *MODELS, *(() if is_deleted else ("--source-option", "versions=2")))
    assert told(on.target) == {2: "second"}
    assert set(on.verify(*INLINE)) == {"equal"}


def test_tags_that_an_experiment_had_before_a_copy_are_copied_on(copy: Copy, on: Copy) -> None:
    target = MlflowClient(copy.target)
    experiment = target.create_experiment("shared", tags={"own": "of the copy"})
    source = MlflowClient(copy.source)
    source._tracking_client.store.set_experiment_tag(source.create_experiment("shared"), ExperimentTag("team", "a"))
    copy.migrate(*INLINE)
    assert set(copy.verify(*INLINE)) == {"equal"}
    on.migrate(*INLINE)
    there = MlflowClient(on.target).get_experiment_by_name("shared")
    assert there is not None
    assert {key: there.tags[key] for key in ("own", "team")} == {"own": "of the copy", "team": "a"}
    assert target.get_experiment(experiment).tags["own"] == "of the copy"


def test_a_model_of_many_versions_without_their_runs_has_no_tag_that_a_database_refuses(copy: Copy) -> None:
    client = MlflowClient(copy.source)
    client.create_registered_model("churn")
    for number in range(95):
        make_version(client, f"{number}")
    with refusing(copy, "INSERT", "registered_model_tags", "length(NEW.value) > 3000"):  # PostgreSQL refuses 5000
        copy.migrate(*INLINE, *MODELS)
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_a_merge_that_is_cut_among_its_tags_is_ended_by_the_next_and_is_not_copied_on(copy: Copy, on: Copy) -> None:
    client = MlflowClient(copy.source)
    client.create_registered_model("churn", {"team": "a"})
    for number in range(20):
        make_version(client, f"{number}")
    copy.migrate(*INLINE, *MODELS)
    for number in range(20):  # all the texts differ, and are longer
        client.set_model_version_tag("churn", f"{number + 1}", "new", "tag")
    make_version(client, "20")
    with refusing_second_pieces(copy):
        assert copy.failing(*MERGE, *MODELS) == {"churn"}
    assert on.failing(*INLINE, *MODELS) == set()  # it was not read
    assert "merge-conflict" not in copy.migrate(*MERGE, *MODELS)
    assert set(copy.verify(*INLINE)) == {"equal"}
    copy.migrate(*INLINE, "--source-option", "objects=runs")
    copy.migrate(*MERGE, *MODELS)
    assert all(one.run_id for one in MlflowClient(copy.target).search_model_versions("name = 'churn'"))
    on.migrate(*INLINE, *MODELS)
    assert told(on.target) == {number + 1: f"{number}" for number in range(21)}


def test_files_that_were_added_to_a_copied_run_are_copied_on(copy: Copy, on: Copy) -> None:
    client = MlflowClient(copy.source)
    run = client.create_run("0").info.run_id
    log_text(client, run, "old.txt", "old")
    copy.migrate(*INLINE)
    target = MlflowClient(copy.target)
    [here] = runs(copy.target)
    log_text(target, here, "model/new.txt", "new")
    assert set(copy.verify(*INLINE)) == {"equal"}
    on.migrate(*INLINE)
    [there] = runs(on.target)
    third = MlflowClient(on.target)
    assert Path(third.download_artifacts(there, "old.txt")).read_text() == "old"
    assert Path(third.download_artifacts(there, "model/new.txt")).read_text() == "new"
    assert set(on.verify(*INLINE)) == {"equal"}


@contextmanager
def refusing_second_pieces(copy: Copy) -> Iterator[None]:
    """Meanwhile the target's database takes no second tag of what MLflow made of fields."""
    body = "registered_model_tags WHEN NEW.key GLOB 'shardmig.changes*.1' BEGIN SELECT RAISE(ABORT, 'refused'); END"
    with closing(sqlite3.connect(copy.target.removeprefix("sqlite:///"))) as connection:
        for change in ("INSERT", "UPDATE"):
            connection.execute(f"CREATE TRIGGER refusing_{change} BEFORE {change} ON {body}")
        yield
        for change in ("INSERT", "UPDATE"):
            connection.execute(f"DROP TRIGGER refusing_{change}")


def log_text(client: MlflowClient, run: str, path: str, text: str) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, path).parent.mkdir(exist_ok=True)
        Path(folder, path).write_text(text)
        client.log_artifacts(run, folder)


def runs(uri: str) -> list[str]:
    return [run.info.run_id for run in MlflowClient(uri).search_runs(["0"])]


def _version(number: int) -> tuple[str, ...]:
    return (*MODELS, "--source-option", f"versions={number}")
