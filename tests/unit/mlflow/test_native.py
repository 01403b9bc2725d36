"""What MLflow's own runs are as fields, and the way back."""

from __future__ import annotations

import pytest

from shardmig.adapters.mlflow.facts import PARENT
from shardmig.adapters.mlflow.native import (
    NativeFacts,
    NativeNaming,
    dataset_fields,
    datasets_of,
    held_fields,
    run_fields,
)
from shardmig.adapters.mlflow.store import Dataset, Experiment, StoredRun
from shardmig.records import Field, ProjectId, RunId, RunRef, TargetRunId

REF = RunRef(project=ProjectId("team/digits"), id=RunId("0a"), parent=RunId("0b"))
EXPERIMENT = Experiment(id="7", name="team/digits", created_ms=5, tags={"owner": "ünï", "a/b": "c"})
RUN = StoredRun(
    id=TargetRunId("0a"),
    experiment_id="7",
    name="first",
    user="eve",
    status="KILLED",
    start_ms=1_000,
    end_ms=1_500,
    artifact_uri="mlflow-artifacts:/7/0a/artifacts",
    tags={PARENT: "0b", "mlflow.runName": "first", "params/odd": "a tag", "long": "t" * 9000, "shardmig.own": "theirs"},
    params={"lr": "0.1", "params/lr": "0.2"},
    is_deleted=True,
)


def facts_of(run: StoredRun) -> NativeFacts:
    facts = NativeFacts(REF)
    facts.learn(run_fields(run, EXPERIMENT))
    return facts


def test_the_facts_of_a_run_lead_back_to_what_they_were() -> None:
    facts = facts_of(RUN)
    assert (facts.name, facts.user, facts.status, facts.start_ms, facts.end_ms(9)) == (
        "first",
        "eve",
        "KILLED",
        1000,
        1500,
    )
    assert facts.is_deleted
    assert facts.experiment_tags == EXPERIMENT.tags


def test_a_run_without_an_end_has_none_whatever_its_points_say() -> None:
    endless = StoredRun(
        id=RUN.id,
        experiment_id="7",
        name="x",
        user="",
        status="FINISHED",
        start_ms=None,
        end_ms=None,
        artifact_uri="",
        tags={},
    )
    assert facts_of(endless).end_ms(12_345) is None
    assert facts_of(endless).start_ms == 0


def test_tags_go_back_under_their_own_keys_with_the_new_parent() -> None:
    tags = facts_of(RUN).tags(NativeNaming(), TargetRunId("new"))
    assert tags == {PARENT: "new", "params/odd": "a tag", "long": "t" * 8000}
    assert facts_of(RUN).tags(NativeNaming(), None)[PARENT] == "0b"
    assert [finding.code for finding in facts_of(RUN).findings(None)] == ["own-ids", "parent-not-here"]


def test_what_tags_cannot_be_is_reported() -> None:
    naming = NativeNaming()
    codes = {field.path: [one.code for one in naming.findings(field)] for field in run_fields(RUN, EXPERIMENT)}
    assert {path: found for path, found in codes.items() if found} == {
        "tags/long": ["tag-truncated"],
        "tags/shardmig.own": ["reserved-tag"],
    }


def test_a_tag_that_was_changed_in_the_copy_is_never_covered_up() -> None:
    held = [field for field in run_fields(RUN, EXPERIMENT) if not NativeNaming().is_param(field)]
    copy = StoredRun(
        id=TargetRunId("new"),
        experiment_id="1",
        name="first",
        user="eve",
        status="KILLED",
        start_ms=1_000,
        end_ms=1_500,
        artifact_uri="",
        tags=facts_of(RUN).tags(NativeNaming(), None),
    )
    assert sorted(held_fields(held, copy), key=lambda field: field.path) == sorted(held, key=lambda field: field.path)
    changed = StoredRun(**{name: getattr(copy, name) for name in copy.__struct_fields__} | {"tags": {"long": "other"}})
    found = {field.path: field.value for field in held_fields(held, changed)}
    assert found["tags/long"] == "other"
    assert "tags/params/odd" not in found


@pytest.mark.parametrize(
    "datasets",
    [
        [],
        [
            Dataset(name="b", digest="1"),
            Dataset(name="a", digest="2", schema="s" * 9000, tags={"x/y": "ü", "": "empty"}),
        ],
        [Dataset(name=f"{number:02}", digest="d", profile="p") for number in range(12)],
    ],
    ids=["none", "two", "more than nine"],
)
def test_datasets_survive_being_fields(datasets: list[Dataset]) -> None:
    assert datasets_of(dataset_fields(datasets)) == sorted(datasets, key=lambda one: one.name)


@pytest.mark.parametrize("name", ["lr", "params/lr", "a--0123456789abcdef", "k" * 250, "ключ/ü"])
def test_keys_go_back_as_they_were(name: str) -> None:
    naming = NativeNaming()
    assert naming.key(f"params/{name}") == naming.key(f"metrics/{name}") == name


@pytest.mark.parametrize(
    "path", ["plain.txt", "with:colon", "ends.", " space", "100%.txt", "a/it's & co.bin", "~0123456789abcdef"]
)
def test_artifacts_go_back_as_they_were(path: str) -> None:
    assert NativeNaming().artifact(f"artifacts/{path}") == path


@pytest.mark.parametrize(
    "path", ["../up", "/absolute", "a//b", "shardmig/manifest.json", "a#b", "50%25.txt", "nul\0", "x" * 256]
)
def test_artifacts_that_no_server_takes_get_a_name_of_their_own(path: str) -> None:
    made = NativeNaming().artifact(f"artifacts/{path}")
    assert made != path
    assert "/" not in made
    assert made == NativeNaming().artifact(f"artifacts/{path}")


def test_only_params_are_params() -> None:
    naming = NativeNaming()
    assert naming.is_param(Field("params/lr", "string", "0.1"))
    assert not naming.is_param(Field("tags/lr", "string", "0.1"))
    assert not naming.is_param(Field("sys/name", "string", "x"))
