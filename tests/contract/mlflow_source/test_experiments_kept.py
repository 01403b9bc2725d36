"""What experiments, logged models and datasets get later reaches their copies, and what people have there is not deleted."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.plain_traces import make_trace
from tests.contract.mlflow_source.test_objects_kept import INLINE, MERGE, copy
from tests.servers.mlflow import MlflowServer

__all__ = ["copy"]


def test_an_experiment_of_others_is_not_deleted_because_one_of_its_name_is_in_the_source(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.delete_experiment(source.create_experiment("shared", tags={"owner": "us"}))
    shared = target.create_experiment("shared", tags={"owner": "them"})
    theirs = target.create_run(shared).info.run_id
    for _ in range(2):
        assert copy.failing(*INLINE) == {"shared"}
        there = target.get_experiment(shared)
        assert (there.lifecycle_stage, there.tags) == ("active", {"owner": "them"})
        assert target.get_run(theirs).info.lifecycle_stage == "active"


@pytest.mark.parametrize("what", ["run", "logged model", "trace"])
def test_a_copy_with_what_others_made_in_it_is_not_deleted_when_its_source_is(copy: Copy, what: str) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    experiment = source.create_experiment("shared")
    source.create_run(experiment)
    copy.migrate(*INLINE)
    shared = named(target, "shared").experiment_id
    match what:
        case "run":
            target.create_run(shared)
        case "logged model":
            target.create_logged_model(shared)
        case _:
            make_trace(target, shared, 7)
    source.delete_experiment(experiment)
    assert "shared" in copy.failing(*MERGE)
    assert target.get_experiment(shared).lifecycle_stage == "active"


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
@pytest.mark.parametrize("what", ["nothing", "logged model", "trace"])
def test_only_an_experiment_that_holds_nothing_of_others_is_deleted_in_a_server(
    copy: Copy, mlflow_http: MlflowServer, what: str
) -> None:
    copy = Copy(copy.folder, copy.source, mlflow_http.uri)
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    name = f"shared, with {what} of others"
    source.delete_experiment(source.create_experiment(name))
    shared = target.create_experiment(name)
    if what == "trace":
        make_trace(target, shared, 7_000_021)
    elif what == "logged model":
        target.create_logged_model(shared)
    outcomes = copy._told(copy.migration(*INLINE, "-p", name, "--max-attempts", "1"), 0 if what == "nothing" else 3)
    assert [one["state"] for one in outcomes["outcomes"]["load"]] == ["done" if what == "nothing" else "failed"]
    assert target.get_experiment(shared).lifecycle_stage == ("deleted" if what == "nothing" else "active")


def test_an_experiment_that_was_deleted_since_it_was_copied_is_deleted_by_a_merge(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    experiment = source.create_experiment("old")
    source.create_run(experiment)
    copy.migrate(*INLINE)
    source.delete_experiment(experiment)
    copy.migrate(*MERGE)
    assert named(target, "old").lifecycle_stage == "deleted"
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_an_experiment_that_was_deleted_between_two_equal_merges_is_deleted_after_its_runs(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    experiment = source.create_experiment("old")
    run = source.create_run(experiment).info.run_id
    copy.migrate(*MERGE)
    source.log_param(run, "more", "came")
    source.create_run(experiment)
    source.delete_experiment(experiment)
    copy.migrate(*MERGE)
    assert named(target, "old").lifecycle_stage == "deleted"
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_a_shared_experiment_keeps_the_values_of_its_own_tags_whatever_is_copied(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    experiment = source.create_experiment("shared", tags={"owner": "us", "goal": "one"})
    shared = target.create_experiment("shared", tags={"owner": "them", "mood": "good"})
    assert "tags/owner" in copy.migrate(*INLINE)["changed-by-mlflow"]
    for goal, on_existing in (("two", "merge"), ("three", "replace"), ("four", "merge")):
        source.set_experiment_tag(experiment, "goal", goal)
        copy.migrate(*INLINE, "--update", "--on-existing", on_existing)
        tags = target.get_experiment(shared).tags
        own = {key: text for key, text in tags.items() if not key.startswith("shardmig.")}
        assert own == {"owner": "them", "goal": goal, "mood": "good"}


def test_an_experiment_that_was_restored_is_active_after_a_merge_and_takes_new_runs(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    experiment = source.create_experiment("back")
    source.create_run(experiment, run_name="old")
    source.delete_experiment(experiment)
    copy.migrate(*INLINE)
    source.restore_experiment(experiment)
    source.create_run(experiment, run_name="new")
    copy.migrate(*MERGE)
    there = named(target, "back")
    assert there.lifecycle_stage == "active"
    assert sorted(run.info.run_name for run in target.search_runs([there.experiment_id])) == ["new", "old"]
    assert set(copy.verify(*INLINE)) == {"equal"}
    source.set_experiment_tag(experiment, "more", "came")
    copy.migrate(*MERGE)
    assert named(target, "back").lifecycle_stage == "active"


def test_params_that_a_model_got_after_it_was_copied_come_with_a_merge(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    model = source.create_logged_model("0", "model", params={"first": "1"}).model_id
    copy.migrate(*INLINE)
    source.log_model_params(model, {"second": "2"})
    for _ in range(2):
        copy.migrate(*MERGE)
        [there] = MlflowClient(copy.target).search_logged_models(["0"])
        assert there.params == {"first": "1", "second": "2"}
    assert object_differences(copy.source, copy.target) == []


def test_records_that_were_upserted_again_unchanged_are_equal_after_a_merge(copy: Copy) -> None:
    store = MlflowClient(copy.source)._tracking_client.store
    own = store.create_dataset("data", {}, [])
    old = {"inputs": {"q": "old"}, "outputs": {"a": 1}, "expectations": {"e": "x"}}
    store.upsert_dataset_records(own.dataset_id, [old])
    copy.migrate(*INLINE)
    store.upsert_dataset_records(own.dataset_id, [old, {"inputs": {"q": "new"}}])
    copy.migrate(*MERGE)
    assert set(copy.verify(*INLINE)) == {"equal"}


def named(client: MlflowClient, name: str) -> Any:
    """The experiment of that name, deleted or not."""
    return client.get_experiment_by_name(name)
