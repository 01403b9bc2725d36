"""The options of ZenML as target and source."""

from __future__ import annotations

import pytest

from shardmig.adapters.zenml.options import parse_options, parse_source_options
from shardmig.errors import UsageError


def test_without_options_zenml_s_own_configuration_decides() -> None:
    options = parse_options({})
    assert (options.store_url, options.project, options.artifact_store) == ("", "", "")


@pytest.mark.parametrize(
    "texts",
    [
        {"no-such-option": "1"},
        {"store-url": "mysql://root:secret@host/zenml"},
        {"store-url": "postgresql://host/zenml"},
        {"store-url": "folder/zenml.db"},
        {"model-name-template": "{run_id}"},
        {"model-name-template": "{project"},
        {"artifacts": "some"},
        {"artifact-workers": "0"},
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(texts: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refused:
        parse_options(texts)
    assert "secret" not in refused.value.message


def test_a_source_has_no_options_of_a_target() -> None:
    assert parse_source_options({"store-url": "https://zenml.example"}).store_url == "https://zenml.example"
    with pytest.raises(UsageError):
        parse_source_options({"name-prefix": "x"})


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, False),
        ({"store-url": "sqlite:////x/zenml.db"}, False),
        ({"store-url": "mysql://host/zenml"}, True),
        ({"store-url": "mysql://host/zenml", "names": "exact"}, False),
        ({"names": "caseless"}, True),
    ],
)
def test_mysql_does_not_tell_names_by_case(texts: dict[str, str], expected: bool) -> None:
    assert parse_options(texts).is_caseless is expected
