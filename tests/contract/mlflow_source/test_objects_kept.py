"""What somebody has in a copy, or only MLflow can hold, is kept by whatever is copied later, or the loss is told."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback, Metric
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from shardmig.archive.namespace import open_archive
from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.objects_comparer import object_differences
from tests.contract.mlflow_source.plain_traces import _span, make_trace
from tests.servers.mlflow import MlflowServer

INLINE = ("--engine", "inline")
MERGE = (*INLINE, "--update", "--on-existing", "merge")
TRACE = f"tr-{1:032x}"
HUMAN = AssessmentSource("HUMAN", "somebody")


@pytest.fixture
def copy(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Two empty databases."""
    monkeypatch.chdir(tmp_path)
    for name in ("source.db", "target.db"):
        (tmp_path / name).write_bytes(sqlite_template.read_bytes())
    return Copy(tmp_path, f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/target.db")


@pytest.mark.parametrize("on_existing", ["fail", "skip"])
def test_a_model_whose_run_comes_later_is_not_made_anew_over_what_others_added(copy: Copy, on_existing: str) -> None:
    copied_without_its_run(copy)
    target = MlflowClient(copy.target)
    target.create_model_version("churn", "s3://bucket/of/others")
    target.set_registered_model_alias("churn", "champion", "2")
    copy.migrate(*INLINE, "--on-existing", on_existing, code=3)
    assert versions(copy.target) == {1: "", 2: "s3://bucket/of/others"}
    assert str(target.get_registered_model("churn").aliases["champion"]) == "2"


def test_a_merge_keeps_what_others_added_and_tells_which_reference_was_not_made(copy: Copy) -> None:
    copied_without_its_run(copy)
    MlflowClient(copy.target).create_model_version("churn", "s3://bucket/of/others")
    reported = copy.migrate(*INLINE, "--on-existing", "merge")
    assert reported["reference-not-made"] == {"versions/1/run/id"}
    assert versions(copy.target) == {1: "", 2: "s3://bucket/of/others"}
    assert "merged" not in copy.migrate(*INLINE, "--on-existing", "merge")


def test_replace_makes_a_model_anew_whatever_others_added(copy: Copy) -> None:
    run = copied_without_its_run(copy)
    MlflowClient(copy.target).create_model_version("churn", "s3://bucket/of/others")
    copy.migrate(*INLINE, "--on-existing", "replace")
    [version] = MlflowClient(copy.target).search_model_versions("name = 'churn'")
    assert MlflowClient(copy.target).get_run(str(version.run_id)).data.tags["shardmig.run_id"] == run


def test_a_trace_whose_run_comes_later_keeps_what_people_said_of_the_copy(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    run = source.create_run("0").info.run_id
    make_trace(source, "0", 1)
    source._tracking_client.store.link_traces_to_run([TRACE], run)
    copy.migrate(*INLINE, "--source-option", "objects=experiments,traces")
    say(copy.target, value="of the copy")
    copy.migrate(*INLINE, code=3)
    assert said(copy.target) == ["of the copy"]
    copy.migrate(*INLINE, "--on-existing", "merge")
    assert said(copy.target) == ["of the copy"]
    [there] = MlflowClient(copy.target).search_runs(["0"])
    store = MlflowClient(copy.target)._tracking_client.store
    assert list(store.search_entities_by_source(TRACE, "trace", "run")) == [there.info.run_id]


def test_a_dataset_whose_experiment_comes_later_keeps_the_records_of_others_and_is_linked(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    experiment = source.create_experiment("later")
    own = source._tracking_client.store.create_dataset("data", {}, [experiment])
    source._tracking_client.store.upsert_dataset_records(own.dataset_id, [{"inputs": {"q": "own"}}])
    copy.migrate(*INLINE, "--source-option", "objects=datasets")
    store = MlflowClient(copy.target)._tracking_client.store
    [there] = store.search_datasets()
    store.upsert_dataset_records(there.dataset_id, [{"inputs": {"q": "of others"}}])
    copy.migrate(*INLINE)
    [still] = store.search_datasets()
    assert still.dataset_id == there.dataset_id
    records, _ = store._load_dataset_records(there.dataset_id, max_results=9)
    assert sorted(one.inputs["q"] for one in records) == ["of others", "own"]
    assert len(store.get_dataset_experiment_ids(there.dataset_id)) == 1
    assert "merged" not in copy.migrate(*INLINE)


def test_a_merge_takes_nothing_away_from_a_trace_that_people_spoke_of(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    make_trace(source, "0", 1)
    copy.migrate(*INLINE)
    say(copy.target, value="of the copy")
    say(copy.source, value="of the source")
    source.set_trace_tag(TRACE, "new", "tag")
    source._tracking_client.store.log_spans("0", [_span(TRACE, 1, 77)])
    with refusing(copy, "DELETE", "trace_info", "1"):
        reported = copy.migrate(*MERGE)
    assert "merged" in reported
    assert "merge-conflict" not in reported
    assert said(copy.target) == ["of the copy", "of the source"]
    trace = MlflowClient(copy.target).get_trace(TRACE)
    assert (trace.info.tags["new"], len(trace.data.spans)) == ("tag", 7)
    assert "merged" not in copy.migrate(*MERGE)


def test_a_merge_that_was_cut_is_gone_on_with_and_is_no_conflict(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    source.create_registered_model("churn", {"owner": "a"}, "first")
    source.create_model_version("churn", "s3://bucket/1", description="one")
    source.set_registered_model_alias("churn", "champion", "1")
    copy.migrate(*INLINE)
    source.update_registered_model("churn", "second")
    source.set_registered_model_tag("churn", "owner", "b")
    source.update_model_version("churn", "1", "changed")
    source.create_model_version("churn", "s3://bucket/2")
    source.set_registered_model_alias("churn", "challenger", "2")
    with refusing(copy, "INSERT", "registered_model_aliases", "NEW.alias = 'challenger'"):
        assert copy.failing(*MERGE) == {"churn"}
    source.set_registered_model_tag("churn", "owner", "c")
    reported = copy.migrate(*MERGE)
    assert "merge-conflict" not in reported
    assert object_differences(copy.source, copy.target) == []
    target = MlflowClient(copy.target)
    assert target.get_registered_model("churn").tags["shardmig.merging"] == " "
    target.set_registered_model_tag("churn", "owner", "of the copy")
    source.set_registered_model_tag("churn", "owner", "d")
    assert copy.migrate(*MERGE, code=3)["merge-conflict"] == {"tags/owner"}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_merge_follows_a_version_that_lost_its_stage(copy: Copy) -> None:
    source = MlflowClient(copy.source)
    source.create_registered_model("churn")
    source.create_model_version("churn", "s3://bucket/1")
    source.transition_model_version_stage("churn", "1", "Production")
    copy.migrate(*INLINE)
    source.transition_model_version_stage("churn", "1", "None")
    assert "merge-conflict" not in copy.migrate(*MERGE)
    assert object_differences(copy.source, copy.target) == []


VALUES: list[Any] = [math.nan, -math.inf, 3, [1, 2], 2**53 + 1, {"a": [math.nan, "\ud800"]}, "\udcff"]


def test_values_of_assessments_are_exact_between_databases(copy: Copy) -> None:
    make_trace(MlflowClient(copy.source), "0", 1)
    for number, value in enumerate(VALUES):
        say(copy.source, name=f"f{number}", value=value)
        store_of(copy.source).create_assessment(Expectation(f"e{number}", value, HUMAN, TRACE))
    error = AssessmentError("E", "why", "trace " * 500)
    store_of(copy.source).create_assessment(Feedback("failed", None, error, HUMAN, TRACE))
    reported = copy.migrate(*INLINE)
    assert "changed-by-mlflow" not in reported
    assert assessments(copy.target) == assessments(copy.source)
    assert set(copy.verify(*INLINE)) == {"equal"}


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
def test_what_a_server_cannot_take_is_told_and_fails_one_trace_at_most(copy: Copy, mlflow_http: MlflowServer) -> None:
    copy = Copy(copy.folder, copy.source, mlflow_http.uri)
    client = MlflowClient(copy.source)
    experiment = client.create_experiment("what a server cannot take")
    numbers = range(7_000_001, 7_000_004)
    for number in numbers:
        make_trace(client, experiment, number)
    first, second, third = (f"tr-{number:032x}" for number in numbers)
    for number, value in enumerate(VALUES):
        say(copy.source, trace=first, name=f"f{number}", value=value)
    large = _span(second, numbers[1], 5)
    large._span._attributes = {**(large._span.attributes or {}), "large": str(2**64)}  # as JSON
    store_of(copy.source).log_spans(experiment, [large])
    chosen = ("--source-option", "objects=experiments,traces", "-p", "what a server cannot take", "--max-attempts", "1")
    outcomes = copy._told(copy.migration(*INLINE, *chosen), 3)["outcomes"]["load"]
    states = {one["run"]["id"]: one["state"] for one in outcomes}
    assert (states[first], states[second], states[third]) == ("done", "failed", "done")
    findings = [finding for one in outcomes for finding in one["findings"] if finding["code"] == "changed-by-mlflow"]
    assert {one["field"].rpartition("/")[2] for one in findings} == {"value", "json"}
    assert len([one for one in copy.verify(*INLINE, code=5) if one != "equal"]) == 1


def test_nan_of_a_logged_model_is_no_zero_of_its_run(copy: Copy) -> None:
    client = MlflowClient(copy.source)
    run = client.create_run("0").info.run_id
    model = client.create_logged_model("0", "model", run)
    points = [Metric("loss", value, 7, step, model.model_id) for step, value in enumerate((math.nan, 0.0, 0.5))]
    client.log_batch(run, points)
    copy.migrate(*INLINE)
    [there] = MlflowClient(copy.target).search_runs(["0"])
    history = MlflowClient(copy.target).get_metric_history(there.info.run_id, "loss")
    assert sorted((one.step, repr(one.value)) for one in history) == [(0, "nan"), (1, "0.0"), (2, "0.5")]
    assert object_differences(copy.source, copy.target) == []
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_lone_surrogates_of_records_are_kept_and_those_of_spans_fail_one_trace(copy: Copy) -> None:
    store = store_of(copy.source)
    own = store.create_dataset("data", {}, [])
    store.upsert_dataset_records(own.dataset_id, [{"inputs": {"q": "half \ud800"}}, {"inputs": {"q": "ü"}}])
    for number in (1, 2):
        make_trace(MlflowClient(copy.source), "0", number)
    database = copy.source.removeprefix("sqlite:///")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE spans SET content = replace(content, 'xxxx', '\\ud800') WHERE trace_id = ?", (TRACE,)
        )
    assert copy.failing(*INLINE) == {TRACE}  # MLflow itself writes such a text of a span nowhere
    there = store_of(copy.target)
    [copied] = there.search_datasets()
    records, _ = there._load_dataset_records(copied.dataset_id, max_results=9)
    assert sorted(one.inputs["q"] for one in records) == ["half \ud800", "ü"]
    kept = open_archive(copy.folder / "archive" / "data")["Default"].scope("traces")[TRACE]
    assert "\\ud800" in str(kept.field("spans").fetch_values().to_pydict())


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
def test_texts_that_a_server_may_have_cut_are_told(copy: Copy, mlflow_http: MlflowServer) -> None:
    database = f"sqlite:///{mlflow_http.database}"
    experiment = MlflowClient(database).create_experiment("what a server cuts")
    make_trace(MlflowClient(database), experiment, 7_000_011)
    trace = f"tr-{7_000_011:032x}"
    MlflowClient(database).set_trace_tag(trace, "long", "t" * 5000)
    MlflowClient(database).set_trace_tag(trace, "mlflow.linkedPrompts", '[{"name": "no')
    with closing(sqlite3.connect(mlflow_http.database, timeout=20)) as connection, connection:
        connection.execute("INSERT INTO trace_request_metadata VALUES ('about', ?, ?)", ("m" * 300, trace))
    copy = Copy(copy.folder, mlflow_http.uri, copy.target)
    chosen = ("--source-option", "objects=experiments,traces", "-p", "what a server cuts")
    outcomes = copy._told(copy.migration(*INLINE, *chosen), 0)["outcomes"]
    told = {(finding["code"], finding["field"]) for one in outcomes["export"] for finding in one["findings"]}
    assert {("may-be-cut", "tags/long"), ("may-be-cut", "metadata/about")} <= told
    loaded = {(finding["code"], finding.get("field")) for one in outcomes["load"] for finding in one["findings"]}
    assert ("prompts-not-linked", "tags/mlflow.linkedPrompts") in loaded


@pytest.mark.parametrize(("sizes", "is_lost"), [(None, True), ({"num_spans": 6}, True), ({"num_spans": 0}, False)])
def test_spans_that_mlflow_archived_and_does_not_give_are_a_loss(
    copy: Copy, sizes: dict[str, int] | None, is_lost: bool
) -> None:
    make_trace(MlflowClient(copy.source), "0", 1)
    with closing(sqlite3.connect(copy.source.removeprefix("sqlite:///"))) as connection, connection:
        gone = {"mlflow.trace.spansLocation": "ARCHIVE_REPO", "mlflow.trace.archiveLocation": f"{copy.folder}/gone"}
        for key, text in gone.items():
            connection.execute("INSERT OR REPLACE INTO trace_tags VALUES (?, ?, ?)", (key, text, TRACE))
        if sizes is not None:
            connection.execute(
                "INSERT INTO trace_request_metadata VALUES ('mlflow.trace.sizeStats', ?, ?)", (json.dumps(sizes), TRACE)
            )
    outcomes = copy._told(copy.migration(*INLINE), 3 if is_lost else 0)["outcomes"]["export"]
    told = [(one["code"], one["field"]) for outcome in outcomes for one in outcome["findings"] if one["kind"] == "loss"]
    assert told == ([("artifact-unreadable", "spans")] if is_lost else [])


def copied_without_its_run(copy: Copy) -> str:
    """Copy a model of one version, whose run is not copied; the id of that run."""
    source = MlflowClient(copy.source)
    run: str = source.create_run("0").info.run_id
    source.create_registered_model("churn")
    source.create_model_version("churn", f"runs:/{run}/model", run)
    reported = copy.migrate(*INLINE, "--source-option", "objects=models")
    assert "versions/1/run/id" in reported["reference-not-here"]
    return run


def versions(uri: str) -> dict[int, str]:
    """Source of each version that has none of ours."""
    found = MlflowClient(uri).search_model_versions("name = 'churn'")
    sources = {int(one.version): str(one.source) for one in found}
    return {number: source if source.startswith("s3:") else "" for number, source in sources.items()}


def store_of(uri: str) -> Any:
    """MLflow's own store."""
    return MlflowClient(uri)._tracking_client.store


def say(uri: str, *, value: Any, name: str = "said", trace: str = TRACE) -> None:
    """Feedback of a human."""
    with _use_tracking_uri(uri):
        mlflow.log_feedback(trace_id=trace, name=name, value=value, source=HUMAN)


def assessments(uri: str) -> dict[str, str]:
    """Names and values; of errors their traces."""
    found = store_of(uri).get_trace_info(TRACE).assessments
    return {
        one.name: repr(one.expectation.value if one.expectation else (one.feedback.value, one.feedback.error))
        for one in found
    }


def said(uri: str) -> list[str]:
    """The values of all feedback."""
    return sorted(one.value for one in store_of(uri).get_trace_info(TRACE).assessments)


@contextmanager
def refusing(copy: Copy, change: str, table: str, condition: str) -> Iterator[None]:
    """Meanwhile the target's database refuses this."""
    body = f"BEFORE {change} ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
    with closing(sqlite3.connect(copy.target.removeprefix("sqlite:///"))) as connection:
        connection.execute(f"CREATE TRIGGER refusing {body}")
        yield
        connection.execute("DROP TRIGGER refusing")
