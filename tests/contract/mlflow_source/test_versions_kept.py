"""Versions of registered models keep their numbers, and no copy mixes two that have the same one."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.test_objects_kept import INLINE, MERGE, copy, refusing
from tests.servers.http import answering
from tests.servers.in_front import InFront
from tests.servers.mlflow import MlflowServer

__all__ = ["copy"]

CREATE = "/model-versions/create"


def make_version(client: MlflowClient, description: str) -> str:
    """A version of `churn` from a run of its own; the run's id."""
    run: str = client.create_run("0").info.run_id
    client.create_model_version("churn", f"runs:/{run}/model", run, description=description)
    return run


def told(uri: str, name: str = "churn") -> dict[int, str]:
    """Numbers and descriptions of versions."""
    found = MlflowClient(uri).search_model_versions(f"name = '{name}'")
    return {int(one.version): str(one.description) for one in found}


@pytest.mark.parametrize("on_existing", ["merge", "replace"])
def test_a_model_that_was_deleted_and_created_again_is_another_one_which_takes_no_place(
    copy: Copy, on_existing: str
) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("churn")
    make_version(source, "old")
    copy.migrate(*INLINE)
    source.delete_registered_model("churn")
    source.create_registered_model("churn", description="again")
    make_version(source, "new")
    for _ in range(2):
        assert copy.failing(*INLINE, "--update", "--on-existing", on_existing) == {"churn"}
        assert told(copy.target) == {1: "old"}
    assert "missing" in copy.verify(*INLINE, code=5)
    target.delete_registered_model("churn")
    copy.migrate(*INLINE, "--update", "--on-existing", on_existing)
    assert object_differences(copy.source, copy.target) == []
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_a_version_of_others_is_not_merged_with_one_of_the_same_number(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("churn")
    make_version(source, "first")
    copy.migrate(*INLINE)
    target.create_model_version("churn", "s3://bucket/of/others", description="of others")
    make_version(source, "second")
    source.set_registered_model_alias("churn", "champion", "2")
    source.update_registered_model("churn", "changed")
    assert copy.migrate(*MERGE, code=3)["version-number-taken"] == {"versions/2", "aliases/champion"}
    assert told(copy.target) == {1: "first", 2: "of others"}
    assert target.get_registered_model("churn").aliases == {}
    copy.verify(*INLINE, code=5)


def test_a_version_whose_number_is_used_up_is_told_by_verify_too(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("churn")
    make_version(source, "first")
    copy.migrate(*INLINE)
    for number in ("2", "3"):
        target.create_model_version("churn", "s3://bucket/of/others")
        if number == "3":
            target.delete_model_version("churn", "2")
    make_version(source, "second")
    assert "versions/2" in copy.migrate(*MERGE, code=3)["version-number-taken"]
    assert set(told(copy.target)) == {1, 3}
    copy.verify(*INLINE, code=5)


def test_a_merge_goes_on_with_a_version_that_a_cut_one_appended_to_a_changed_copy(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("churn", description="of the source")
    make_version(source, "first")
    copy.migrate(*INLINE)
    target.update_registered_model("churn", "of the copy")
    make_version(source, "second")
    source.set_registered_model_alias("churn", "challenger", "2")
    with refusing(copy, "INSERT", "registered_model_aliases", "NEW.alias = 'challenger'"):
        assert copy.failing(*MERGE) == {"churn"}
    reported = copy.migrate(*MERGE, code=3)
    assert reported["merge-conflict"] == {"sys/description"}
    assert "version-number-taken" not in reported
    assert told(copy.target) == {1: "first", 2: "second"}


def test_a_tag_of_a_version_is_told_whatever_its_name(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    source.create_registered_model("churn")
    make_version(source, "first")
    source.set_model_version_tag("churn", "1", "data_modification_time", "monday")
    copy.migrate(*INLINE)
    assert set(copy.verify(*INLINE)) == {"equal"}
    MlflowClient(copy.target).set_model_version_tag("churn", "1", "data_modification_time", "friday")
    assert len([one for one in copy.verify(*INLINE, code=5) if one != "equal"]) == 1


def test_an_alias_that_people_moved_stays_whatever_its_name(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("churn")
    for description in ("first", "second"):
        make_version(source, description)
    source.set_registered_model_alias("churn", "status", "1")
    copy.migrate(*INLINE)
    target.set_registered_model_alias("churn", "status", "2")
    source.update_registered_model("churn", "changed")
    assert "aliases/status" in copy.migrate(*MERGE, code=3)["merge-conflict"]
    assert int(target.get_registered_model("churn").aliases["status"]) == 2


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
def test_a_version_that_a_server_made_twice_does_not_move_those_behind_it(
    copy: Copy, mlflow_http: MlflowServer
) -> None:
    source = MlflowClient(copy.source)
    source.create_registered_model("made twice")
    for number in range(1, 5):
        source.create_model_version("made twice", f"s3://bucket/{number}", description=f"{number}")
    source.delete_model_version("made twice", "2")
    with answering(InFront(mlflow_http)) as server:
        repeated: list[bytes] = []

        def repeat(path: str, body: bytes) -> None:
            """As a proxy does, whose connection was cut behind the request: that of version 3."""
            if path.endswith(CREATE) and b"bucket/3" in body and not repeated:
                repeated.append(body)
                post(mlflow_http, path, body)

        server.refuses = repeat
        into = Copy(copy.folder, copy.source, server.url)
        into.migrate(*INLINE, "--source-option", "objects=models")
    assert repeated
    assert told(mlflow_http.uri, "made twice") == {1: "1", 3: "3", 4: "4"}


def post(server: MlflowServer, path: str, body: bytes) -> None:
    """Ask a server for something."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.uri).port)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


def test_a_version_that_was_not_chosen_keeps_its_stage(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("churn")
    for text in ("first", "second"):
        make_version(source, text)
    source.transition_model_version_stage("churn", "1", "Production")
    copy.migrate(*INLINE)
    chosen = ("--source-option", "objects=models", "--source-option", "versions=2")
    other = Copy(copy.folder / "other", copy.source, copy.target)
    other.folder.mkdir()
    other.migrate(*INLINE, "--on-existing", "merge", *chosen)
    assert target.get_model_version("churn", "1").current_stage == "Production"


def test_files_of_a_version_that_lie_in_a_run_which_is_not_here_are_none_of_its_own(copy: Copy, tmp_path: Path) -> None:
    """On a disk that both MLflows see they could be read."""
    source = MlflowClient(copy.source)
    source.create_registered_model("churn")
    run = source.create_run("0").info
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    source.log_artifact(run.run_id, str(tmp_path / "MLmodel"), "model")
    source.create_model_version("churn", f"{run.artifact_uri}/model", run.run_id)
    copy.migrate(*INLINE, "--source-option", "objects=models")
    assert set(copy.verify(*INLINE)) == {"equal"}
    copy.migrate(*INLINE)
    assert object_differences(copy.source, copy.target) == []
    assert set(copy.verify(*INLINE)) == {"equal"}
