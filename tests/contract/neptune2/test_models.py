"""The model registry: `export-models` as scripts of neptune-exporter type it, and loading what it wrote."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from shardmig.archive.layout import project_folder
from shardmig.archive.namespace import open_archive
from shardmig.cli.app import execute
from tests.contract.neptune2.vendor import PROJECT
from tests.servers.neptune2.entities import Attribute, Series
from tests.servers.neptune2.server import NeptuneServer

QUIET = ("--engine", "inline", "--no-progress")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def export_models(*arguments: str, code: int = 0) -> dict[str, list[str]]:
    """What is in the default folders afterwards, by scope."""
    assert execute(["export-models", "-p", PROJECT, *QUIET, *arguments]) == code
    project = open_archive("exports/model_data", "exports/model_files")[PROJECT]
    return {scope: sorted(project.scope(scope)) for scope in ("runs", "models", "model_versions")}


def test_models_and_all_their_versions_come_and_no_run(neptune2: NeptuneServer) -> None:
    assert export_models() == {"runs": [], "models": ["VIS-MOD"], "model_versions": ["VIS-MOD-1", "VIS-MOD-2"]}
    folder = project_folder("exports/model_data", PROJECT)
    assert sorted(path.name for path in folder.iterdir()) == ["model_versions", "models"]


def registry(server: NeptuneServer) -> None:
    """Two models, one of them in the trash, with two versions each."""
    project = server.store.add_project(PROJECT, "VIS")
    for key in ("A", "A-B"):
        model = server.store.add_entity(project, "model", custom_id=key)
        model.put("framework", "string", key)
        for number in range(2):
            version = server.store.add_entity(project, "modelVersion", parent=model.id)
            version.put("accuracy", "float", number / 2)
            version.attributes["loss"] = Attribute("floatSeries", Series([0.0, 1.0], [1, 2], [1.0, 0.5]))
            version.put("sys/trashed", "bool", key == "A-B")
        model.put("sys/trashed", "bool", key == "A-B")


def test_a_query_chooses_models_and_with_them_their_versions(empty_neptune2: NeptuneServer) -> None:
    registry(empty_neptune2)
    chosen = export_models("-q", '`framework`:string = "A"', "--include-archived-models")
    assert chosen == {"runs": [], "models": ["VIS-A"], "model_versions": ["VIS-A-1", "VIS-A-2"]}


@pytest.mark.parametrize(("flags", "models"), [((), 1), (("--include-archived-models",), 2)])
def test_models_in_the_trash_come_when_they_are_asked_for(
    empty_neptune2: NeptuneServer, flags: tuple[str, ...], models: int
) -> None:
    registry(empty_neptune2)
    found = export_models(*flags)
    assert (len(found["models"]), len(found["model_versions"])) == (models, 2 * models)


def test_fields_are_selected_as_those_of_runs_are(empty_neptune2: NeptuneServer) -> None:
    registry(empty_neptune2)
    export_models("-c", "metrics")
    version = open_archive("exports/model_data")[PROJECT].scope("model_versions")["VIS-A-1"]
    assert [field.path for field in version.fields()] == ["loss"]


PLACE = ("-d", "exports/model_data", "-f", "exports/model_files")


def into(database: Path) -> tuple[str, ...]:
    return ("--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{database}", *PLACE)


def test_they_are_runs_that_say_what_they_are_and_registered_models(
    empty_neptune2: NeptuneServer, sqlite_file: Path
) -> None:
    registry(empty_neptune2)
    [staged] = [entity for entity in empty_neptune2.store.entities.values() if entity.sys_id == "VIS-A-2"]
    staged.put("sys/stage", "string", "production")
    staged.put("sys/description", "string", "the good one")
    export_models()
    assert execute(["load", *into(sqlite_file), *QUIET]) == 0
    with closing(sqlite3.connect(sqlite_file)) as rows:
        scopes = rows.execute("SELECT value, count(*) FROM tags WHERE key = 'shardmig.scope' GROUP BY value")
        assert dict(scopes.fetchall()) == {"models": 1, "model_versions": 2}
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    [model] = client.search_registered_models()
    assert model.name == "VIS-A"
    found = sorted(client.search_model_versions("name = 'VIS-A'"), key=lambda version: int(version.version))
    assert [(int(one.version), one.current_stage, one.description or "") for one in found] == [
        (1, "None", ""),
        (2, "Production", "the good one"),
    ]
    assert client.get_run(str(found[1].run_id)).data.params["accuracy"] == "0.5"
    assert execute(["verify", *into(sqlite_file), *QUIET]) == 0
    client.delete_registered_model("VIS-A")
    assert execute(["verify", *into(sqlite_file), *QUIET]) == 5


def test_a_version_that_is_not_there_leaves_its_number_free(empty_neptune2: NeptuneServer, sqlite_file: Path) -> None:
    registry(empty_neptune2)
    export_models()
    only = ("-r", "VIS-A-2", "-r", "VIS-A")
    assert execute(["load", *into(sqlite_file), *only, *QUIET]) == 0
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    assert [int(one.version) for one in client.search_model_versions("name = 'VIS-A'")] == [2]


def numbers(client: MlflowClient) -> list[int]:
    """Of the versions that MLflow has of VIS-A."""
    return sorted(int(one.version) for one in client.search_model_versions("name = 'VIS-A'"))


def test_versions_that_come_after_their_model_are_registered(empty_neptune2: NeptuneServer, sqlite_file: Path) -> None:
    registry(empty_neptune2)
    [model] = [entity for entity in empty_neptune2.store.entities.values() if entity.sys_id == "VIS-A"]
    third = empty_neptune2.store.add_entity(model.project, "modelVersion", parent=model.id)
    third.put("sys/stage", "string", "staging")
    export_models()
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    assert execute(["load", *into(sqlite_file), "-r", "VIS-A-2", "-r", "VIS-A", *QUIET]) == 0
    client.set_registered_model_alias("VIS-A", "champion", "2")
    client.set_model_version_tag("VIS-A", "2", "checked", "yes")
    assert execute(["load", *into(sqlite_file), "-r", "VIS-A-3", *QUIET]) == 0
    assert numbers(client) == [2, 3]
    assert execute(["load", *into(sqlite_file), "-r", "VIS-A-1", *QUIET]) == 0
    assert numbers(client) == [1, 2, 3]
    assert client.get_model_version("VIS-A", "3").current_stage == "Staging"
    champion = client.get_model_version_by_alias("VIS-A", "champion")
    assert (int(champion.version), champion.tags["checked"]) == (2, "yes")
    assert execute(["verify", *into(sqlite_file), *QUIET]) == 0


def test_a_version_whose_number_is_used_up_gets_it_all_the_same(
    empty_neptune2: NeptuneServer, sqlite_file: Path
) -> None:
    registry(empty_neptune2)
    export_models()
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    assert execute(["load", *into(sqlite_file), "-r", "VIS-A-1", "-r", "VIS-A", *QUIET]) == 0
    client.create_model_version("VIS-A", "somewhere")
    client.delete_model_version("VIS-A", "2")
    assert execute(["load", *into(sqlite_file), "-r", "VIS-A-2", *QUIET]) == 0
    assert numbers(client) == [1, 2]
    assert client.get_model_version("VIS-A", "2").tags["shardmig.run_id"] == "VIS-A-2"


def test_a_version_that_is_not_registered_is_found_by_verify(empty_neptune2: NeptuneServer, sqlite_file: Path) -> None:
    registry(empty_neptune2)
    export_models()
    assert execute(["load", *into(sqlite_file), *QUIET]) == 0
    MlflowClient(f"sqlite:///{sqlite_file}").delete_model_version("VIS-A", "1")
    assert execute(["verify", *into(sqlite_file), *QUIET]) == 5


def test_versions_that_people_registered_are_never_removed(empty_neptune2: NeptuneServer, sqlite_file: Path) -> None:
    registry(empty_neptune2)
    export_models()
    assert execute(["load", *into(sqlite_file), *QUIET]) == 0
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    client.create_model_version("VIS-A", "somewhere")
    client.delete_run(client.get_registered_model("VIS-A").tags["shardmig.run"])
    assert execute(["load", *into(sqlite_file), *QUIET]) == 3
    assert numbers(client) == [1, 2, 3]


def test_a_model_of_another_origin_is_not_touched(empty_neptune2: NeptuneServer, sqlite_file: Path) -> None:
    registry(empty_neptune2)
    export_models()
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    client.create_registered_model("VIS-A", description="mine")
    assert execute(["load", *into(sqlite_file), *QUIET]) == 3
    assert client.get_registered_model("VIS-A").description == "mine"
    client.delete_registered_model("VIS-A")
    assert execute(["load", *into(sqlite_file), *QUIET]) == 0
    assert client.get_registered_model("VIS-A").tags["shardmig.project"] == PROJECT


def test_a_project_without_models_is_told(empty_neptune2: NeptuneServer) -> None:
    empty_neptune2.store.add_entity(empty_neptune2.store.add_project(PROJECT, "VIS"), "run")
    assert execute(["export-models", "-p", PROJECT, *QUIET]) == 2


def test_runs_models_and_versions_share_an_archive_when_all_are_exported(neptune2: NeptuneServer) -> None:
    assert execute(["export", "--source", "neptune2", "-p", PROJECT, *QUIET]) == 0
    project = open_archive("exports/data", "exports/files")[PROJECT]
    assert [len(list(project.scope(scope))) for scope in ("runs", "models", "model_versions")] == [1, 1, 2]
