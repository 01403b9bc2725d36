"""Options, and the key that is none."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shardmig.adapters.litlogger.histories import times_of
from shardmig.adapters.litlogger.options import (
    SourceOptions,
    TargetOptions,
    authorization,
    parse_options,
    parse_source_options,
)
from shardmig.errors import AuthFailed, BadInput, UsageError
from shardmig.records import NO_TIME


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLOUD_URL", "USER_ID", "API_KEY", "AUTH_TOKEN"):
        monkeypatch.delenv(f"LIGHTNING_{name}", raising=False)
    monkeypatch.setenv("LIGHTNING_CREDENTIAL_PATH", str(tmp_path / "nothing.json"))


def test_the_address_comes_from_the_option_else_the_environment_else_the_vendor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parse_options({}).cloud_url == "https://lightning.ai"
    monkeypatch.setenv("LIGHTNING_CLOUD_URL", "https://lightning.example/")
    assert parse_options({}).cloud_url == "https://lightning.example"
    assert parse_source_options({"cloud-url": "http://127.0.0.1:7"}).cloud_url == "http://127.0.0.1:7"


@pytest.mark.parametrize(
    "options",
    [
        {"teamspaces": "x"},
        {"cloud-url": "ftp://lightning.ai"},
        {"cloud-url": "https://user:secret@lightning.ai"},
        {"cloud-url": "http://lightning.ai"},
        {"requests-per-s": "-1"},
        {"requests-per-s": "inf"},
        {"timeout-s": "0"},
        {"artifact-workers": "0"},
        {"most-media": "-1"},
        {"api-key": "secret"},
    ],
)
def test_wrong_options_are_refused_without_showing_secrets(options: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refused:
        parse_options(options)
    assert "secret" not in f"{refused.value.message} {refused.value.hint}"


def test_a_key_is_found_in_the_environment_first_and_then_in_the_file_of_the_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(AuthFailed):
        authorization(parse_options({}))
    (tmp_path / "nothing.json").write_text('{"user_id": "u", "api_key": "k", "auth_token": null}')
    assert authorization(parse_options({})) == "Basic dTpr"
    monkeypatch.setenv("LIGHTNING_API_KEY", "other")
    assert authorization(parse_options({})) == "Bearer other"
    monkeypatch.setenv("LIGHTNING_AUTH_TOKEN", "token")
    assert authorization(parse_options({})) == "Bearer token"


@pytest.mark.parametrize("content", ["", "secret", '["secret"]', '{"api_key": 5}'])
def test_a_file_without_a_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(AuthFailed) as refused:
        authorization(parse_options({"key-file": str(tmp_path / "key")}))
    assert "secret" not in str(refused.value)


def test_times_of_the_api_are_read_to_the_millisecond() -> None:
    texts = ["2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.123+00:00", "1969-12-31T23:59:59.999999Z", ""]
    assert times_of(texts).tolist() == [1_700_000_000_123, 1_700_000_000_123, -1, NO_TIME]
    assert times_of(["2023-11-14T22:13:20.123456789Z"]).tolist() == [1_700_000_000_123]
    assert times_of(["9999-12-31T23:59:59.999Z", "1000-01-01T00:00:00Z"]).tolist() == [253402300799999, -30610224000000]
    with pytest.raises(BadInput):
        times_of(["yesterday"])


def test_every_option_has_its_line_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "litlogger.md").read_text(encoding="utf-8")
    for kind in (TargetOptions, SourceOptions):
        for field in msgspec.structs.fields(kind):
            assert f"| `{field.encode_name}`" in page
