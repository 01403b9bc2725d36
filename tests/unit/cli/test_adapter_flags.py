"""How source and target flags become adapter options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardmig.cli.asked import archive_of, check_not_onto_itself, database_uri, load_options_of, source_of, target_of
from shardmig.cli.flags import ArchiveFlags, LoadFlags, SourceFlags, TargetFlags
from shardmig.errors import UnknownAdapter, UsageError
from shardmig.records import ArchivePaths

ARCHIVE = ArchivePaths("/into/data", "/into/files")


def test_the_one_selected_project_is_the_project_of_folders_that_name_none(tmp_path: Path) -> None:
    flags = SourceFlags(paths=[str(tmp_path)], source="neptune-local", path_map=["/a=/b", "/c=/d"], include_acked=False)
    assert source_of(flags, ("ws/one",), ARCHIVE).options == {
        "path": str(tmp_path),
        "project": "ws/one",
        "path-map": f"/a=/b{os.pathsep}/c=/d",
        "include-acked": "no",
    }
    assert "project" not in source_of(flags, ("ws/one", "ws/two"), ARCHIVE).options


@pytest.mark.parametrize("name", ["neptune4", "Neptune3", ""])
def test_an_unknown_source_lists_those_that_exist(name: str) -> None:
    with pytest.raises(UnknownAdapter) as caught:
        source_of(SourceFlags(source=name), (), ARCHIVE)
    assert "neptune-local" in caught.value.hint


def test_an_archive_is_read_from_its_data_and_files_folders() -> None:
    both = SourceFlags(paths=["/old/data", "/old/files"], source="archive")
    assert source_of(both, ("ws/one",), ARCHIVE).options == {"data": "/old/data", "files": "/old/files"}
    with pytest.raises(UsageError, match="data folder and its files folder"):
        source_of(SourceFlags(paths=["a", "b", "c"], source="archive"), (), ARCHIVE)


def test_an_archive_is_never_repacked_into_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    into = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    with pytest.raises(UsageError, match="would be read and written"):
        source_of(SourceFlags(paths=[str(tmp_path / "link")], source="archive"), (), into)


@pytest.mark.parametrize("name", ["neptune", "MLflow"])
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
        TargetFlags(target="mlflow", mlflow_tracking_uri="postgresql://db/mlflow?user=me&password=s3cret"),
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(flags: TargetFlags) -> None:
    with pytest.raises(UsageError) as caught:
        target_of(flags)
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_password_in_the_query_of_a_source_is_refused_and_not_repeated() -> None:
    uri = "postgresql://db/mlflow?user=me&password=s3cret"
    for refuse in (lambda: source_of(SourceFlags(source="mlflow", paths=[uri]), ()), lambda: database_uri(uri)):
        with pytest.raises(UsageError, match="password") as caught:
            refuse()
        assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_relative_sqlite_file_is_named_absolutely_so_that_retry_finds_it_from_anywhere() -> None:
    def uri(given: str) -> str:
        return target_of(TargetFlags(target="mlflow", mlflow_tracking_uri=given)).options["tracking-uri"]

    assert uri("sqlite:///mlflow.db") == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    assert uri("sqlite:////srv/mlflow.db") == "sqlite:////srv/mlflow.db"
    assert uri("http://localhost:5000") == "http://localhost:5000"


def test_any_other_option_of_an_adapter_is_key_equals_value() -> None:
    options = ["tracking-uri=http://h", "connections=8", "name-prefix=a=b"]
    flags = TargetFlags(target="mlflow", target_option=options, no_bulk=True)
    assert target_of(flags).options == {
        "tracking-uri": "http://h",
        "bulk": "no",
        "connections": "8",
        "name-prefix": "a=b",
    }
    with pytest.raises(UsageError, match="'connections' is not KEY=VALUE"):
        target_of(TargetFlags(target="mlflow", target_option=["connections"]))


def test_the_step_multiplier_is_a_positive_integer_or_auto() -> None:
    assert load_options_of(LoadFlags()).step_multiplier == 0
    assert load_options_of(LoadFlags(step_multiplier="1000")).step_multiplier == 1000
    for wrong in ("0", "-1", "1.5", "many", "", str(2**63)):
        with pytest.raises(UsageError, match="--step-multiplier"):
            load_options_of(LoadFlags(step_multiplier=wrong))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (TargetFlags(target="mlflow"), "no MLflow tracking URI"),
        (TargetFlags(target="mlflow", mlflow_tracking_uri="ftp://server"), "'ftp' are not supported"),
        (TargetFlags(target="mlflow", mlflow_tracking_uri="http://h", target_option=["no-such=1"]), "no-such"),
    ],
)
def test_options_of_a_target_are_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, flags: TargetFlags, message: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError, match=message):
        target_of(flags)


@pytest.mark.parametrize("spelled", [("old",), ("old/data", "old/files"), ("old/data",)])
@pytest.mark.parametrize("into", ["data", "files"])
def test_no_folder_of_an_archive_is_read_and_written_however_it_is_spelled(
    tmp_path: Path, spelled: tuple[str, ...], into: str
) -> None:
    for name in ("data", "files"):
        (tmp_path / "old" / name).mkdir(parents=True)
    flags = SourceFlags(paths=[str(tmp_path / part) for part in spelled], source="archive")
    written = {"data": str(tmp_path / "new/data"), "files": str(tmp_path / "new/files")}
    assert source_of(flags, (), ArchivePaths(**written)).name == "archive"
    with pytest.raises(UsageError, match="would be read and written"):
        source_of(flags, (), ArchivePaths(**(written | {into: str(tmp_path / "old" / into)})))


def test_the_folder_around_an_archive_is_refused_with_the_folders_to_name(tmp_path: Path) -> None:
    (tmp_path / "exports" / "data").mkdir(parents=True)
    with pytest.raises(UsageError, match="the folder around") as caught:
        archive_of(ArchiveFlags(data_path=str(tmp_path / "exports")))
    assert caught.value.hint == f"give -d {tmp_path}/exports/data -f {tmp_path}/exports/files"


@pytest.mark.parametrize("below", ["", "data"])
def test_an_archive_cannot_lie_in_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    for flags in (
        ArchiveFlags(data_path=str(tmp_path / "file" / below)),
        ArchiveFlags(files_path=str(tmp_path / "file" / below)),
    ):
        with pytest.raises(UsageError, match="file is a file, not a folder"):
            archive_of(flags)


def test_an_mlflow_is_read_by_its_uri_and_never_copied_onto_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def uri(*given: str) -> str:
        return source_of(SourceFlags(paths=list(given), source="mlflow"), (), ARCHIVE).options["tracking-uri"]

    assert uri("http://server:5000/base") == "http://server:5000/base"
    assert uri("sqlite:///mlflow.db") == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    assert uri("mlruns") == str(Path.cwd() / "mlruns")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@server")
    assert uri() == "https://me@server"
    with pytest.raises(UsageError, match="password"):
        uri("https://me:s3cret@server")
    with pytest.raises(UsageError, match="one URI"):
        uri("http://one", "http://two")
    source = source_of(SourceFlags(paths=["http://server/"], source="mlflow"), (), ARCHIVE)
    with pytest.raises(UsageError, match="is the source and the target"):
        check_not_onto_itself(source, target_of(TargetFlags(target="mlflow", mlflow_tracking_uri="http://server")))
    prefixed = TargetFlags(target="mlflow", mlflow_tracking_uri="http://server", name_prefix="copy")
    check_not_onto_itself(source, target_of(prefixed))
