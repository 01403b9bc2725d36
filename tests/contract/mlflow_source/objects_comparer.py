"""Every difference between the objects of two MLflows, told through MLflow's own client. Knows nothing of how a copy is
made: objects are told by their names, and what refers to a run, model or experiment by that one's name.

Left out is what MLflow's API lets nobody set: ids, locations, creation times. What shardmig adds (tags below `shardmig`)
is left out as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

Told = dict[str, dict[str, Any]]
GONE = "nothing that is here"


def object_differences(source_uri: str, target_uri: str) -> list[str]:
    """One line a difference."""
    return told_differences(told(source_uri), told(target_uri))


def told_differences(one: Told, other: Told) -> list[str]:
    """As `object_differences`, of what was told before."""
    lines = []
    for label in sorted(one.keys() | other.keys()):
        if label not in one or label not in other:
            lines.append(f"{label}: is only in the {'source' if label in one else 'target'}")
            continue
        mine, theirs = one[label], other[label]
        lines += [
            f"{label}: {name}: {mine.get(name)!r:.300} is {theirs.get(name)!r:.300}"
            for name in sorted(mine.keys() | theirs.keys())
            if repr(mine.get(name)) != repr(theirs.get(name))
        ]
    return lines


def told(uri: str) -> Told:
    """Every object by its class and name."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with _use_tracking_uri(uri):
        client = MlflowClient(uri, uri)
        found: Told = {}
        for tell in (_registered_models, _prompts, _logged_models, _runs, _traces, _datasets, _experiments):
            for label, content in tell(client):
                assert label not in found, f"{label} is there twice"
                found[label] = content
        return found


def _registered_models(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    for model in _pages(client.search_registered_models):
        content = {
            "description": model.description or "",
            "tags": _tags(model.tags),
            "aliases": sorted((alias, int(version)) for alias, version in model.aliases.items()),
        }
        quote = '"' if "'" in model.name else "'"
        for version in _pages(client.search_model_versions, filter_string=f"name = {quote}{model.name}{quote}"):
            content[f"version {version.version}"] = _version(client, version)
        yield f"model {model.name}", content


def _version(client: MlflowClient, version: Any) -> dict[str, Any]:
    return {
        "description": version.description or "",
        "stage": version.current_stage,
        "tags": _tags(version.tags),
        "run": run_name(client, version.run_id),
        "run link": version.run_link or "",
        "source": _source(client, version),
        "files": _files(lambda: client.get_model_version_download_uri(version.name, version.version), client),
    }


def _source(client: MlflowClient, version: Any) -> str:
    source: str = version.source
    for id_, name in ((version.run_id, run_name(client, version.run_id)),):
        source = source.replace(id_, name) if id_ else source
    if source.startswith("models:/m-"):
        id_ = source.removeprefix("models:/").partition("/")[0]
        source = source.replace(id_, logged_model_name(client, id_))
    return source.rpartition("/artifacts/")[2]  # where artifacts lie is the server's own affair


def _prompts(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    for prompt in _pages(client.search_prompts):
        linked = prompt.tags.get("_mlflow_experiment_ids", "")
        content = {
            "description": prompt.description or "",
            "tags": _tags({key: text for key, text in prompt.tags.items() if key != "_mlflow_experiment_ids"}),
            "experiments": sorted(client.get_experiment(id_).name for id_ in linked.split(",") if id_),
        }
        for version in client.search_prompt_versions(prompt.name, max_results=1000):
            loaded = client.load_prompt(prompt.name, version.version)
            content[f"version {version.version}"] = {
                "template": loaded.template,
                "message": loaded.commit_message or "",
                "tags": _tags(loaded.tags),
                "response format": loaded.response_format,
                "model config": loaded.model_config,
                "aliases": sorted(loaded.aliases),
            }
        yield f"prompt {prompt.name}", content


def _logged_models(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    search = client._tracking_client.store.search_logged_models
    for model in _pages(search, experiment_ids=list(experiments(client))):
        metrics = (
            (
                one.key,
                one.step,
                one.timestamp,
                one.value,
                run_name(client, one.run_id),
                one.dataset_name,
                one.dataset_digest,
            )
            for one in model.metrics or ()
        )
        model.tags.pop("mlflow.modelVersions", None)  # repeats what versions say
        yield (
            f"logged model {model.name}",
            {
                "experiment": client.get_experiment(model.experiment_id).name,
                "run": run_name(client, model.source_run_id),
                "type": model.model_type or "",
                "status": str(model.status),
                "params": sorted(model.params.items()),
                "tags": _tags(model.tags),
                "metrics": sorted(metrics, key=repr),
                "files": _files(lambda uri=model.artifact_location: uri, client),  # type: ignore[misc]
            },
        )


def _runs(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    search = client.search_runs
    for found in _pages(search, experiment_ids=list(experiments(client)), run_view_type=ViewType.ALL):
        run = client.get_run(found.info.run_id)
        inputs = run.inputs.model_inputs if run.inputs else []
        outputs = run.outputs.model_outputs if run.outputs else []
        yield (
            f"run {run.info.run_name}",
            {
                "lifecycle": run.info.lifecycle_stage,
                "inputs": sorted(logged_model_name(client, one.model_id) for one in inputs),
                "outputs": sorted((logged_model_name(client, one.model_id), one.step) for one in outputs),
                "metrics": {  # in one order
                    key: sorted((one.step, one.timestamp, one.value) for one in _history(client, run, key))
                    for key in sorted(run.data.metrics)
                },
            },
        )


def _traces(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    made_here = ("mlflow.artifactLocation", "mlflow.trace.spansLocation")
    links = _links_of_traces(client)
    for info in client.search_traces(locations=list(experiments(client)), max_results=500, include_spans=False):
        trace = client.get_trace(info.info.trace_id)
        told = trace.info
        metadata = dict(told.trace_metadata)
        metadata.pop("mlflow.trace.infoFinalized", None)
        for key, name in (("mlflow.sourceRun", run_name), ("mlflow.modelId", logged_model_name)):
            if key in metadata:
                metadata[key] = name(client, metadata[key])
        yield (
            f"trace {told.trace_id}",
            {
                "experiment": client.get_experiment(told.experiment_id).name,
                "time": told.request_time,
                "duration": told.execution_duration,
                "state": told.state,
                "previews": (told.request_preview, told.response_preview),
                "client's id": told.client_request_id,
                "tags": _tags({key: text for key, text in told.tags.items() if key not in made_here}),
                "metadata": sorted(metadata.items()),
                "assessments": sorted(_assessment(client, one) for one in told.assessments),
                "links": sorted(links.get(told.trace_id, [])),
                "spans": sorted(json.dumps(span.to_dict(), sort_keys=True) for span in trace.data.spans),
            },
        )


def _assessment(client: MlflowClient, assessment: Any) -> str:
    told = assessment.to_dictionary()
    if run := told.get("metadata", {}).get("mlflow.assessment.sourceRunId"):
        told["metadata"]["mlflow.assessment.sourceRunId"] = run_name(client, run)
    told.pop("run_id", None)
    told.setdefault("valid", True)  # of an expectation, MLflow's client tells it from a database only
    return json.dumps(told, sort_keys=True)


def _links_of_traces(client: MlflowClient) -> dict[str, list[str]]:
    links: dict[str, list[str]] = {}
    if "FileStore" in type(client._tracking_client.store).__name__:  # it knows none but the run that each was made in
        made_in = {
            one.info.trace_id: one.info.trace_metadata["mlflow.sourceRun"]
            for one in client.search_traces(locations=list(experiments(client)), include_spans=False)
        }
        return {trace: [run_name(client, run)] for trace, run in made_in.items()}
    where = list(experiments(client))
    for run in _pages(client.search_runs, experiment_ids=where, run_view_type=ViewType.ALL):
        for trace in client.search_traces(locations=where, run_id=run.info.run_id, include_spans=False):
            links.setdefault(trace.info.trace_id, []).append(run.info.run_name)
    return links


def _datasets(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    store = client._tracking_client.store
    names = experiments(client)
    for dataset in _pages(store.search_datasets) if "FileStore" not in type(store).__name__ else ():
        records, _ = store._load_dataset_records(dataset.dataset_id)
        yield (
            f"dataset {dataset.name}",
            {
                "tags": _tags(dataset.tags),
                "user": dataset.created_by,
                "schema": dataset.schema,
                "profile": dataset.profile,
                "experiments": sorted(names[id_] for id_ in store.get_dataset_experiment_ids(dataset.dataset_id)),
                "records": sorted(map(_record, records)),
            },
        )


def _record(record: Any) -> str:
    told = record.to_dict()
    for name in ("dataset_record_id", "dataset_id", "created_time", "last_update_time"):
        told.pop(name, None)
    told["tags"] = _tags(told["tags"])
    return json.dumps(told, sort_keys=True)


def _experiments(client: MlflowClient) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in client.search_experiments(ViewType.ALL, max_results=1000):
        yield f"experiment {one.name}", {"lifecycle": one.lifecycle_stage, "tags": _tags(one.tags)}


def _history(client: MlflowClient, run: Any, key: str) -> list[Any]:
    points: list[Any] = client.get_metric_history(run.info.run_id, key)
    return points


def run_name(client: MlflowClient, id_: str | None) -> str:
    """The name of a run."""
    try:
        return client.get_run(id_).info.run_name or "" if id_ else ""
    except MlflowException:
        return GONE


def logged_model_name(client: MlflowClient, id_: str) -> str:
    """The name of a logged model."""
    try:
        return str(client.get_logged_model(id_).name)
    except MlflowException:
        return GONE


def experiments(client: MlflowClient) -> dict[str, str]:
    """Names by ids, of deleted experiments too."""
    return {one.experiment_id: one.name for one in client.search_experiments(ViewType.ALL, max_results=1000)}


def _tags(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted((key, text) for key, text in tags.items() if not key.startswith("shardmig."))


def _files(uri: Callable[[], str], client: MlflowClient) -> dict[str, str]:
    """Digests of all files below a URI."""
    found: dict[str, str] = {}
    if (where := uri()).startswith("s3:"):
        return {"elsewhere": where}
    try:
        repository = get_artifact_repository(where, tracking_uri=client.tracking_uri)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(repository.download_artifacts("", folder))
            for path in sorted(path for path in local.rglob("*") if path.is_file()):
                found[path.relative_to(local).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    except (MlflowException, ImportError, OSError) as error:
        return {"unreadable": type(error).__name__}
    return found


def _pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**arguments, max_results=100, page_token=token)
        yield from page
        if not (token := page.token):
            return
