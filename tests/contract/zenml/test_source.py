"""What is read of a ZenML store: runs that were brought, exactly; model versions of others, by the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from zenml import log_metadata, save_artifact
from zenml.client import Client
from zenml.models import ModelVersionArtifactRequest

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance.runs import field_digests, plain_run, rich_run
from shardmig.adapters.zenml import open_source
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput, UsageError
from shardmig.records import ArchivePaths, Chunk, End, Field, Fields, FileRef, Files, ProjectId, RunId, Selection
from tests.contract.zenml.world import fill_by_hand, run_of, write
from tests.servers.zenml import use_zenml

pytestmark = pytest.mark.xdist_group("zenml")


def test_what_was_brought_comes_back_as_it_was(filled_zenml: Path, tmp_path: Path) -> None:
    use_zenml(filled_zenml)
    paths = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    rich = rich_run(ArchiveFiles(paths, ProjectId("ws/rich")))
    fork = plain_run("ws/forks", "RUN-3", parent="RUN-1")
    source = open_source({})
    for chunks in (rich, fork):
        expected = run_of(chunks)
        (run,) = source.list_runs(expected.project, Selection())
        assert (run.id, run.scope, run.created_ms, run.parent) == (
            expected.id,
            expected.scope,
            expected.created_ms,
            expected.parent,
        )
        assert field_digests(_read(source, run.project, run.id)) == field_digests(chunks)
    source.close()


def test_a_model_version_of_others_is_a_run_of_its_model(filled_zenml: Path) -> None:
    use_zenml(filled_zenml)
    source = open_source({})
    assert list(source.list_projects(Selection())) == ["models of others", "ws/forks", "ws/plain", "ws/rich"]
    assert {run.id for run in source.list_runs(ProjectId("ws/plain"), Selection())} == {"RUN-1", "RUN-2", "baseline"}
    chunks = _read(source, ProjectId("models of others"), RunId("first"))
    source.close()
    fields = {field.path: field for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}
    for field in (
        Field("metadata/accuracy", "float", 0.875),
        Field("metadata/epochs", "int", 3),
        Field("metadata/ok", "bool", True),
        Field("metadata/note", "string", "żółw"),
        Field("metadata/nested/deep/er", "string", "x"),
        Field("metadata/nested/names", "string_set", ["a", "b"]),
        Field("metadata/nested/list", "string", "[1, 2]"),
        Field("sys/description", "string", "by hand"),
        Field("sys/tags", "string_set", ["a b", "mine"]),
        Field("sys/zenml/version_number", "int", 1),
    ):
        assert fields[field.path] == field
    files = {ref.path: ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files}
    assert _size(files, "artifacts/models of others weights") == 256
    assert _size(files, "artifacts/models of others config") > 0
    (end,) = (chunk for chunk in chunks if isinstance(chunk, End))
    assert [(one.kind, one.code, one.field) for one in end.findings] == [
        ("approximation", "value-as-json", "metadata/nested/list"),
        ("loss", "artifact-unreadable", "artifacts/models of others gone"),
    ]


def test_a_model_version_of_others_has_another_fingerprint_when_something_was_added(zenml: Path) -> None:
    """So `export --update` brings it again. ZenML itself notes no time for either."""
    fill_by_hand("theirs", "first")
    client = Client()
    version = client.get_model_version("theirs", "first")
    seen = [_fingerprint("theirs"), _fingerprint("theirs")]
    log_metadata({"later": 1}, model_version_id=version.id)  # type: ignore[call-overload]
    seen.append(_fingerprint("theirs"))
    _link(version, save_artifact("more", "theirs more"))
    seen.append(_fingerprint("theirs"))
    assert seen[0] == seen[1] != ""
    assert len(set(seen)) == 3


def test_what_people_added_to_a_run_that_was_brought_comes_with_it_and_with_an_update(zenml: Path) -> None:
    """Artifacts, tags and a stage: the run's manifest knows none of them."""
    chunks = plain_run()
    write(chunks)
    client = Client()
    version = client.get_model_version("ws/plain", "RUN-1")
    seen = [_fingerprint("ws/plain"), _fingerprint("ws/plain")]
    client.update_model_version("ws/plain", version.id, add_tags=["chosen"], stage="production")
    seen.append(_fingerprint("ws/plain"))
    _link(version, save_artifact("more", "evaluation"))
    seen.append(_fingerprint("ws/plain"))
    assert seen[0] == seen[1] != ""
    assert len(set(seen)) == 3
    source = open_source({})
    read = _read(source, ProjectId("ws/plain"), RunId("RUN-1"))
    source.close()
    fields = {field.path: field for chunk in read if isinstance(chunk, Fields) for field in chunk.fields}
    assert fields["sys/zenml/stage"].value == "production"
    assert fields["sys/zenml/added_tags"].value == ["chosen"]
    assert [ref.path for chunk in read if isinstance(chunk, Files) for ref in chunk.files] == ["artifacts/evaluation"]
    theirs = ("sys/zenml/", "artifacts/", "artifact_metadata/")
    assert {name: digest for name, digest in field_digests(read).items() if not name[0].startswith(theirs)} == (
        field_digests(chunks)
    )
    (end,) = (chunk for chunk in read if isinstance(chunk, End))
    assert [one.code for one in end.findings if one.kind == "loss"] == []


def test_what_people_added_under_a_name_that_the_run_has_already_comes_beside_it(zenml: Path) -> None:
    """A run that went from ZenML to ZenML has a stage among its fields."""
    chunks = plain_run()
    write([chunks[0], Fields([Field("params/lr", "float", 0.5), Field("sys/zenml/stage", "string", "staging")]), End()])
    client = Client()
    version = client.get_model_version("ws/plain", "RUN-1")
    client.update_model_version("ws/plain", version.id, stage="production")
    log_metadata({"params": {"lr": 9.0}}, model_version_id=version.id)  # type: ignore[call-overload]
    source = open_source({})
    read = _read(source, ProjectId("ws/plain"), RunId("RUN-1"))
    source.close()
    fields = [field for chunk in read if isinstance(chunk, Fields) for field in chunk.fields]
    assert {field.path: field.value for field in fields} == {
        "params/lr": 0.5,
        "params/lr (2)": 9.0,
        "sys/zenml/stage": "staging",
        "sys/zenml/stage (2)": "production",
    }
    assert len(fields) == 4


def test_artifacts_whose_names_meet_and_empty_metadata_are_all_there(zenml: Path) -> None:
    """Version 1 of artifact x, and an artifact called x/1."""
    fill_by_hand("theirs", "first")
    version = Client().get_model_version("theirs", "first")
    log_metadata({"empty": {}, "nested": {"none": {}}}, model_version_id=version.id)  # type: ignore[call-overload]
    contents = {("x", "1"): "a", ("x", "2"): "b", ("x/1", "1"): "c"}
    for (name, number), text in contents.items():
        _link(version, save_artifact(text, name, version=number))
    source = open_source({})
    chunks = _read(source, ProjectId("theirs"), RunId("first"))
    source.close()
    refs = [ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files]
    assert sorted(ref.path for ref in refs if "/x" in ref.path) == [
        "artifacts/x/1",
        "artifacts/x/1 (2)",
        "artifacts/x/2",
    ]
    fields = {field.path: field for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}
    assert fields["metadata/empty"].value == fields["metadata/nested/none"].value == "{}"


def test_a_run_that_was_never_loaded_to_its_end_is_told(zenml: Path) -> None:
    write(plain_run()[:-1])
    source = open_source({})
    (run,) = source.list_runs(ProjectId("ws/plain"), Selection())
    with pytest.raises(BadInput, match="never loaded to its end"):
        list(source.read_runs([run], Want(), DigestSink()))
    source.close()


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    use_zenml(tmp_path / "nothing")
    source = open_source({})
    with pytest.raises(UsageError, match="there is no ZenML database"):
        list(source.list_projects(Selection()))
    source.close()
    assert not list(tmp_path.rglob("*.db"))


def _read(source: ReadSide, project: ProjectId, run_id: RunId) -> list[Chunk]:
    (run,) = (run for run in source.list_runs(project, Selection()) if run.id == run_id)
    return [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]


def _fingerprint(project: str) -> str:
    source = open_source({})
    (run,) = source.list_runs(ProjectId(project), Selection())
    source.close()
    return run.fingerprint


def _link(version: Any, artifact: Any) -> None:
    link = ModelVersionArtifactRequest(model_version=version.id, artifact_version=artifact.id)
    Client().zen_store.create_model_version_artifact_link(link)


def _size(files: dict[str, FileRef], path: str) -> int:
    return files[path].size_bytes
