"""Which names MLflow takes, and that no two fields share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.uri import validate_path_is_safe
from mlflow.utils.validation import _validate_experiment_name, _validate_metric_name, _validate_tag_name

from shardmig.adapters.mlflow.naming import MAX_KEY, Naming, experiment_name, run_name, wanted_experiment_name
from shardmig.adapters.mlflow.options import MlflowOptions
from shardmig.adapters.sidecar.manifest import ArtifactNames

names = st.text(st.sampled_from("aAbB/.:_- ~#%\\\n\0üéß0123456789"), max_size=12) | st.text(max_size=300)


@pytest.mark.parametrize("name", ["lr", "metrics/train/loss", "a:b", "ü x", "żółw", "a.b-c_d", "x" * 250])
def test_a_key_that_mlflow_takes_is_kept(name: str) -> None:
    assert Naming().key(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a//b", "../x", "/abs", "a/", "a\n", "a\tb", "nul\0", "a#b", "x" * 251, "a--0123456789abcdef"],
)
def test_any_other_key_becomes_one_that_mlflow_takes(name: str) -> None:
    key = Naming().key(name)
    assert key != name
    _validate_metric_name(key)


@given(names, names)
def test_two_fields_never_share_a_key(one: str, other: str) -> None:
    for naming in (Naming(), Naming(caseless=True)):
        keys = naming.key(one), naming.key(other)
        assert (keys[0] == keys[1]) == (one == other)
        for key in keys:
            _validate_tag_name(key)
            assert len(key) <= MAX_KEY


@given(names, names)
def test_a_store_that_ignores_case_never_merges_two_fields(one: str, other: str) -> None:
    naming = Naming(caseless=True)
    assert (naming.key(one).casefold() == naming.key(other).casefold()) == (one == other)


@given(names)
def test_a_made_key_is_never_taken_for_a_fields_own(name: str) -> None:
    made = Naming().key(name)
    if made != name:
        assert Naming().key(made) != made


@given(st.lists(names, max_size=8, unique=True))
def test_no_two_files_of_a_run_share_an_artifact_path_or_hide_in_each_other(paths: list[str]) -> None:
    claims = ArtifactNames(Naming())
    taken = [claims.claim(path, path) for path in paths]
    assert len(set(taken)) == len(paths)
    for path in taken:
        assert validate_path_is_safe(path) == path
        assert not any(other.startswith(f"{path}/") for other in taken)


def test_files_of_one_step_have_an_artifact_each() -> None:
    claims = ArtifactNames(Naming())
    assert len({claims.claim("img/step_1.png", "img file_series 1") for _ in range(4)}) == 4


def test_the_folder_of_shardmig_is_nobodys() -> None:
    assert not ArtifactNames(Naming()).claim("shardmig/manifest.json", "x").startswith("shardmig/")
    assert not ArtifactNames(Naming()).claim("Shardmig/exact.parquet", "x").lower().startswith("shardmig/")


def test_a_file_under_another_files_path_finds_another_place() -> None:
    claims = ArtifactNames(Naming())
    assert claims.claim("a", "1") == "a"
    assert claims.claim("a/b.png", "2").startswith("a_b~")
    assert claims.claim("c/d", "3") == "c/d"
    assert claims.claim("c", "4").startswith("c~")


@pytest.mark.parametrize(
    ("template", "prefix", "sys_name", "expected"),
    [
        ("{project_id}/{sys_name}", "", "exp", "ws/proj/exp"),
        ("{project_id}/{sys_name}", "", "", "ws/proj"),
        ("{project_id}/{sys_name}", "from neptune/", "exp", "from neptune/ws/proj/exp"),
        ("{workspace}-{project}", "", "exp", "ws-proj"),
        ("fixed", "", "", "fixed"),
        ("{sys_name}", "", "", "ws/proj"),
    ],
)
def test_experiments_are_named_by_the_template(template: str, prefix: str, sys_name: str, expected: str) -> None:
    options = MlflowOptions(experiment_name_template=template, name_prefix=prefix)
    assert experiment_name(wanted_experiment_name(options, "ws/proj", sys_name)) == expected


@given(names, names)
def test_experiment_and_run_names_always_fit_the_database(project: str, sys_name: str) -> None:
    name = experiment_name(wanted_experiment_name(MlflowOptions(), f"ws/{project}", sys_name))
    _validate_experiment_name(name)
    assert len(name) <= 256
    assert "\0" not in name
    assert len(run_name(sys_name)) <= 250


def test_long_experiment_names_stay_apart() -> None:
    one, other = (experiment_name(wanted_experiment_name(MlflowOptions(), "ws/proj", "x" * 400 + end)) for end in "ab")
    assert one != other
