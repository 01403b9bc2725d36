"""Options of the Neptune 3.x source are checked before a server is asked."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from shardmig.adapters.neptune3.options import credentials_of, parse_options
from shardmig.errors import AuthFailed, UsageError


def token(**content: str) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("colour", "red", "colour"),
        ("lineage", "perhaps", "lineage"),
        ("connections", "0", "positive"),
        ("connections", "many", "connections"),
        ("timeout-s", "-1", "positive"),
        ("project-pattern", "(", "not a regular expression"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_options({option: value})


def test_the_address_of_a_token_without_api_url_is_its_api_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_address="https://neptune.example/", api_key="k"))
    found = credentials_of(parse_options({}))
    assert found.url == "https://neptune.example"
    assert found.token not in repr(found)


@pytest.mark.parametrize("text", ["", "no base64!", "bm90IGpzb24=", token(api_key="k"), token(api_url="file:///etc")])
def test_a_token_that_is_none_is_fatal_and_not_repeated(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", text)
    with pytest.raises(AuthFailed) as raised:
        credentials_of(parse_options({}))
    assert not text or text not in raised.value.message + raised.value.hint


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(UsageError, match="token-file"):
        credentials_of(parse_options({"token-file": missing}))
    with pytest.raises(UsageError, match="ca-file"):
        parse_options({"ca-file": missing}).verify()


def test_unencrypted_servers_elsewhere_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_url="http://neptune.example"))
    with pytest.raises(UsageError, match="unencrypted"):
        credentials_of(parse_options({}))
    assert credentials_of(parse_options({"allow-http": "yes"})).url == "http://neptune.example"
    for host in ("127.0.0.1", "localhost", "[::1]"):
        monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_url=f"http://{host}:5000"))
        assert credentials_of(parse_options({})).url == f"http://{host}:5000"
