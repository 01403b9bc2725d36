"""Objects are planned after what they refer to, and their keys tell what they are."""

from __future__ import annotations

from typing import get_args

import pytest

from shardmig.adapters.base import migration_key, scope_of
from shardmig.adapters.mlflow.source.options import parse_options
from shardmig.adapters.mlflow.source.wanted import OBJECTS
from shardmig.errors import UsageError
from shardmig.planner import cut
from shardmig.records import ProjectId, RunId, RunRef, Scope


def _entity(scope: Scope, id_: str = "x", *, parent: str | None = None, archived: bool = False) -> RunRef:
    above = None if parent is None else RunId(parent)
    return RunRef(project=ProjectId("p"), id=RunId(id_), scope=scope, parent=above, archived=archived)


def test_shards_follow_the_order_of_references() -> None:
    entities = [
        _entity("datasets"),
        _entity("experiments", "deleted", archived=True),
        _entity("traces"),
        _entity("registered_models", "a copy", parent="x"),
        _entity("registered_models"),
        _entity("prompts"),
        _entity("logged_models"),
        _entity("runs", "child", parent="x"),
        _entity("runs"),
        _entity("experiments"),
    ]
    shards = list(cut(entities))
    order = [
        run.id if run.id != "x" else run.scope for shard in sorted(shards, key=lambda s: s.depth) for run in shard.runs
    ]
    assert order == [
        "experiments",
        "runs",
        "child",
        "logged_models",
        "prompts",
        "registered_models",
        "a copy",
        "traces",
        "datasets",
        "deleted",
    ]


def test_runs_alone_begin_at_depth_0() -> None:
    assert [shard.depth for shard in cut([_entity("runs"), _entity("runs", "child", parent="x")])] == [0, 1]


@pytest.mark.parametrize("scope", get_args(Scope))
def test_a_key_tells_the_scope_that_only_mlflow_has(scope: Scope) -> None:
    key = migration_key(_entity(scope))
    assert key.isalnum()
    assert len(key) <= 50
    assert scope_of(key) == (scope if scope not in ("models", "model_versions") else "runs")


def test_objects_are_chosen_by_the_names_that_users_know() -> None:
    options = parse_options({"tracking-uri": "http://localhost", "objects": "runs, logged-models"})
    assert options.wanted.scopes == {"runs", "logged_models"}
    assert parse_options({"tracking-uri": "http://localhost"}).wanted.scopes == set(OBJECTS.values())


def test_an_unknown_class_of_objects_is_refused() -> None:
    with pytest.raises(UsageError, match="webhooks"):
        parse_options({"tracking-uri": "http://localhost", "objects": "webhooks"})
