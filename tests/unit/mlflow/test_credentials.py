"""Who calls a server: from a file, from the environment of one side, or as MLflow's own client is told."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from shardmig import errors
from shardmig.adapters.mlflow.credentials import Credentials, Login, Side, credentials_of
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.options import parse_options
from tests.servers.scripted import Server, scripted_server

__all__ = ["scripted_server"]


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        (
            {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "pä", "MLFLOW_TRACKING_TOKEN": "t"},
            basic("u:pä"),
        ),
        ({"SHARDMIG_SOURCE_MLFLOW_TRACKING_TOKEN": "own", "MLFLOW_TRACKING_TOKEN": "t"}, "Bearer own"),
        (
            {
                "SHARDMIG_SOURCE_MLFLOW_TRACKING_TOKEN": "own",
                "MLFLOW_TRACKING_USERNAME": "u",
                "MLFLOW_TRACKING_PASSWORD": "p",
            },
            "Bearer own",
        ),
        ({"SHARDMIG_TARGET_MLFLOW_TRACKING_TOKEN": "other", "MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
    ],
)
def test_each_side_has_its_own_variables_and_else_mlflows(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], header: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Login(credentials_of("source")).headers().get("Authorization") == header


def test_user_and_password_in_the_uri_count_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "https://u:p%C3%A4@host"
    assert Login(credentials_of("target"), uri).headers() == {"Authorization": basic("u:pä")}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mine")
    assert Login(credentials_of("target"), uri).headers() == {"Authorization": basic("me:mine")}


def test_an_unsupported_way_to_sign_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    with pytest.raises(errors.UsageError, match="SIGV4"):
        credentials_of("target")


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_file_says_all_and_the_environment_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: Side
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    file = tmp_path / "credentials.toml"
    file.write_text('username = "u"\npassword = "p"\nworkspace = "w"\n')
    headers = Login(credentials_of(side, str(file))).headers()
    assert headers == {"Authorization": basic("u:p"), "X-MLFLOW-WORKSPACE": "w"}


@pytest.mark.parametrize("text", ["tokn = 'secret'", "token = 'secret", "token = 17", ""])
def test_a_file_that_is_wrong_is_refused_without_telling_what_it_holds(tmp_path: Path, text: str) -> None:
    file = tmp_path / "credentials.toml"
    if text:
        file.write_text(text)
    with pytest.raises(errors.UsageError) as refused:
        credentials_of("source", str(file))
    assert str(file) in refused.value.message
    assert "secret" not in refused.value.message


def test_a_command_for_headers_is_executed_once_in_five_minutes(scripted_server: Server, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"open({str(count)!r}, 'a').write('x'); print('Proxy-Token: abc'); print('Cookie: a=b:c')"
    login = Login(Credentials(token="t", header_command=[sys.executable, "-c", script]))
    client = HttpClient(scripted_server.uri, login, connections=1, timeout_s=5)
    for _ in range(3):
        client.call("GET", "/api", object)
    client.close()
    headers = scripted_server.asked[2][2]
    assert (headers["Proxy-Token"], headers["Cookie"], headers["Authorization"]) == ("abc", "a=b:c", "Bearer t")
    assert count.read_text() == "x"


@pytest.mark.parametrize("script", ["raise SystemExit('no ticket')", "print('nonsense')"])
def test_a_command_that_gives_no_headers_ends_the_migration_and_says_why(script: str) -> None:
    with pytest.raises(errors.AuthFailed, match="header-command"):
        Login(Credentials(header_command=[sys.executable, "-c", script])).headers()


def test_a_certificate_that_cannot_be_read_is_a_usage_error() -> None:
    with pytest.raises(errors.UsageError, match="certificate"):
        Login(Credentials(certificate_authority="/nonexistent.pem")).tls()


def test_a_target_takes_a_credentials_file() -> None:
    options = parse_options({"tracking-uri": "http://h", "credentials-file": "/somewhere.toml"})
    assert options.credentials_file == "/somewhere.toml"


def test_a_token_that_ends_with_a_line_end_is_the_token() -> None:
    assert Login(Credentials(token="t\n")).headers() == {"Authorization": "Bearer t"}


def test_a_header_that_would_hold_a_line_end_is_refused_without_telling_it() -> None:
    with pytest.raises(errors.UsageError, match="Authorization") as refused:
        Login(Credentials(token="sec\nret"))
    assert "ret" not in refused.value.message
    with pytest.raises(errors.AuthFailed, match="none may hold"):
        Login(Credentials(header_command=["printf", "Cookie: sec\x01ret"])).headers()
