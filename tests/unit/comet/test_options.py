"""What the options of both sides may be, and where key, address and workspace come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.comet.options import HOSTED, parse_options
from shardmig.adapters.comet.source.options import parse_options as parse_source
from shardmig.errors import AuthFailed, UsageError


def test_without_settings_the_hosted_service_is_meant() -> None:
    options = parse_options({})
    assert (options.url, options.root) == (HOSTED, "https://www.comet.com")
    with pytest.raises(AuthFailed, match="no Comet API key"):
        options.api_key()


def test_the_environment_comes_before_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".comet.config").write_text(
        "[comet]\napi_key = from-file\nworkspace = team\nurl_override=https://comet.example.com/clientlib/\n"
    )
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path))
    options = parse_options({})
    assert (options.api_key(), options.workspace, options.root) == ("from-file", "team", "https://comet.example.com")
    assert parse_source({}).workspace == "team"
    monkeypatch.setenv("COMET_API_KEY", "from-environment")
    monkeypatch.setenv("COMET_WORKSPACE", "other")
    options = parse_options({})
    assert (options.api_key(), options.workspace) == ("from-environment", "other")
    (tmp_path / "key").write_text("from-key-file\n")
    assert parse_options({"key-file": str(tmp_path / "key")}).api_key() == "from-key-file"


def test_a_configuration_file_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".comet.config").write_text("api_key = without a section\n")
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path))
    with pytest.raises(UsageError, match=r"\.comet\.config"):
        parse_options({})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offlinedir": "x"}, "offlinedir"),
        ({"url": "ftp://x"}, "url must be"),
        ({"url": "https://user:secret@x/clientlib/"}, "without a password"),
        ({"url": "http://comet.example.com/clientlib/"}, "unencrypted"),
        ({"project": "{nothing}"}, "unknown field"),
        ({"project": "{"}, "project"),
        ({"project": ""}, "must not be empty"),
        ({"points-per-upload": "0"}, "at least 1"),
        ({"timeout-s": "-1"}, "timeout-s"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_options(options)


def test_an_unencrypted_server_needs_consent_unless_it_is_this_computer() -> None:
    assert parse_options({"url": "http://localhost:5000/clientlib/"}).root == "http://localhost:5000"
    allowed = {"url": "http://comet.example.com/clientlib/", "allow-http": "yes"}
    assert parse_options(allowed).root == "http://comet.example.com"
