"""Names in Lightning: kept where they can be, never two alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shardmig.adapters.base import migration_key
from shardmig.adapters.conformance.runs import HOSTILE_NAMES
from shardmig.adapters.litlogger.facts import OWN_TAGS
from shardmig.adapters.litlogger.naming import (
    MAX_KEY,
    LightningNaming,
    colors_of,
    stream_name,
    teamspace_name,
)
from shardmig.records import ProjectId, RunId, RunRef

NAMING = LightningNaming()
NAMES = some.one_of(some.text(max_size=80), some.sampled_from(HOSTILE_NAMES), some.sampled_from(sorted(OWN_TAGS)))


@pytest.mark.parametrize("name", ["loss", "train/loss", "lr (start)", "größe", "a:b", "it's", "x" * 250])
def test_usual_keys_are_kept(name: str) -> None:
    assert NAMING.key(name) == name


@pytest.mark.parametrize(
    "name", ["", " lead", "two\nlines", "e\u0301", "x" * 251, "shardmig.key", "a~0123456789abcdef"]
)
def test_other_keys_are_made(name: str) -> None:
    assert re.search("~[0-9a-f]{16}$", NAMING.key(name))


@given(some.sets(NAMES, max_size=8))
def test_keys_are_never_alike_and_never_ours(names: set[str]) -> None:
    keys = {NAMING.key(name) for name in names}
    assert len(keys) == len(names)
    assert keys.isdisjoint(OWN_TAGS)
    assert all(key.isprintable() and 0 < len(key) <= MAX_KEY for key in keys)


@given(some.sets(NAMES, max_size=8))
def test_artifacts_are_never_alike_and_stay_in_their_folder(names: set[str]) -> None:
    paths = {NAMING.artifact(name) for name in names}
    assert len(paths) == len(names)
    for path in paths:
        assert 0 < len(path) <= LightningNaming.max_path
        assert not {"", ".", ".."} & set(path.split("/"))
        assert not set(path) & set("?#%\\\n\0")
        assert path.split("/")[0].lower() != "shardmig"


@given(some.text(max_size=200), some.text(max_size=200))
def test_experiments_and_teamspaces_have_names_that_lightning_takes(project: str, run: str) -> None:
    key = migration_key(RunRef(project=ProjectId(project), id=RunId(run)))
    for name in (stream_name(RunId(run), key), teamspace_name(ProjectId(project))):
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", name)
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in colors_of(run))


def test_runs_that_would_be_cut_alike_are_told_apart() -> None:
    names = set()
    for project in ("ws/one", "ws/two"):
        for end in "ab":
            run = RunId("x" * 100 + end)
            names.add(stream_name(run, migration_key(RunRef(project=ProjectId(project), id=run))))
    assert len(names) == 4
    assert len({teamspace_name(ProjectId(project)) for project in ("a/b", "a-b", "a_b", "A/b")}) == 4
