"""Every difference between two MLflows, told through MLflow's own client. Knows nothing of how a copy is made.

Left out is what MLflow's API lets nobody set: ids, artifact URIs, creation times of experiments. What shardmig adds
(tags and artifacts below `shardmig`) is left out as well.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

PARENT = "mlflow.parentRunId"
OLD_ID = "shardmig.run_id"


def differences(source_uri: str, target_uri: str) -> list[str]:
    """One line a difference."""
    source, target = MlflowClient(source_uri), MlflowClient(target_uri)
    lines = []
    theirs = _experiments(target)
    for name, experiment in _experiments(source).items():
        if name not in theirs:
            lines.append(f"experiment {name}: missing")
            continue
        lines += _experiment_differences(name, experiment, theirs[name])
    lines += _run_differences(source, target)
    return sorted(lines)


def _experiments(client: MlflowClient) -> dict[str, Experiment]:
    return {one.name: one for one in client.search_experiments(ViewType.ALL, max_results=1000)}


def _experiment_differences(name: str, one: Experiment, other: Experiment) -> Iterator[str]:
    mine, theirs = (
        {key: text for key, text in experiment.tags.items() if not key.startswith("shardmig.")}
        for experiment in (one, other)
    )
    if mine != theirs:
        yield f"experiment {name}: tags {mine} are {theirs}"
    if one.lifecycle_stage != other.lifecycle_stage:
        yield f"experiment {name}: {one.lifecycle_stage} is {other.lifecycle_stage}"


def _runs(client: MlflowClient) -> list[tuple[str, Run]]:
    return [
        (experiment.name, client.get_run(run.info.run_id))
        for experiment in _experiments(client).values()
        for run in client.search_runs([experiment.experiment_id], "", ViewType.ALL, max_results=10_000)
    ]


def _run_differences(source: MlflowClient, target: MlflowClient) -> Iterator[str]:
    copies: dict[str, list[tuple[str, Run]]] = {}
    for experiment, run in _runs(target):
        if run.info.lifecycle_stage == "deleted" and run.data.tags.get("shardmig.lifecycle") != "deleted":
            continue  # replaced by a newer copy
        copies.setdefault(run.data.tags.get(OLD_ID, f"not copied: {run.info.run_name}"), []).append((experiment, run))
    new_ids = {old: runs[0][1].info.run_id for old, runs in copies.items()}
    for experiment, run in _runs(source):
        found = copies.pop(run.info.run_id, [])
        if len(found) != 1:
            yield f"run {run.info.run_name}: {len(found)} copies"
            continue
        mine = _content(source, experiment, run, new_ids)
        theirs = _content(target, *found[0], {})
        for name in sorted(mine.keys() | theirs.keys()):
            one, other = repr(mine.get(name)), repr(theirs.get(name))
            if one != other:
                yield f"run {run.info.run_name}: {name}: {one[:300]} is {other[:300]}"
    yield from (f"run {old}: is only in the target" for old in copies)


def _content(client: MlflowClient, experiment: str, run: Run, new_ids: dict[str, str]) -> dict[str, Any]:
    """All that a run has, as it would be after a copy that gives the runs these new ids."""
    facts = ("run_name", "user_id", "status", "start_time", "end_time", "lifecycle_stage")
    content: dict[str, Any] = {name: getattr(run.info, name) for name in facts}
    tags = {key: text for key, text in run.data.tags.items() if not key.startswith("shardmig.")}
    if PARENT in tags:
        tags[PARENT] = new_ids.get(tags[PARENT], tags[PARENT])
    content |= {
        "experiment": experiment,
        "params": sorted(run.data.params.items()),
        "tags": sorted(tags.items()),
        "latest metrics": sorted(_latest(run)),
        "inputs": sorted(_inputs(run)),
        "model inputs": sorted(_model(client, one.model_id) for one in run.inputs.model_inputs) if run.inputs else [],
        "model outputs": sorted((_model(client, one.model_id), one.step) for one in run.outputs.model_outputs)
        if run.outputs
        else [],
    }
    content |= {f"metric {key}": _history(client, run, key) for key in run.data.metrics}
    return content | {f"artifact {path}": digest for path, digest in _artifacts(client, run).items()}


def _model(client: MlflowClient, id_: str) -> str:
    return str(client.get_logged_model(id_).name)


def _latest(run: Run) -> Iterator[tuple[Any, ...]]:
    for metric in run.data._metric_objs:
        yield metric.key, repr(metric.value), metric.timestamp, metric.step


def _history(client: MlflowClient, run: Run, key: str) -> list[tuple[int, int, str]]:
    points = client.get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.timestamp, repr(point.value)) for point in points)


def _inputs(run: Run) -> Iterator[tuple[Any, ...]]:
    for given in run.inputs.dataset_inputs if run.inputs else []:
        tags = sorted((tag.key, tag.value) for tag in given.tags)
        yield *(str(text or "") for text in given.dataset.to_dictionary().values()), tags


def _artifacts(client: MlflowClient, run: Run) -> dict[str, str]:
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(_paths(client, run.info.run_id, "")):
            try:
                Path(folder, str(number)).mkdir()
                local = client.download_artifacts(run.info.run_id, path, str(Path(folder, str(number))))
                found[path] = hashlib.sha256(Path(local).read_bytes()).hexdigest()
            except MlflowException:  # names that MLflow's own client takes and does not give back
                found[path] = "unreadable"
    return {path: digest for path, digest in found.items() if not path.startswith("shardmig/")}


def _paths(client: MlflowClient, run_id: str, folder: str) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder or None):
        if entry.is_dir:
            yield from _paths(client, run_id, entry.path)
        else:
            yield entry.path
