"""A source with every edge of MLflow's objects: registered models, prompts, logged models, traces, datasets."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    AssessmentSource,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Trace,
    TraceData,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from mlflow.tracing.utils import build_otel_context
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from opentelemetry.sdk.trace import ReadableSpan

START_MS: Final = 1_700_000_000_000


def fill_objects(uri: str) -> None:
    """Make everything in the MLflow at `uri`."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("objects: ünï", tags={"team": "ü"})
    unselected = client.create_experiment("not selected")
    runs = [_run(client, experiment, f"run {number}", number) for number in range(3)]
    other = _run(client, unselected, "in an experiment that is not selected", 9)
    deleted = _run(client, experiment, "deleted run", 5)
    with _use_tracking_uri(uri):
        models = _logged_models(client, experiment, runs, other, deleted)
        _registered_models(client, runs, other, deleted)
        client.create_registered_model("of logged models")
        for model in models:
            source = client.get_logged_model(model)
            client.create_model_version(
                "of logged models", f"models:/{model}", source.source_run_id, model_id=model, description=source.name
            )
        _prompts(client)
        _traces(client, experiment, runs, models[0], other)
        _datasets(client, experiment, unselected)
        _experiments(client)
    client.delete_run(deleted)


def fill_folder_objects(uri: str) -> None:
    """What a folder `mlruns` can hold of it."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("objects")
    run = _run(client, experiment, "run", 1)
    with _use_tracking_uri(uri):
        model = _logged_model(client, experiment, "whole", run, {"a": "ü"}, "READY")
        client.create_registered_model("registered", {"owner": "ü"}, "described")
        for source in (f"runs:/{run}/model", f"runs:/{run}/model", f"models:/{model}"):
            client.create_model_version("registered", source, run, {"a": "ü"})
        client.delete_model_version("registered", "2")
        client.set_registered_model_alias("registered", "champion", "3")
        client.register_prompt("prompt", "Say {{what}}", tags={"n": "1"})
        store = client._tracking_client.store
        info = TraceInfo("tr-of-a-folder", TraceLocation.from_experiment_id(experiment), START_MS, TraceState.OK)
        info.trace_metadata = {"mlflow.sourceRun": run, "mlflow.modelId": model}
        info.tags = {"mlflow.traceName": "ü"}
        client._tracing_client._upload_trace_data(store.start_trace(info), TraceData([_span(info.trace_id, 5, "ü")]))


def _run(client: MlflowClient, experiment: str, name: str, number: int) -> str:
    run: str = client.create_run(experiment, start_time=START_MS + number, run_name=name).info.run_id
    client.log_param(run, "number", str(number))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model").mkdir()
        Path(folder, "model", "MLmodel").write_text(f"run_id: {run}\n")
        Path(folder, "model", "ünï.bin").write_bytes(bytes([number]) * 100)
        client.log_artifacts(run, folder)
    client.set_terminated(run, end_time=START_MS + 100)
    return run


def _logged_models(client: MlflowClient, experiment: str, runs: list[str], other: str, deleted: str) -> list[str]:
    params = {f"p{number:03}": "ü" * number for number in range(130)}
    whole = _logged_model(client, experiment, "whole", runs[0], params, "READY")
    bare = _logged_model(client, experiment, "without run", None, {}, "READY")
    failed = _logged_model(client, experiment, "failed", runs[1], {"a": ""}, "FAILED")
    _logged_model(client, experiment, "pending", runs[1], {}, "PENDING")
    _logged_model(client, experiment, "of a run that is not selected", other, {"a": "1"}, "READY")
    of_deleted = _logged_model(client, experiment, "of a deleted run", deleted, {"a": "1"}, "READY")
    for model in (whole, failed):
        client.log_outputs(runs[0], [LoggedModelOutput(model, 7)])
        client.log_inputs(runs[2], models=[LoggedModelInput(model)])
    client.log_inputs(deleted, models=[LoggedModelInput(bare)])
    _metrics(client, runs[0], whole)
    _metrics(client, runs[2], whole, "träning", "digest1")
    _metrics(client, runs[2], failed)
    _metrics(client, deleted, of_deleted)
    client.log_batch(deleted, [Metric("only here", 1e200, START_MS, 0, of_deleted)])
    return [whole, bare, failed]


def _logged_model(
    client: MlflowClient, experiment: str, name: str, run: str | None, params: dict[str, str], status: Any
) -> str:
    tags = {"team": "ü", "long": "t" * 4000}
    model = client.create_logged_model(experiment, name, run, tags, params, "agent" if run else None)
    model_id: str = model.model_id
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text(f"model_id: {model_id}\n")
        Path(folder, "data").mkdir()
        Path(folder, "data", "weights ünï.bin").write_bytes(name.encode() * 1000)
        client.log_model_artifacts(model_id, folder)
    if status != "PENDING":
        client.finalize_logged_model(model_id, status)
    return model_id


def _metrics(client: MlflowClient, run: str, model: str, dataset: str | None = None, digest: str | None = None) -> None:
    points = [(0.5, START_MS, 0), (0.25, START_MS + 1, 1), (1e300, START_MS + 2, -3), (-7.0, START_MS, 2**53)]
    metrics = [Metric("loss", *point, model, dataset, digest) for point in points]
    client.log_batch(run, [*metrics, Metric("größe/日本", 1.5, START_MS, 0, model, dataset, digest)])


def _registered_models(client: MlflowClient, runs: list[str], other: str, deleted: str) -> None:
    name = "it's a ünï model"
    client.create_registered_model(name, {"owner": "ü", "empty": "", "long": "t" * 4000}, "d" * 3000)
    for number in range(1, 13):  # as text, 10 comes before 2
        run = runs[number % 3]
        source = f"runs:/{run}/model" if number % 2 else f"{client.get_run(run).info.artifact_uri}/model"
        client.create_model_version(name, source, run, tags={"n": str(number)}, description=f"version {number}")
    for gap in (1, 4, 5):
        client.delete_model_version(name, str(gap))
    client.set_registered_model_alias(name, "champion", "10")
    client.set_registered_model_alias(name, "challenger", "2")
    client.transition_model_version_stage(name, "2", "Production")
    client.transition_model_version_stage(name, "3", "Production")
    client.transition_model_version_stage(name, "6", "Staging")
    client.transition_model_version_stage(name, "12", "Archived")
    client.create_registered_model("no versions")
    client.create_registered_model("dangling")
    client.create_model_version("dangling", f"runs:/{other}/model", other)
    client.create_model_version("dangling", f"runs:/{deleted}/model", deleted, tags={"of": "a deleted run"})
    client.create_model_version("dangling", f"runs:/{'0' * 32}/model", "0" * 32)
    client.create_model_version("dangling", "s3://bucket/of/somebody/else")
    client.create_registered_model("a copy")
    client.create_model_version("a copy", f"models:/{name}/7", runs[1])


def _prompts(client: MlflowClient) -> None:
    for number in range(1, 13):
        client.register_prompt("greeting", f"Say {number} to {{{{name}}}}", f"commit {number}", {"n": str(number)})
    client.delete_prompt_version("greeting", "3")
    client.set_prompt_alias("greeting", "production", 11)
    client.set_prompt_tag("greeting", "team", "ü")
    chat = [{"role": "system", "content": "You are {{mood}}."}, {"role": "user", "content": "Hé? 日本"}]
    client.register_prompt(
        "chat",
        chat,
        response_format={"type": "object", "properties": {"answer": {"type": "string"}}},
        model_config={"model_name": "some-model", "temperature": 0.5, "max_tokens": 7},
    )
    client.set_prompt_version_tag("chat", "1", "checked", "yes")


def _traces(client: MlflowClient, experiment: str, runs: list[str], model: str, other: str) -> None:
    plain = _trace(client, experiment, "plain", {"input": "hé 日本", "number": 1.5})
    failed = _trace(client, experiment, "failed", {}, status="ERROR")
    client.set_trace_tag(plain, "team", "ü")
    human = AssessmentSource("HUMAN", "somebody@example.com")
    judge = AssessmentSource("LLM_JUDGE", "judge")
    mlflow.log_feedback(
        trace_id=plain, name="good", value=True, source=human, rationale="because: ü", metadata={"a": "1"}
    )
    mlflow.log_feedback(trace_id=plain, name="scores", value={"x": 1.5, "y": 2}, source=judge)
    mlflow.log_expectation(trace_id=plain, name="answer", value={"text": ["å", 1]}, source=human)
    first = mlflow.log_feedback(trace_id=failed, name="again", value=1, source=human)
    assert first.assessment_id is not None
    mlflow.override_feedback(trace_id=failed, assessment_id=first.assessment_id, value=2, source=human)
    evaluated = mlflow.log_feedback(
        trace_id=failed, name="of a run", value="yes", source=judge, metadata={"mlflow.assessment.sourceRunId": runs[1]}
    )
    assert evaluated.assessment_id is not None
    store = client._tracking_client.store
    _stored_trace(store, experiment, "in a run", {"mlflow.sourceRun": runs[0], "mlflow.trace.session": "session ü"})
    _stored_trace(store, experiment, "of a model", {"mlflow.modelId": model, "mlflow.trace.user": "somebody"})
    _stored_trace(store, experiment, "in a run that is not selected", {"mlflow.sourceRun": other})
    linked = _stored_trace(store, experiment, "linked", {})
    store.link_traces_to_run([linked], runs[2])
    store.link_traces_to_run([linked, plain], runs[1])
    store.link_traces_to_run([linked], other)
    prompt = client.load_prompt("greeting", 2)
    client.link_prompt_versions_to_trace([prompt], plain)
    _stored_trace(store, experiment, "in progress", {}, state="IN_PROGRESS")
    _spans_among_artifacts(client, experiment, plain)


def _trace(client: MlflowClient, experiment: str, name: str, inputs: Any, *, status: str = "OK") -> str:
    root = client.start_trace(name, inputs=inputs, experiment_id=experiment, tags={"of": name, "long": "t" * 4000})
    trace_id: str = root.trace_id
    tool = client.start_span("tool: ü", trace_id, root.span_id, "TOOL", {"q": 1}, {"attribute": [1, "å", None]})
    chat = client.start_span("chat", trace_id, tool.span_id, "CHAT_MODEL", {"messages": ["m" * 3000]})
    chat.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12})
    event: Any = mlflow.entities.SpanEvent  # abstract to a type checker only
    chat.add_event(event("happened", attributes={"why": "ü", "n": 1}))
    client.end_span(trace_id, chat.span_id, {"answer": "42"})
    client.end_span(trace_id, tool.span_id, {"a": None}, status=status)
    client.end_trace(trace_id, {"answer": [1, 2, 3]}, status=status)
    mlflow.flush_trace_async_logging()
    return trace_id


def _stored_trace(store: Any, experiment: str, name: str, metadata: dict[str, str], *, state: str = "OK") -> str:
    """A trace as a server gets it: what is known of it first, then its spans."""
    number = sum(map(ord, name))
    trace_id = f"tr-{number:032x}"
    info = TraceInfo(
        trace_id,
        TraceLocation.from_experiment_id(experiment),
        START_MS,
        TraceState(state),
        request_preview="asked: ü",
        response_preview=None if state == "IN_PROGRESS" else "said",
        client_request_id=f"client {number}",
        execution_duration=None if state == "IN_PROGRESS" else 12,
        trace_metadata=metadata,
        tags={"mlflow.traceName": name},
    )
    store.start_trace(info)
    store.log_spans(experiment, [_span(trace_id, number, name)])
    return trace_id


def _span(trace_id: str, number: int, name: str) -> Any:
    context = build_otel_context(number, number)
    attributes = {"mlflow.traceRequestId": json.dumps(trace_id), "mlflow.spanInputs": json.dumps({"text": name})}
    start_ns = START_MS * 1_000_000 + number
    return mlflow.entities.Span(
        ReadableSpan(name, context, attributes=attributes, start_time=start_ns, end_time=start_ns + 5)
    )


def _spans_among_artifacts(client: MlflowClient, experiment: str, like: str) -> None:
    """As servers before 3.4 stored them, under an id that no server makes."""
    trace_id = "old-style-id"
    info = TraceInfo(
        trace_id,
        TraceLocation.from_experiment_id(experiment),
        START_MS,
        TraceState.OK,
        tags={"mlflow.traceName": "among artifacts"},
        execution_duration=5,
    )
    tracing = client._tracing_client
    stored = tracing.start_trace(info)
    tracing._upload_trace_data(stored, TraceData([_span(trace_id, 77, "among artifacts"), *_attached(trace_id)]))
    assert isinstance(client.get_trace(like), Trace)


def _attached(trace_id: str) -> list[Any]:
    return [_span(trace_id, 78, "second")]


def _datasets(client: MlflowClient, experiment: str, unselected: str) -> None:
    store = client._tracking_client.store
    whole = store.create_dataset("whole ü", {"team": "ü", "mlflow.user": "somebody"}, [experiment, unselected])
    source = {"source_type": "TRACE", "source_data": {"trace_id": "old-style-id"}}
    records: list[dict[str, Any]] = [
        {"inputs": {"q": f"hé {number}", "n": number}, "outputs": {"a": [number, None]}, "expectations": {"e": "å"}}
        for number in range(12)
    ]
    records[3] |= {"tags": {"a": "1", "mlflow.user": "someone else"}, "source": source}
    records[4] |= {"outputs": "only a text", "expectations": None}
    records[5] |= {"outputs": None}
    store.upsert_dataset_records(whole.dataset_id, records[:6])
    store.upsert_dataset_records(whole.dataset_id, records[6:])
    store.create_dataset("without records", {}, [])


def _experiments(client: MlflowClient) -> None:
    client.create_experiment("without runs", tags={"mlflow.note.content": "# ü"})
    deleted = client.create_experiment("deleted, without runs", tags={"why": "ü"})
    client.delete_experiment(deleted)
    full = client.create_experiment("deleted")
    run = _run(client, full, "run of a deleted experiment", 7)
    _logged_model(client, full, "in a deleted experiment", run, {"a": "1"}, "READY")
    _stored_trace(client._tracking_client.store, full, "in a deleted experiment", {"mlflow.sourceRun": run})
    client.delete_experiment(full)
