"""What refers to something by an id or a name that changes between two copies follows it, or says what is the matter."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Feedback, TraceInfo, TraceLocation, TraceState
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.marks import doubled_or_half
from tests.contract.mlflow_source.plain_traces import _span, make_trace
from tests.contract.mlflow_source.test_objects_kept import HUMAN, INLINE, copy

__all__ = ["copy"]

WITHOUT_RUNS = (*INLINE, "--source-option", "objects=experiments,logged-models,traces,models")
TRACE, OTHER = f"tr-{1:032x}", f"tr-{2:032x}"


def model_with_what_refers_to_it(uri: str) -> None:
    """A logged model of a run, two traces of the model, and a version made from it."""
    client = MlflowClient(uri)
    model = client.create_logged_model("0", "model", source_run_id=client.create_run("0").info.run_id).model_id
    location = TraceLocation.from_experiment_id("0")
    store = client._tracking_client.store
    for number, trace in enumerate((TRACE, OTHER)):
        info = TraceInfo(trace, location, 1, TraceState.OK, trace_metadata={"mlflow.modelId": model})
        store.start_trace(info)
        store.log_spans("0", [_span(trace, number + 1, 0)])
    client.create_registered_model("registered")
    with _use_tracking_uri(uri):
        client.create_model_version("registered", f"models:/{model}", model_id=model)


def test_traces_and_versions_follow_a_model_that_is_made_anew_because_its_run_came(copy: Copy) -> None:
    model_with_what_refers_to_it(copy.source)
    copy.migrate(*WITHOUT_RUNS)
    target = MlflowClient(copy.target)
    [before] = target.search_logged_models(["0"])
    copy.migrate(*INLINE)
    [after] = target.search_logged_models(["0"])
    assert after.model_id != before.model_id
    assert target.get_trace(TRACE).info.trace_metadata["mlflow.modelId"] == after.model_id
    assert target.get_model_version("registered", "1").source == f"models:/{after.model_id}"
    assert doubled_or_half(copy.target) == []
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_a_trace_that_people_judged_is_not_made_anew_for_its_model(copy: Copy) -> None:
    model_with_what_refers_to_it(copy.source)
    copy.migrate(*WITHOUT_RUNS)
    target = MlflowClient(copy.target)
    target._tracking_client.store.create_assessment(Feedback("good", True, None, HUMAN, OTHER))
    assert copy.failing(*INLINE) == {OTHER}
    assert [one.name for one in target.get_trace(OTHER).info.assessments] == ["good"]
    [model] = target.search_logged_models(["0"])
    assert target.get_trace(TRACE).info.trace_metadata["mlflow.modelId"] == model.model_id


def test_a_trace_of_an_experiment_that_was_renamed_says_where_it_is_and_moves_when_it_is_replaced(copy: Copy) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    experiment = source.create_experiment("old")
    make_trace(source, experiment, 1)
    copy.migrate(*INLINE)
    source.rename_experiment(experiment, "new")
    told = copy._told(copy.migration(*INLINE, "--max-attempts", "1"), 3)
    [failure] = [one["failure"] for one in told["outcomes"]["load"] if one["state"] == "failed"]
    assert "it came with experiment 'old'" in failure["message"]
    copy.migrate(*INLINE, "--on-existing", "replace")
    there = target.get_experiment(target.get_trace(TRACE).info.experiment_id)
    assert there.name == "new"
    assert len(target.get_trace(TRACE).data.spans) == 6
    assert set(copy.verify(*INLINE, "-p", "new")) == {"equal"}
