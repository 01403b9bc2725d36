"""A copy from MLflow to MLflow loses nothing of what is no run, but what is reported."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, ViewType

from shardmig.archive.namespace import open_archive
from shardmig.cli.app import execute
from shardmig.records import SCOPES
from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.marks import doubled_or_half
from tests.contract.mlflow_source.objects_comparer import object_differences

DANGLING = "model dangling: version 3: "
"""The one object whose run is nowhere, not even in the source."""

CUTS = {
    "model_versions": "NEW.version = 7",
    "registered_model_aliases": "NEW.alias = 'production'",
    "model_version_tags": "NEW.key = 'checked'",
    "logged_model_metrics": "NEW.metric_value = 1e200",
    "inputs": "NEW.source_type = 'RUN_OUTPUT'",
    "spans": "NEW.name = 'in a run'",
    "assessments": "NEW.overrides IS NOT NULL",
    "entity_associations": "NEW.destination_type = 'run'",
    "evaluation_dataset_records": "1",
    "experiment_tags": "NEW.key = 'why'",
}
"""Rows whose writing is cut: each in another object, and in another step of its making."""

EVERYTHING = 37
"""Runs and objects of the world."""


@pytest.fixture
def objects(filled_objects: Path, sqlite_file: Path, tmp_path: Path) -> Copy:
    """A database of its own with every object, and an empty one."""
    source = shutil.copy(filled_objects, tmp_path / "source.db")
    return Copy(tmp_path, f"sqlite:///{source}", f"sqlite:///{sqlite_file}")


@pytest.fixture(scope="session")
def once_copied(
    filled_objects: Path, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, set[str]]]:
    """A folder with the databases of a copy and its archive, and what was reported. Not to be written."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copy(filled_objects, folder / "source.db")
    shutil.copy(sqlite_template, folder / "target.db")
    return folder, _between(folder).migrate("--engine", "inline")


@pytest.fixture
def copied(once_copied: tuple[Path, dict[str, set[str]]], tmp_path: Path) -> Copy:
    """Such a copy of its own."""
    shutil.copytree(once_copied[0], tmp_path / "copy", ignore=shutil.ignore_patterns("mlruns"))
    return _between(tmp_path / "copy")


def test_databases_have_the_same_objects_after_a_copy(once_copied: tuple[Path, dict[str, set[str]]]) -> None:
    folder, reported = once_copied
    assert reported.keys() == {"reference-not-here", "own-ids", "model-linked-later", "experiment-deleted-later"}
    assert reported["reference-not-here"] == {"versions/3/run/id"}
    _assert_equal(_between(folder))
    assert _between(folder).verify("--engine", "inline") == ["equal"] * EVERYTHING


def test_each_scope_of_the_archive_is_counted_listed_and_read(
    once_copied: tuple[Path, dict[str, set[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    place = once_copied[0] / "archive" / "data"
    assert execute(["ls", "-d", str(place), "--json"]) == 0
    counted = {line["project"]: line for line in json.loads(capsys.readouterr().out)}
    assert counted["registry"]["runs"] == 0
    assert counted["registry"]["others"] == {"registered_models": 5, "prompts": 2, "datasets": 2}
    assert counted["objects: ünï"]["others"] == {"logged_models": 6, "traces": 8, "experiments": 1}
    assert execute(["show", "greeting", "versions/2/text", "-d", str(place)]) == 0
    assert "Say 2 to" in capsys.readouterr().out
    archive = open_archive(place)
    held = {
        scope: run.fields() for project in archive for scope in SCOPES for run in archive[project].scope(scope).runs()
    }
    assert held.keys() == set(SCOPES) - {"models", "model_versions"}
    assert all(held.values())
    [name] = [one for one in archive["registry"].scope("registered_models") if one.startswith("it's")]
    alias = archive["registry"].scope("registered_models")[name].field("aliases/champion")
    assert alias.fetch() == 10


def test_a_copy_of_a_copy_has_the_objects_of_the_original(copied: Copy, sqlite_template: Path) -> None:
    again = shutil.copy(sqlite_template, copied.folder / "again.db")
    onward = Copy(copied.folder / "onward", copied.target, f"sqlite:///{again}")
    onward.folder.mkdir()
    onward.migrate("--engine", "inline")
    _assert_equal(Copy(onward.folder, copied.source, onward.target))


def test_what_refers_to_objects_that_were_not_selected_is_told_and_linked_once_they_come(objects: Copy) -> None:
    reported = objects.migrate("--engine", "inline", "--source-option", "objects=models,prompts,traces,datasets")
    expected = {"versions/1/run/id", "versions/1/model/id", "run/id", "model/id", "experiments"}
    assert expected <= reported["reference-not-here"]
    told = object_differences(objects.source, objects.target)
    assert any(line.startswith("model of logged models: version 1") for line in told)
    objects.migrate("--engine", "inline")
    _assert_equal(objects)


def test_a_write_that_was_cut_is_repeated_and_nothing_is_there_twice(objects: Copy) -> None:
    with _refusing(objects, CUTS):
        assert len(objects.failing("--engine", "inline")) >= len(CUTS)
    objects.migrate("--engine", "inline")
    _assert_equal(objects)
    assert doubled_or_half(objects.target) == []


def test_what_changed_since_is_brought_again(copied: Copy) -> None:
    client = MlflowClient(copied.source)
    [run] = client.search_runs(_experiments(client), "attributes.run_name = 'run 1'")
    client.create_model_version("dangling", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_registered_model_alias("it's a ünï model", "champion", "12")
    client.register_prompt("greeting", "Something new", "the 13th")
    client.set_trace_tag(f"tr-{sum(map(ord, 'in a run')):032x}", "new", "tag")
    [whole] = [one for one in client._tracking_client.store.search_datasets() if one.name == "whole ü"]
    client._tracking_client.store.upsert_dataset_records(whole.dataset_id, [{"inputs": {"q": "new"}}])
    copied.migrate("--engine", "inline", "--update", "--on-existing", "replace")
    _assert_equal(copied)
    assert doubled_or_half(copied.target) == []


def test_what_is_new_is_merged_and_ids_stay(copied: Copy) -> None:
    before = {one.model_id for one in _logged_models(MlflowClient(copied.target))}
    client = MlflowClient(copied.source)
    [run] = client.search_runs(_experiments(client), "attributes.run_name = 'run 1'")
    client.create_model_version("dangling", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.create_model_version("of logged models", "s3://bucket/another")
    client.delete_model_version("of logged models", "4")
    client.create_model_version("of logged models", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_registered_model_alias("it's a ünï model", "champion", "12")
    client.register_prompt("greeting", "Something new", "the 13th")
    client.set_trace_tag(f"tr-{sum(map(ord, 'in a run')):032x}", "new", "tag")
    [pending] = [one for one in _logged_models(client) if one.name == "pending"]
    client.set_logged_model_tags(pending.model_id, {"new": "tag"})
    client.log_batch(run.info.run_id, [Metric("late", 0.5, 1_700_000_000_000, 3, pending.model_id)])
    client.finalize_logged_model(pending.model_id, "READY")
    [whole] = [one for one in client._tracking_client.store.search_datasets() if one.name == "whole ü"]
    new = {"inputs": {"q": "new"}}
    known = {"inputs": {"q": "hé 1", "n": 1}, "outputs": {"a": [7]}}
    client._tracking_client.store.upsert_dataset_records(whole.dataset_id, [new, known])
    reported = copied.migrate("--engine", "inline", "--update", "--on-existing", "merge")
    assert "merge-conflict" not in reported
    _assert_equal(copied)
    assert {one.model_id for one in _logged_models(MlflowClient(copied.target))} == before
    assert doubled_or_half(copied.target) == []
    assert set(copied.verify("--engine", "inline")) == {"equal"}
    assert "merged" not in copied.migrate("--engine", "inline", "--on-existing", "merge")


def test_what_somebody_changed_in_the_copy_is_not_overwritten_by_a_merge(copied: Copy) -> None:
    source, target = MlflowClient(copied.source), MlflowClient(copied.target)
    name = "it's a ünï model"
    target.set_registered_model_alias(name, "champion", "2")
    target.create_model_version(name, "s3://bucket/of the copy")
    target.set_registered_model_tag(name, "added", "in the copy")
    source.set_registered_model_alias(name, "champion", "12")
    source.set_registered_model_tag(name, "more", "of the source")
    [number, again] = [_dataset(client) for client in (source, target)]
    record = {"inputs": {"q": "hé 1", "n": 1}, "outputs": {"a": "of the copy"}}
    target._tracking_client.store.upsert_dataset_records(again, [record])
    changed = record | {"outputs": {"a": "of the source"}}
    source._tracking_client.store.upsert_dataset_records(number, [changed, {"inputs": {"q": "new"}}])
    reported = copied.migrate("--engine", "inline", "--update", "--on-existing", "merge", code=3)
    assert reported["merge-conflict"] == {"aliases/champion", "records"}
    held = target.get_registered_model(name)
    assert str(held.aliases["champion"]) == "2"
    assert (held.tags["added"], held.tags["more"]) == ("in the copy", "of the source")
    found, _ = target._tracking_client.store._load_dataset_records(again, max_results=100)
    assert {json.dumps(one.outputs) for one in found if one.inputs == record["inputs"]} == {'{"a": "of the copy"}'}
    assert [one for one in found if one.inputs == {"q": "new"}]
    assert copied.verify("--engine", "inline", code=5).count("differs") == 2


def test_what_somebody_changed_in_the_copy_is_found_by_verify(copied: Copy) -> None:
    client = MlflowClient(copied.target)
    client.set_registered_model_alias("it's a ünï model", "champion", "2")
    client.update_registered_model("no versions", "described")
    client.delete_prompt_version("greeting", "5")
    client.set_trace_tag("old-style-id", "mlflow.traceName", "another")
    [model] = [one for one in _logged_models(client) if one.name == "whole"]
    client.set_logged_model_tags(model.model_id, {"team": "other"})
    assert copied.verify("--engine", "inline", code=5).count("differs") == 5


def test_a_model_of_the_same_name_that_was_there_before_stays_as_it_is(objects: Copy) -> None:
    client = MlflowClient(objects.target)
    client.create_registered_model("no versions", description="somebody's own")
    only_models = ("--source-option", "objects=models", "--on-existing", "replace")
    objects.migrate("--engine", "inline", *only_models, code=3)
    assert client.get_registered_model("no versions").description == "somebody's own"


def _between(folder: Path) -> Copy:
    return Copy(folder, f"sqlite:///{folder}/source.db", f"sqlite:///{folder}/target.db")


def _assert_equal(copy: Copy) -> None:
    assert [line for line in object_differences(copy.source, copy.target) if not line.startswith(DANGLING)] == []


def _dataset(client: MlflowClient) -> str:
    [whole] = [one for one in client._tracking_client.store.search_datasets() if one.name == "whole ü"]
    return str(whole.dataset_id)


def _experiments(client: MlflowClient) -> list[str]:
    return [one.experiment_id for one in client.search_experiments(ViewType.ALL, max_results=1000)]


def _logged_models(client: MlflowClient) -> list[Any]:
    found: list[Any] = client._tracking_client.store.search_logged_models(_experiments(client), max_results=100)
    return found


@contextmanager
def _refusing(copy: Copy, rows: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile the target's database refuses such rows."""
    with closing(sqlite3.connect(copy.target.removeprefix("sqlite:///"))) as connection:
        for table, condition in rows.items():
            body = f"BEFORE INSERT ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
            connection.execute(f"CREATE TRIGGER refusing_{table} {body}")
        yield
        for table in rows:
            connection.execute(f"DROP TRIGGER refusing_{table}")
