"""What people made of a copy is what is copied on, not what the copy was when it came."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.entities import ExperimentTag, LoggedModelInput, LoggedModelOutput, Metric, Run, ViewType
from msgspec.structs import replace

from shardmig.adapters.base import Want
from shardmig.adapters.mlflow.source import open_source
from shardmig.archive.files import ArchiveFiles
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, Fields, FloatPoints, ProjectId, Selection
from tests.contract.mlflow_source.comparer import PARENT
from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.test_copied_on import log_text, on
from tests.contract.mlflow_source.test_objects_kept import INLINE, MERGE, copy
from tests.unit.archive.runs import paths_in, publish

__all__ = ["copy", "on"]


def test_models_that_people_linked_to_a_copied_run_or_to_one_of_their_own_are_copied_on(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    run = source.create_run("0", run_name="copied").info.run_id
    model = source.create_logged_model("0", "copied", run).model_id
    source.log_outputs(run, [LoggedModelOutput(model, 3)])
    copy.migrate(*INLINE)
    [here] = target.search_runs(["0"])
    [copied] = target.search_logged_models(["0"])
    of_others = target.create_logged_model("0", "of others").model_id
    target.log_outputs(here.info.run_id, [LoggedModelOutput(of_others, 7)])
    target.log_inputs(here.info.run_id, models=[LoggedModelInput(copied.model_id)])
    own = target.create_run("0", run_name="of others").info.run_id
    target.log_inputs(own, models=[LoggedModelInput(copied.model_id)])
    assert set(copy.verify(*INLINE)) == {"equal"}
    on.migrate(*INLINE)
    assert object_differences(copy.target, on.target) == []
    assert set(on.verify(*INLINE)) == {"equal"}


def test_a_version_that_people_made_of_a_copied_run_is_of_the_next_copy_of_that_run(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    log_text(source, source.create_run("0", run_name="copied").info.run_id, "model/MLmodel", "a")
    copy.migrate(*INLINE)
    [here] = target.search_runs(["0"])
    target.create_registered_model("churn")
    target.create_model_version("churn", f"runs:/{here.info.run_id}/model", here.info.run_id)
    on.migrate(*INLINE)
    client = MlflowClient(on.target)
    [next_copy] = client.search_runs(["0"])
    assert client.get_model_version("churn", "1").source == f"runs:/{next_copy.info.run_id}/model"
    assert object_differences(copy.target, on.target) == []
    assert set(on.verify(*INLINE)) == {"equal"}


def test_a_model_that_was_made_anew_is_linked_once_in_the_next_copy(copy: Copy, on: Copy) -> None:
    source = MlflowClient(copy.source)
    run = source.create_run("0", run_name="run").info.run_id
    model = source.create_logged_model("0", "model", run).model_id
    source.log_outputs(run, [LoggedModelOutput(model, 3)])
    copy.migrate(*INLINE)
    source.set_logged_model_tags(model, {"new": "tag"})
    copy.migrate(*INLINE, "--update", "--on-existing", "replace")
    on.migrate(*INLINE)
    assert object_differences(copy.source, on.target) == []
    assert set(on.verify(*INLINE)) == {"equal"}


def test_what_people_changed_of_a_copied_run_is_copied_on(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    run = source.create_run("0", run_name="old", tags={"kept": "a", "gone": "b", "mlflow.note.content": "old"})
    copy.migrate(*INLINE)
    [here] = target.search_runs(["0"])
    target.update_run(here.info.run_id, status="FAILED", name="new")
    target.set_terminated(here.info.run_id, "KILLED", end_time=run.info.start_time + 5)
    target.set_tag(here.info.run_id, "mlflow.note.content", "new")
    target.delete_tag(here.info.run_id, "gone")
    on.migrate(*INLINE)
    [there] = MlflowClient(on.target).search_runs(["0"])
    assert (there.info.run_name, there.info.status) == ("new", "KILLED")
    assert there.info.end_time == run.info.start_time + 5
    assert there.data.tags["mlflow.note.content"] == "new"
    assert "gone" not in there.data.tags
    assert set(on.verify(*INLINE)) == {"equal"}


def test_parents_of_copied_runs_are_copied_on_as_people_set_them(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    first, _ = two_runs(copy.source)
    for name in ("moved", "freed"):
        source.create_run("0", run_name=name, tags={PARENT: first})
    copy.migrate(*INLINE)
    target.set_tag(id_of(copy.target, "moved"), PARENT, id_of(copy.target, "second"))
    target.delete_tag(id_of(copy.target, "freed"), PARENT)
    target.set_tag(id_of(copy.target, "second"), PARENT, id_of(copy.target, "first"))
    reported = on.migrate(*INLINE)
    there = {run.info.run_name: run.data.tags.get(PARENT) for run in _runs(on.target)}
    assert there == {
        "first": None,
        "second": id_of(on.target, "first"),
        "moved": id_of(on.target, "second"),
        "freed": None,
    }
    assert "value-replaced" not in reported
    assert set(on.verify(*INLINE)) == {"equal"}


def test_copied_runs_that_people_deleted_or_restored_are_so_in_the_next_copy(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    for name in ("deleted here", "restored here"):
        source.create_run("0", run_name=name)
    source.delete_run(id_of(copy.source, "restored here"))
    copy.migrate(*INLINE)
    target.restore_run(id_of(copy.target, "restored here"))
    target.delete_run(id_of(copy.target, "deleted here"))
    on.migrate(*INLINE)
    assert stages(on.target) == {"deleted here": "deleted", "restored here": "active"}
    assert set(on.verify(*INLINE)) == {"equal"}


def test_a_tag_that_an_experiment_had_with_another_value_is_copied_on_with_its_own(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    target.create_experiment("shared", tags={"team": "of the copy"})
    source.create_run(source.create_experiment("shared", tags={"team": "of the source"}))
    copy.migrate(*INLINE)
    assert set(copy.verify(*INLINE)) == {"equal"}
    on.migrate(*INLINE)
    assert tags_of(on.target, "shared") == {"team": "of the copy"}
    assert set(on.verify(*INLINE)) == {"equal"}


@pytest.mark.parametrize("options", [(), ("--source-option", "objects=runs")])
def test_tags_of_an_experiment_are_copied_on_as_people_left_them(
    copy: Copy, on: Copy, options: tuple[str, ...]
) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_run(source.create_experiment("team", tags={"changed": "a", "removed": "b"}))
    copy.migrate(*INLINE, *options)
    experiment = target.get_experiment_by_name("team")
    assert experiment is not None
    target._tracking_client.store.set_experiment_tag(experiment.experiment_id, ExperimentTag("changed", "here"))
    target._tracking_client.store.delete_experiment_tag(experiment.experiment_id, "removed")
    on.migrate(*INLINE, *options)
    assert tags_of(on.target, "team") == {"changed": "here"}
    assert set(on.verify(*INLINE)) == {"equal"}


def tags_of(uri: str, experiment: str) -> dict[str, str]:
    found = MlflowClient(uri).get_experiment_by_name(experiment)
    assert found is not None
    return {key: text for key, text in found.tags.items() if not key.startswith("shardmig.")}


def id_of(uri: str, name: str) -> str:
    [run] = [run for run in _runs(uri) if run.info.run_name == name]
    return str(run.info.run_id)


def stages(uri: str) -> dict[str, str]:
    return {run.info.run_name: run.info.lifecycle_stage for run in _runs(uri)}


def _runs(uri: str) -> list[Run]:
    return list(MlflowClient(uri).search_runs(["0"], run_view_type=ViewType.ALL))


def test_a_copy_that_people_renamed_is_copied_on_under_its_first_name_and_found_again(copy: Copy, on: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_registered_model("model", description="described")
    source.create_experiment("team")
    copy.migrate(*INLINE)
    target.rename_registered_model("model", "renamed")
    target.rename_experiment(team_of(copy.target), "renamed")
    assert on.migrate(*INLINE)["renamed-here"] == {"sys/name"}
    third = MlflowClient(on.target)
    assert set(on.verify(*INLINE)) == {"equal"}
    target.update_registered_model("renamed", "changed")
    on.migrate(*MERGE)
    assert third.get_registered_model("model").description == "changed"
    assert [model.name for model in third.search_registered_models()] == ["model"]
    assert team_of(on.target)
    assert set(on.verify(*INLINE)) == {"equal"}


@pytest.mark.parametrize("is_deleted", [True, False])
def test_an_experiment_that_people_deleted_or_restored_is_so_in_the_next_copy(
    copy: Copy, on: Copy, is_deleted: bool
) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    source.create_run(source.create_experiment("team"), run_name="run")
    if not is_deleted:
        source.delete_experiment(team_of(copy.source))
    copy.migrate(*INLINE)
    change = target.delete_experiment if is_deleted else target.restore_experiment
    change(team_of(copy.target))
    on.migrate(*INLINE)
    assert object_differences(copy.target, on.target) == []
    assert set(on.verify(*INLINE)) == {"equal"}


def team_of(uri: str) -> str:
    found = MlflowClient(uri).get_experiment_by_name("team")
    assert found is not None
    return str(found.experiment_id)


def measured(uri: str) -> dict[tuple[str, float], str]:
    """The names of the runs that measured each value of the only logged model."""
    client = MlflowClient(uri)
    [model] = client.search_logged_models(["0"])
    names = {run.info.run_id: run.info.run_name for run in client.search_runs(["0"])}
    return {(one.key, one.value): names[str(one.run_id)] for one in model.metrics or ()}


def two_runs(uri: str) -> tuple[str, str]:
    """Two runs, the one whose id comes first also first by its name."""
    client = MlflowClient(uri)
    first, second = sorted(client.create_run("0").info.run_id for _ in range(2))
    client.update_run(first, name="first")
    client.update_run(second, name="second")
    return first, second


def measure(uri: str, run: str, model: str, key: str, value: float) -> None:
    MlflowClient(uri).log_batch(run, [Metric(key, value, 1, 1, model)])


def test_metrics_of_a_model_that_people_changed_are_merged_into_the_runs_that_measured_them(copy: Copy) -> None:
    first, second = two_runs(copy.source)
    model = MlflowClient(copy.source).create_logged_model("0", "model").model_id
    measure(copy.source, second, model, "loss", 0.5)
    copy.migrate(*INLINE)
    [here] = MlflowClient(copy.target).search_logged_models(["0"])
    MlflowClient(copy.target).set_logged_model_tags(here.model_id, {"of": "others"})
    measure(copy.source, first, model, "acc", 0.7)
    assert "merge-conflict" not in copy.migrate(*MERGE)
    assert measured(copy.target) == {("loss", 0.5): "second", ("acc", 0.7): "first"}


@pytest.mark.parametrize("is_changed", [True, False])
def test_a_copy_whose_evaluations_were_numbered_is_compared_so_and_merged_by_what_they_are(
    copy: Copy, is_changed: bool
) -> None:
    first, second = two_runs(copy.source)
    model = MlflowClient(copy.source).create_logged_model("0", "model").model_id
    measure(copy.source, second, model, "loss", 0.5)
    copy.migrate(*INLINE, "--source-option", "objects=runs")
    numbered = _numbered(copy, model, second)
    load = ["load", "-d", numbered.data, "-f", numbered.files]
    assert execute([*load, *INLINE, "--target", "mlflow", "--mlflow-tracking-uri", copy.target, "--no-progress"]) == 0
    verify = ["verify", *load[1:], *INLINE, "--target", "mlflow", "--mlflow-tracking-uri", copy.target, "--no-progress"]
    assert execute(verify) == 0
    if is_changed:
        [here] = MlflowClient(copy.target).search_logged_models(["0"])
        MlflowClient(copy.target).set_logged_model_tags(here.model_id, {"of": "others"})
        assert execute(verify) == 5
    measure(copy.source, first, model, "acc", 0.7)
    assert "merge-conflict" not in copy.migrate(*MERGE)
    assert measured(copy.target) == {("loss", 0.5): "second", ("acc", 0.7): "first"}
    assert set(copy.verify(*INLINE, code=5 if is_changed else 0)) == ({"equal", "differs"} if is_changed else {"equal"})


def _numbered(copy: Copy, model: str, run: str) -> ArchivePaths:
    """An archive of the model as it was written before evaluations had names."""
    source = open_source({"tracking-uri": copy.source, "objects": "logged-models"})
    [listed] = [one for one in source.list_runs(ProjectId("Default"), Selection()) if one.id == model]
    files = ArchiveFiles(paths_in(copy.folder / "old"), ProjectId("Default"))
    chunks = []
    for piece in source.read_runs([listed], Want(), files):
        chunk = piece.chunk
        if isinstance(chunk, Fields):
            chunk = Fields([replace(field, path=_number(field.path)) for field in chunk.fields])
        elif isinstance(chunk, FloatPoints):
            chunk = FloatPoints(
                [_number(path) for path in chunk.paths], chunk.lengths, chunk.steps, chunk.times_ms, chunk.values
            )
        chunks.append(chunk)
    source.close()
    publish(copy.folder / "old", chunks[1:-1], listed, source="mlflow")
    return paths_in(copy.folder / "old")


def _number(path: str) -> str:
    parts = path.split("/")
    return "/".join([parts[0], "0", *parts[2:]]) if parts[0] == "evaluations" else path
