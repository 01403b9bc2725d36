"""What both generations of Neptune servers are asked by: options, token, projects. Checked before a server is asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardmig.adapters import neptune2, neptune3
from shardmig.adapters.neptune_server import ProjectPage, ServerOptions, credentials_of, visible_projects
from shardmig.errors import AuthFailed, Unavailable, UsageError
from shardmig.records import ProjectId, Selection

Parse = Callable[[Mapping[str, str]], ServerOptions]
BOTH = pytest.mark.parametrize("parse", [neptune2.parse_options, neptune3.parse_options])


def token(**content: str) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


@BOTH
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("colour", "red"),
        ("connections", "0"),
        ("connections", "1000"),
        ("connections", "many"),
        ("requests-per-s", "-1"),
        ("requests-per-s", "fast"),
        ("project-pattern", "("),
        ("project-exclude-pattern", "["),
        ("verify-tls", "maybe"),
        ("allow-http", "1"),
        ("token-file", "/no/such/file"),
        ("ca-file", "/no/such/file"),
    ],
)
def test_a_wrong_option_is_named(parse: Parse, option: str, value: str) -> None:
    with pytest.raises(UsageError, match=option):
        parse({option: value})


@pytest.mark.parametrize(
    ("parse", "option", "value"),
    [
        (neptune2.parse_options, "scopes", "runs,traces"),
        (neptune2.parse_options, "lineage", "yes"),
        (neptune3.parse_options, "lineage", "perhaps"),
        (neptune3.parse_options, "timeout-s", "-1"),
    ],
)
def test_a_wrong_option_of_one_generation_is_named(parse: Parse, option: str, value: str) -> None:
    with pytest.raises(UsageError, match=option):
        parse({option: value})


@BOTH
def test_the_address_of_a_token_without_api_url_is_its_api_address(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_address="https://neptune.example/", api_key="k"))
    found = credentials_of(parse({}))
    assert found.url == "https://neptune.example"
    assert found.token not in repr(found)


@BOTH
@pytest.mark.parametrize("text", ["", "no base64!", "bm90IGpzb24=", token(api_key="k"), token(api_url="file:///etc")])
def test_a_token_that_is_none_is_fatal_and_not_repeated(
    parse: Parse, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", text)
    with pytest.raises(AuthFailed) as raised:
        credentials_of(parse({}))
    assert not text or text not in raised.value.message + raised.value.hint


@BOTH
def test_a_file_outweighs_the_environment(parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_url="https://environment.example"))
    (tmp_path / "token").write_text(token(api_url="https://file.example") + "\n")
    assert credentials_of(parse({"token-file": str(tmp_path / "token")})).url == "https://file.example"


@BOTH
def test_unencrypted_servers_elsewhere_must_be_allowed(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_url="http://neptune.example"))
    with pytest.raises(UsageError, match="not encrypted"):
        credentials_of(parse({}))
    assert credentials_of(parse({"allow-http": "yes"})).url == "http://neptune.example"
    for host in ("127.0.0.1", "localhost", "[::1]"):
        monkeypatch.setenv("NEPTUNE_API_TOKEN", token(api_url=f"http://{host}:5000"))
        assert credentials_of(parse({})).url == f"http://{host}:5000"


@BOTH
def test_projects_are_named_by_selection_else_by_environment_unless_patterns_choose(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEPTUNE_PROJECT", "ws/mine")
    assert parse({}).named_projects(Selection(projects=("ws/b", "ws/a", "ws/b"))) == ["ws/a", "ws/b"]
    assert parse({}).named_projects(Selection()) == ["ws/mine"]
    assert parse({"workspace": "ws"}).named_projects(Selection()) == []
    assert parse({"project-pattern": "x"}).named_projects(Selection()) == []


@BOTH
def test_patterns_are_searched_in_the_name_without_its_workspace(parse: Parse) -> None:
    options = parse({"workspace": "ws", "project-pattern": "^b", "project-exclude-pattern": "old$"})
    wanted = [one for one in ("ws/b", "ws/b-old", "ws/a", "other/b", "ws/cb") if options.wants_project(ProjectId(one))]
    assert wanted == ["ws/b"]


@pytest.mark.parametrize("page", [1, 2, 100])
@pytest.mark.parametrize("is_paging", [True, False])
def test_all_projects_are_seen_however_the_server_pages(page: int, is_paging: bool) -> None:
    names = ["b", "a", "c", "d", "e"]

    def ask(query: Mapping[str, Any]) -> ProjectPage:
        start = query["offset"] if is_paging else 0
        shown = names[start : start + page] if is_paging else names
        entries = [{"name": name, "organizationName": "ws"} for name in shown]
        return msgspec.convert({"entries": entries, "matchingItemCount": len(names)}, ProjectPage)

    assert visible_projects(ask, neptune3.parse_options({})) == [f"ws/{name}" for name in sorted(names)]


def test_a_server_that_hides_projects_is_not_believed() -> None:
    empty = msgspec.convert({"entries": [], "matchingItemCount": 3}, ProjectPage)
    with pytest.raises(Unavailable, match="counts 3"):
        visible_projects(lambda _: empty, neptune3.parse_options({}))
