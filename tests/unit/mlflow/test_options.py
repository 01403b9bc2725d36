"""Options of the MLflow target: texts in, or a clear refusal."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from shardmig.adapters.mlflow.naming import wanted_experiment_name
from shardmig.adapters.mlflow.options import parse_options
from shardmig.adapters.mlflow.source.options import parse_options as parse_source
from shardmig.adapters.registry import imports_of
from shardmig.cli.asked import source_of
from shardmig.cli.flags import SourceFlags
from shardmig.errors import UsageError
from shardmig.records import AdapterSpec

URI = {"tracking-uri": "http://h"}


def test_texts_become_typed_options() -> None:
    options = parse_options({"tracking-uri": "http://host:5000", "bulk": "no", "connections": "2", "timeout-s": "7.5"})
    assert (options.bulk, options.connections, options.timeout_s, options.is_http) == ("no", 2, 7.5, True)


@pytest.mark.parametrize(
    ("texts", "is_slow"),
    [
        ({"tracking-uri": "http://host:5000"}, True),
        ({"tracking-uri": "http://host:5000", "objects": "runs"}, False),
        ({"tracking-uri": "postgresql://host/mlflow", "objects": "runs"}, True),
    ],
)
def test_workers_import_ahead_what_they_read_with(texts: dict[str, str], is_slow: bool) -> None:
    modules = imports_of(AdapterSpec("mlflow", texts), None)
    assert bool(modules) is is_slow
    assert all(import_module(module) for module in modules)


def test_the_environment_names_the_server_when_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://user:secret@host/db")
    options = parse_options({})
    assert options.scheme == "postgresql"
    assert "secret" not in options.shown_uri


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "no MLflow tracking URI"),
        ({"tracking-uri": "http://h", "trackingurl": "x"}, "trackingurl"),
        ({"tracking-uri": "http://h", "bulk": "perhaps"}, "perhaps"),
        ({"tracking-uri": "http://h", "connections": "many"}, "connections"),
        ({"tracking-uri": "http://h", "connections": "0"}, "at least 1"),
        ({"tracking-uri": "./mlruns"}, "not supported"),
        ({"tracking-uri": "databricks://x"}, "not supported"),
        ({"tracking-uri": "http://"}, "no host"),
        ({"tracking-uri": "http://h", "experiment-name-template": "{nothing}"}, "nothing"),
        ({"tracking-uri": "http://h", "experiment-name-template": "{project_id"}, "experiment-name-template"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_options(texts)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://user:secret@host/db",
        "postgresql://user:secret/1#2?3@host/db",
        "postgresql://user:[secret@host/db",
        "postgresql://host/db?user=me&password=secret",
        "mysql+pymysql://host/db?PassWd=secret&charset=utf8",
        "postgresql://host/db?sslpassword=secret",
        "mssql+pyodbc://host/db?pwd=secret",
        "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dsecret",
    ],
)
def test_a_password_never_gets_into_a_plan(uri: str) -> None:
    for parse in (parse_options, parse_source):
        with pytest.raises(UsageError, match="password") as refusal:
            parse({"tracking-uri": uri})
        assert "secret" not in f"{refusal.value} {refusal.value.hint}"


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me@host/db?sslmode=require&passfile=/home/me/.pgpass",
        "mssql+pyodbc:///?odbc_connect=Trusted_Connection%3Dyes",
    ],
)
def test_a_query_without_password_is_none(uri: str) -> None:
    assert parse_options({"tracking-uri": uri}).tracking_uri == uri


@pytest.mark.parametrize(
    ("uri", "names", "caseless"),
    [
        ("sqlite:///x.db", "", False),
        ("mysql+pymysql://h/db", "", True),
        ("mysql+pymysql://h/db", "exact", False),
        ("http://h", "caseless", True),
    ],
)
def test_stores_that_ignore_case_get_names_that_differ_in_more(uri: str, names: str, caseless: bool) -> None:
    assert parse_options({"tracking-uri": uri, "names": names}).is_caseless == caseless


def test_the_password_of_a_uri_in_the_environment_is_used_though_the_plan_lacks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cret@db/mlflow")
    assert parse_options({"tracking-uri": "postgresql://me@db/mlflow"}).tracking_uri.startswith(
        "postgresql://me:s3cret"
    )
    assert (
        parse_options({"tracking-uri": "postgresql://me@other/mlflow"}).tracking_uri == "postgresql://me@other/mlflow"
    )


@pytest.mark.parametrize(
    ("whole", "planned"),
    [
        ("postgresql://me:s3cret@db/mlflow", "postgresql://me@db/mlflow"),
        (
            "postgresql://db/mlflow?user=me&password=s3cret&sslmode=require",
            "postgresql://db/mlflow?user=me&sslmode=require",
        ),
        ("mysql+pymysql://db/mlflow?passwd=s3cret", "mysql+pymysql://db/mlflow"),
        ("postgresql://me:s3cret/?#@db/mlflow", "postgresql://me@db/mlflow"),
    ],
)
def test_a_source_takes_the_password_from_the_environment_which_the_plan_lacks(
    monkeypatch: pytest.MonkeyPatch, whole: str, planned: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", whole)
    assert source_of(SourceFlags(source="mlflow"), ()).options == {"tracking-uri": planned}
    assert parse_source({"tracking-uri": planned}).options.tracking_uri == whole
    assert parse_options({"tracking-uri": planned}).tracking_uri == whole
    assert "s3cret" not in parse_options({"tracking-uri": planned}).shown_uri


def test_experiments_are_renamed_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "names.csv"
    file.write_text('ws/one,new/one\n"ws/t,wo",two\n')
    options = parse_options(URI | {"experiment-rename-file": str(file)})
    assert wanted_experiment_name(options, "ws/one", "") == "new/one"
    assert wanted_experiment_name(options, "ws/t,wo", "") == "two"
    assert wanted_experiment_name(options, "ws/three", "") == "ws/three"


@pytest.mark.parametrize(
    ("text", "told"),
    [("one\n", "row 1"), ("a,b\na,c\n", "'a' is there twice"), ("a,c\nb,c\n", "'c' is there twice"), (",b\n", "row 1")],
)
def test_a_file_of_names_that_would_merge_or_lose_experiments_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "names.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=told):
        parse_options(URI | {"experiment-rename-file": str(file)})


def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("backup:1/mlruns").mkdir(parents=True)
    assert parse_source({"tracking-uri": "backup:1/mlruns"}).options.folder == Path("backup:1/mlruns")
