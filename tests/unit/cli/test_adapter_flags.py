"""How source and target flags become adapter options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardmig.cli.asked import load_options_of, source_of, target_of
from shardmig.cli.flags import LoadFlags, SourceFlags, TargetFlags
from shardmig.errors import UnknownAdapter, UsageError
from shardmig.records import ArchivePaths

ARCHIVE = ArchivePaths("/into/data", "/into/files")


def test_the_one_selected_project_is_the_project_of_folders_that_name_none(tmp_path: Path) -> None:
    flags = SourceFlags(paths=[tmp_path], source="neptune-local", path_map=["/a=/b", "/c=/d"], include_acked=False)
    assert source_of(flags, ("ws/one",), ARCHIVE).options == {
        "path": str(tmp_path),
        "project": "ws/one",
        "path-map": f"/a=/b{os.pathsep}/c=/d",
        "include-acked": "no",
    }
    assert "project" not in source_of(flags, ("ws/one", "ws/two"), ARCHIVE).options


@pytest.mark.parametrize("name", ["neptune3", "neptune2", ""])
def test_an_unknown_source_lists_those_that_exist(name: str) -> None:
    with pytest.raises(UnknownAdapter) as caught:
        source_of(SourceFlags(source=name), (), ARCHIVE)
    assert "neptune-local" in caught.value.hint


def test_an_archive_is_read_from_its_data_and_files_folders() -> None:
    both = SourceFlags(paths=[Path("/old/data"), Path("/old/files")], source="archive")
    assert source_of(both, ("ws/one",), ARCHIVE).options == {"data": "/old/data", "files": "/old/files"}
    with pytest.raises(UsageError, match="data folder and its files folder"):
        source_of(SourceFlags(paths=[Path("a"), Path("b"), Path("c")], source="archive"), (), ARCHIVE)


def test_an_archive_is_never_repacked_into_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    into = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    with pytest.raises(UsageError, match="would be read and written"):
        source_of(SourceFlags(paths=[tmp_path / "link"], source="archive"), (), into)


@pytest.mark.parametrize("name", ["wandb", "MLflow"])
def test_an_unknown_target_lists_those_that_exist(name: str) -> None:
    with pytest.raises(UnknownAdapter) as caught:
        target_of(TargetFlags(target=name))
    assert "mlflow" in caught.value.hint


def test_a_tracking_uri_of_the_environment_is_part_of_the_target_but_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cret@db/mlflow")
    assert target_of(TargetFlags(target="mlflow")).options == {"tracking-uri": "postgresql://me@db/mlflow"}


@pytest.mark.parametrize(
    "flags",
    [
        TargetFlags(target="mlflow", mlflow_tracking_uri="https://me:s3cret@server"),
        TargetFlags(target="mlflow", target_option=["tracking-uri=https://me:s3cret@server"]),
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(flags: TargetFlags) -> None:
    with pytest.raises(UsageError) as caught:
        target_of(flags)
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_relative_sqlite_file_is_named_absolutely_so_that_retry_finds_it_from_anywhere() -> None:
    def uri(given: str) -> str:
        return target_of(TargetFlags(target="mlflow", mlflow_tracking_uri=given)).options["tracking-uri"]

    assert uri("sqlite:///mlflow.db") == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    assert uri("sqlite:////srv/mlflow.db") == "sqlite:////srv/mlflow.db"
    assert uri("http://localhost:5000") == "http://localhost:5000"


def test_any_other_option_of_an_adapter_is_key_equals_value() -> None:
    flags = TargetFlags(target="mlflow", target_option=["connections=8", "name-prefix=a=b"], no_bulk=True)
    assert target_of(flags).options == {"bulk": "no", "connections": "8", "name-prefix": "a=b"}
    with pytest.raises(UsageError, match="'connections' is not KEY=VALUE"):
        target_of(TargetFlags(target="mlflow", target_option=["connections"]))


def test_the_step_multiplier_is_a_positive_integer_or_auto() -> None:
    assert load_options_of(LoadFlags()).step_multiplier == 0
    assert load_options_of(LoadFlags(step_multiplier="1000")).step_multiplier == 1000
    for wrong in ("0", "-1", "1.5", "many", "", str(2**63)):
        with pytest.raises(UsageError, match="--step-multiplier"):
            load_options_of(LoadFlags(step_multiplier=wrong))
