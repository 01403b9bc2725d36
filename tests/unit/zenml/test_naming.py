"""Names in ZenML: what it takes stays as it is, and no two names become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.conformance.runs import HOSTILE_NAMES
from shardmig.adapters.run_facts import RunFacts
from shardmig.adapters.zenml.naming import MAX_NAME, Naming, loading_name, second_name, wanted_model_name
from shardmig.adapters.zenml.options import parse_options
from shardmig.records import Field, MigrationKey, ProjectId, RunId, RunRef

_KEY = MigrationKey("0123456789abcdef" * 2)
_NAMING = Naming()


@pytest.mark.parametrize("name", ["RUN-1", "a:b", "equals:x", "żółw 🚀", "it's", "a/b", "1a", "x" * MAX_NAME])
def test_ordinary_names_of_versions_stay(name: str) -> None:
    assert _NAMING.version(name) == name


@pytest.mark.parametrize(
    "name",
    ["12", "٣", "latest", "Staging", "", " a", "a ", "two\nlines", "tab\t", "x" * (MAX_NAME + 1), "a~" + "0" * 16],
)
def test_names_that_zenml_refuses_or_reads_otherwise_are_made(name: str) -> None:
    made = _NAMING.version(name)
    assert made != name
    assert 0 < len(made) <= MAX_NAME
    assert not made.isnumeric()
    assert not set(made) & set("\t\n\r\v\f")


def test_a_tag_is_no_uuid() -> None:
    uuid = "12345678-1234-5678-1234-567812345678"
    assert _NAMING.tag("plain") == "plain"
    assert _NAMING.tag(uuid) not in (uuid, uuid.replace("-", ""))
    assert _NAMING.name(uuid) == uuid


@given(st.lists(st.text(max_size=300), min_size=2, max_size=8, unique=True))
def test_no_two_names_become_one(names: list[str]) -> None:
    for naming in (_NAMING, Naming(caseless=True)):
        for rule in (naming.version, naming.tag, naming.name, naming.key, naming.artifact):
            assert len({rule(name) for name in names}) == len(names)
        assert len({naming.version(name).casefold() for name in names}) == len(names) or naming is _NAMING


def test_files_stay_in_the_run_s_folder_and_out_of_ours() -> None:
    for name in (*HOSTILE_NAMES, "shardmig/manifest.json", "Shardmig/x", "..", "", "/etc/passwd"):
        made = _NAMING.artifact(name)
        assert not made.startswith(("/", "."))
        assert ".." not in made.split("/")
        assert made.partition("/")[0].lower() != "shardmig"


def test_names_of_runs_that_are_not_whole_are_nobody_else_s() -> None:
    assert len(loading_name("x" * 400, _KEY)) <= MAX_NAME
    assert loading_name("RUN-1", _KEY).startswith("RUN-1 (loading ")
    assert len(second_name("x" * MAX_NAME, _KEY)) <= MAX_NAME


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "ws/one"),
        ({"name-prefix": "/old/"}, "old/ws/one"),
        ({"model-name-template": "{workspace}/{sys_name}"}, "ws/exp"),
        ({"model-name-template": "{project}"}, "one"),
    ],
)
def test_prefix_and_template_make_the_model_s_name(options: dict[str, str], expected: str) -> None:
    facts = RunFacts(RunRef(project=ProjectId("ws/one"), id=RunId("R")))
    facts.learn([Field("sys/name", "string", "exp")])
    assert wanted_model_name(parse_options(options), facts) == expected


def test_neptune_s_models_have_a_model_of_their_own() -> None:
    facts = RunFacts(RunRef(project=ProjectId("ws/one"), id=RunId("M"), scope="models"))
    assert wanted_model_name(parse_options({}), facts) == "ws/one (models)"
