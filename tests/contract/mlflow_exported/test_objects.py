"""What is no run, in exports that the head of mlflow-export-import (1.2.0) made of MLflow 3.17.2, is read and brought back.

The samples come from a server with every class of objects: `objects` from export-all, `model` and `version` from
export-model and export-model-version with the versions' own files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.mlflow.exported import open_source
from shardmig.archive.files import DigestSink
from shardmig.cli.app import execute
from shardmig.errors import BadInput, UsageError
from shardmig.records import Chunk, End, Field, Fields, Files, Finding, RunRef, Selection, StringPoints

SAMPLES = Path(__file__).parents[2] / "samples" / "mlflow-export-import"
RUN = "2a2058886e09463cb5c3fb2dd0908030"
MODEL = "m-2b3a0b20f8a1419289fc5788eccb7893"
TRACE = "tr-000000000000000000000000000002cd"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An export of its own."""
    return Path(shutil.copytree(SAMPLES / "objects", tmp_path / "exported"))


class TestExportedObjects(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        return open_source({"path": str(SAMPLES / "objects")})

    def snapshot(self, folder: Path) -> object:
        return super().snapshot(SAMPLES / "objects")


def read(folder: Path, id_: str, scope: str, **options: str) -> list[Chunk]:
    source = open_source({"path": str(folder), **options})
    [run] = [run for run in listed(source) if (run.scope, run.id) == (scope, id_)]
    return [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]


def listed(source: ReadSide) -> list[RunRef]:
    everything = Selection(include_archived=True)
    return [run for one in source.list_projects(everything) for run in source.list_runs(one, everything)]


def fields(found: list[Chunk]) -> dict[str, object]:
    one_by_one: list[Field] = [field for chunk in found if isinstance(chunk, Fields) for field in chunk.fields]
    return {field.path: field.value for field in one_by_one}


def files(found: list[Chunk]) -> set[str]:
    return {ref.path for chunk in found if isinstance(chunk, Files) for ref in chunk.files}


def findings(found: list[Chunk]) -> list[Finding]:
    assert isinstance(found[-1], End)
    return found[-1].findings


def test_a_registered_model_has_its_versions_under_their_numbers() -> None:
    found = fields(read(SAMPLES / "objects", "churn", "registered_models"))
    assert {path.split("/")[1] for path in found if path.startswith("versions/")} == set(
        map(str, (2, 3, *range(5, 13)))
    )
    assert (found["aliases/champion"], found["tags/owner"], found["versions/2/stage"]) == (10, "ü", "Production")
    assert (found["versions/10/run/path"], found["versions/11/run/id"]) == ("model", RUN)
    assert found["versions/12/model/id"] == MODEL


@pytest.mark.parametrize(("sample", "numbers"), [("model", {"10", "12"}), ("version", {"10"})])
def test_versions_that_were_exported_alone_are_read(sample: str, numbers: set[str]) -> None:
    found = fields(read(SAMPLES / sample, "churn", "registered_models"))
    assert {path.split("/")[1] for path in found if path.startswith("versions/")} == numbers


def test_a_logged_model_has_its_metrics_and_files() -> None:
    found = read(SAMPLES / "objects", MODEL, "logged_models")
    assert files(found) == {"artifacts/MLmodel", "artifacts/data/w ünï.bin"}
    told = fields(found)
    assert (told["params/depth"], told["source_run/id"]) == ("3", RUN)
    assert [text for path, text in told.items() if path.endswith("/dataset/name")] == ["träning"]


def test_a_trace_has_its_assessments_and_the_spans_that_the_export_has() -> None:
    found = read(SAMPLES / "objects", TRACE, "traces")
    told = fields(found)
    assert (told["run/id"], told["metadata/mlflow.trace.session"]) == (RUN, "session ü")
    kinds = sorted(str(told[path]) for path in told if path.startswith("assessments/") and path.endswith("/kind"))
    assert kinds == ["expectation", "feedback", "feedback", "feedback"]
    assert "because: ü" in str(told[next(path for path in told if path.endswith("b24d/json"))])
    assert [(one.kind, one.code, one.field) for one in findings(found)] == [("gap", "not-exported", "spans")]
    old = read(SAMPLES / "objects", "old-style-id", "traces")
    [spans] = [chunk for chunk in old if isinstance(chunk, StringPoints)]
    assert len(spans.times_ms) == 2
    assert findings(old) == []


@pytest.mark.parametrize(
    ("document", "scope"),
    [
        ("models.json", "registered_models"),
        ("traces.json", "traces"),
        ("logged_models.json", "logged_models"),
        ("evaluation_datasets_summary.json", "datasets"),
    ],
)
def test_a_list_of_objects_that_was_cut_fails_loudly_and_alone(exported: Path, document: str, scope: str) -> None:
    whole = {(run.scope, run.id) for run in listed(open_source({"path": str(exported)}))}
    path = min(exported.rglob(document), key=lambda path: len(path.parts))
    path.write_bytes(path.read_bytes()[:60])
    name = str(path.relative_to(exported))
    found = {(run.scope, run.id) for run in listed(open_source({"path": str(exported)}))}
    assert found - whole == {(scope, name)}
    with pytest.raises(BadInput, match=document):
        read(exported, name, scope)


def test_a_prompt_has_its_versions_and_what_the_export_never_has_is_told() -> None:
    found = read(SAMPLES / "objects", "greeting", "prompts")
    told = fields(found)
    assert (told["versions/2/text"], told["versions/11/text"]) == ("Say 2 to {{name}}", "Say 11 to {{name}}")
    assert "versions/3/text" not in told
    assert [one.code for one in findings(found)] == ["not-exported"]
    assert fields(read(SAMPLES / "objects", "chat", "prompts"))["versions/1/type"] == "chat"


def test_a_dataset_has_its_records() -> None:
    source = open_source({"path": str(SAMPLES / "objects"), "datasets": "whole*"})
    [run] = [run for run in listed(source) if run.scope == "datasets"]
    found = read(SAMPLES / "objects", run.id, "datasets")
    [records] = [chunk for chunk in found if isinstance(chunk, StringPoints)]
    assert {json.loads(text)["inputs"]["n"] for text in records.values.to_list()} == {0, 1, 2}
    assert fields(found)["experiments"] == ["churn: ünï"]


@pytest.mark.parametrize(
    ("document", "scope", "id_"),
    [
        (f"experiments/1/logged_models/{MODEL}/logged_model.json", "logged_models", MODEL),
        (f"experiments/1/traces/{TRACE}/trace.json", "traces", TRACE),
        ("models/churn/model.json", "registered_models", "churn"),
        ("prompts/greeting_v7/prompt.json", "prompts", "greeting"),
    ],
)
def test_a_document_that_was_cut_fails_loudly_and_alone(exported: Path, document: str, scope: str, id_: str) -> None:
    shutil.rmtree(exported / "models" / "churn" / MODEL)  # a second copy of it
    (exported / document).write_bytes((exported / document).read_bytes()[:500])
    with pytest.raises(BadInput, match="no whole JSON document"):
        read(exported, id_, scope)
    assert fields(read(exported, "no versions", "registered_models"))


def test_a_version_that_was_copied_from_another_one_tells_when_that_was_created(exported: Path) -> None:
    document = exported / "models" / "churn" / "model.json"
    told = json.loads(document.read_text())
    first, second, third, *_ = told["mlflow"]["registered_model"]["versions"]
    second["source"], third["source"] = f"models:/churn/{first['version']}", "models:/churn/999"
    document.write_text(json.dumps(told))
    found = fields(read(exported, "churn", "registered_models"))
    assert {path: value for path, value in found.items() if "copied_from" in path} == {
        f"versions/{second['version']}/copied_from/creation_time": first["creation_timestamp"],
        f"versions/{second['version']}/copied_from/model/creation_time": found["sys/creation_time"],
    }


def test_permissions_of_databricks_are_kept(exported: Path) -> None:
    told = {"access_control_list": [{"user_name": "ü", "all_permissions": []}]}
    for document, keys in (("experiments/1/experiment.json", ()), ("models/churn/model.json", ("registered_model",))):
        whole = json.loads((exported / document).read_text())
        part = whole["mlflow"]
        for key in keys:
            part = part[key]
        part["permissions"] = told
        (exported / document).write_text(json.dumps(whole))
    for id_, scope in (("churn: ünï", "experiments"), ("churn", "registered_models")):
        assert json.loads(str(fields(read(exported, id_, scope))["sys/mlflow/permissions"])) == told


def test_what_is_listed_and_not_there_fails_loudly(exported: Path) -> None:
    shutil.rmtree(exported / "experiments" / "1" / "traces" / TRACE)
    shutil.rmtree(exported / "models" / "churn")
    for id_, scope in ((TRACE, "traces"), ("churn", "registered_models")):
        with pytest.raises(BadInput, match=r"lists .* and does not have it"):
            read(exported, id_, scope)


def test_a_file_of_a_user_is_no_document(exported: Path) -> None:
    place = exported / "experiments" / "1" / "runs" / RUN / "artifacts" / "model"
    for name in ("model.json", "run.json", "trace.json"):
        (place / name).write_text('{"learner": "xgboost"}')
    with_user_files, plain = (open_source({"path": str(path)}) for path in (exported, SAMPLES / "objects"))
    assert [run.label for run in listed(with_user_files)] == [run.label for run in listed(plain)]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="leaves models out"):
        open_source({"path": str(SAMPLES / "objects"), "objects": "runs", "models": "churn"})


def test_an_export_of_everything_is_brought_back_into_mlflow_and_verified(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    into = ["--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{sqlite_file}", "-d", "data", "-f", "files"]
    into += ["--engine", "inline", "--no-progress"]
    assert execute(["migrate", "--source", "mlflow-export-import", str(SAMPLES / "objects"), *into]) == 0
    assert execute(["verify", *into]) == 0
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    version = client.get_model_version_by_alias("churn", "champion")
    assert (str(version.version), version.description) == ("10", "version 10")
    [experiment] = client.search_experiments(filter_string="name = 'churn: ünï'")
    [run] = client.search_runs([experiment.experiment_id])
    assert version.run_id == run.info.run_id
    trace = client._tracking_client.store.get_trace_info(TRACE)
    assert trace.trace_metadata["mlflow.sourceRun"] == run.info.run_id
    prompt = client.get_prompt_version("greeting", "10")
    assert prompt.template == "Say 10 to {{name}}"


def test_versions_that_were_exported_one_by_one_are_all_read(tmp_path: Path) -> None:
    for number in ("10", "7"):
        folder = Path(shutil.copytree(SAMPLES / "version", tmp_path / "exported" / f"v{number}"))
        text = (folder / "version.json").read_text()
        (folder / "version.json").write_text(text.replace('"version": "10"', f'"version": "{number}"'))
    found = fields(read(tmp_path / "exported", "churn", "registered_models"))
    assert {path.split("/")[1] for path in found if path.startswith("versions/")} == {"7", "10"}
