"""Which objects of an MLflow are read: the same options and the same code for every source of MLflow's."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.mlflow.exported import open_source
from shardmig.archive.files import DigestSink
from shardmig.cli.app import execute
from shardmig.errors import UsageError
from shardmig.records import End, Fields, Files, RunRef, Selection

SAMPLE = Path(__file__).parents[2] / "samples" / "mlflow-export-import" / "objects"
RUN = "2a2058886e09463cb5c3fb2dd0908030"
EXPERIMENT = "churn: ünï"
EVERYTHING = Selection()


def source(**options: str) -> ReadSide:
    return open_source({"path": str(SAMPLE)} | {name.replace("_", "-"): text for name, text in options.items()})


def listed(of: ReadSide, selection: Selection = EVERYTHING) -> dict[tuple[str, str], RunRef]:
    runs = (run for project in of.list_projects(selection) for run in of.list_runs(project, selection))
    return {(run.scope, run.id): run for run in runs}


def names(scope: str, **options: str) -> set[str]:
    return {id_ for held, id_ in listed(source(**options)) if held == scope}


def versions(**options: str) -> set[str]:
    of = source(**options)
    run = listed(of)["registered_models", "churn"]
    chunks = [piece.chunk for piece in of.read_runs([run], Want(), DigestSink())]
    paths = [field.path for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields]
    return {path.split("/")[1] for path in paths if path.startswith("versions/")}


def test_models_and_prompts_are_chosen_by_name_prefix_and_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\nno versions\n")
    assert names("registered_models", models="churn") == {"churn"}
    assert names("registered_models", models="no*, churn") == {"churn", "no versions"}
    assert names("registered_models", models="churn, ch*, c*") == {"churn"}
    assert names("registered_models", models="*") == {"churn", "no versions"}
    assert names("registered_models", models=f"@{tmp_path}/names.txt") == {"no versions"}
    assert names("prompts", models="churn", prompts="gr*") == {"greeting"}
    assert len(names("datasets", datasets="whole ü")) == 1
    assert names("traces", models="churn") == names("traces")


def test_experiments_are_chosen_with_all_that_belongs_to_them() -> None:
    assert names("runs", experiments="Def*") == names("traces", experiments="Def*") == set()
    assert names("runs", experiments=EXPERIMENT) == {RUN}
    assert names("experiments", experiments=EXPERIMENT) == {EXPERIMENT}
    assert names("registered_models", experiments=EXPERIMENT) == {"churn", "no versions"}


def test_versions_are_chosen_by_number_stage_and_being_the_last() -> None:
    assert versions(versions="2,10") == {"2", "10"}
    assert versions(versions="latest") == {"2", "3", "12"}
    assert versions(stages="production,Staging") == {"2", "3"}


def test_another_choice_of_versions_is_another_content() -> None:
    [some, every] = [listed(source(**chosen))["registered_models", "churn"] for chosen in ({"versions": "2"}, {})]
    assert some.fingerprint != every.fingerprint


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"models": "chrun"}, "no 'chrun'"),
        ({"models": "churn, chrun*"}, r"models: the source has no 'chrun\*'"),
        ({"prompts": "churn*"}, r"prompts: the source has no 'churn\*'"),
        ({"experiments": "Def*, nothing*"}, r"no 'nothing\*'"),
        ({"experiments": "nothing"}, "no 'nothing'"),
        ({"versions": "99"}, "no model has a version 99"),
        ({"models": "no versions", "versions": "2"}, "no versions has no version 2"),
        ({"versions": "0"}, "'0' is no version"),
        ({"stages": "Live"}, "no 'live'"),
        ({"stages": "Staging", "versions": "1"}, "exclude each other"),
        ({"objects": "runs", "versions": "1"}, "leaves models out"),
        ({"objects": "models", "prompts": "a"}, "leaves prompts out"),
        ({"no_artifacts": "yes", "max_file_size": "1K"}, "exclude each other"),
        ({"max_file_size": "big"}, "'big' is no size"),
        ({"models": "a,,b"}, "a name is empty"),
        ({"models": "@/nowhere"}, "cannot be read"),
    ],
)
def test_what_contradicts_itself_or_is_not_there_is_refused(options: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        listed(source(**options))


@pytest.mark.parametrize(
    ("options", "project"), [({"experiments": EXPERIMENT}, EXPERIMENT), ({"models": "churn"}, "Default")]
)
def test_a_project_that_says_something_else_is_refused(options: dict[str, str], project: str) -> None:
    with pytest.raises(UsageError, match="--project"):
        listed(source(**options), Selection(projects=(project,)))


@pytest.mark.parametrize(
    ("options", "kept", "told"),
    [
        ({"no_artifacts": "yes"}, set(), [("artifacts", 2)]),
        ({"max_file_size": "50"}, {"artifacts/model/MLmodel"}, [("artifacts/model/ünï.bin", 1)]),
        ({"max_file_size": "0.1K"}, {"artifacts/model/MLmodel", "artifacts/model/ünï.bin"}, []),
    ],
)
def test_files_that_were_not_asked_for_are_told(
    options: dict[str, str], kept: set[str], told: list[tuple[str, int]]
) -> None:
    of = source(**options)
    run = listed(of)["runs", RUN]
    chunks = [piece.chunk for piece in of.read_runs([run], Want(), DigestSink())]
    assert {ref.path for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files} == kept
    [end] = [chunk for chunk in chunks if isinstance(chunk, End)]
    left_out = [finding for finding in end.findings if finding.code == "file-left-out"]
    assert [(finding.field, finding.count) for finding in left_out] == told
    assert {finding.kind for finding in left_out} <= {"gap"}
    assert run.fingerprint != listed(source())["runs", RUN].fingerprint


def test_a_model_of_another_name_with_one_version_refers_to_what_is_not_there_in_a_tag(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.csv").write_text("churn,churn of old\n")
    into = ["--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{sqlite_file}", "-d", "data", "-f", "files"]
    into += ["--engine", "inline", "--no-progress", "--model-rename-file", "names.csv"]
    chosen = ["--objects", "models,runs", "--models", "churn", "--versions", "10", "--no-artifacts"]
    assert execute(["migrate", "--source", "mlflow-export-import", str(SAMPLE), *chosen, *into]) == 0
    told = capsys.readouterr().err
    assert "model-name-changed" in told
    assert "file-left-out" in told
    assert execute(["verify", *into]) == 0
    client = MlflowClient(f"sqlite:///{sqlite_file}")
    model = client.get_registered_model("churn of old")
    assert {alias: str(version) for alias, version in model.aliases.items()} == {"champion": "10"}
    assert [str(one.version) for one in client.search_model_versions("name = 'churn of old'")] == ["10"]
    later = [*chosen[:4], "--versions", "10,12", "--no-artifacts", "--on-existing", "merge"]
    assert execute(["migrate", "--source", "mlflow-export-import", str(SAMPLE), *later, *into]) == 0
    model = client.get_registered_model("churn of old")
    assert {alias: str(version) for alias, version in model.aliases.items()} == {"champion": "10", "newest": "12"}
    assert execute(["verify", *into]) == 0
