"""Copies one MLflow into another as mlflow-export-import does, written plainly: the baseline of `mlflow_copy`.

Through MLflow's own client, one thing after the other: the history of each key by a call of its own into one JSON file a
run, from which the run is written in batches of 1000 points; a trace is read and written by itself. Unlike that tool it
keeps the times of runs and the spans of traces: it is compared by its speed.

usage: python -m benchmarks.mlflow_plain FROM TO FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, Trace

METRICS_IN_BATCH = 1000


def read(uri: str, folder: Path) -> None:
    """Everything at `uri` into files."""
    client = MlflowClient(uri)
    for experiment in client.search_experiments():
        own = folder / experiment.experiment_id
        own.mkdir(parents=True)
        (own / "experiment.json").write_text(json.dumps({"name": experiment.name, "tags": experiment.tags}))
        for run in paged(client.search_runs, experiment_ids=[experiment.experiment_id]):
            _read_run(client, run.info.run_id, own / "runs" / run.info.run_id)
        for trace in paged(client.search_traces, locations=[experiment.experiment_id], include_spans=False):
            place = own / "traces" / f"{trace.info.trace_id}.json"
            place.parent.mkdir(exist_ok=True)
            place.write_text(client.get_trace(trace.info.trace_id).to_json())


def _read_run(client: MlflowClient, run_id: str, folder: Path) -> None:
    run = client.get_run(run_id)
    (folder / "artifacts").mkdir(parents=True)
    histories = {
        key: [(point.value, point.timestamp, point.step) for point in client.get_metric_history(run_id, key)]
        for key in run.data.metrics
    }
    content = {"info": dict(run.info), "params": run.data.params, "tags": run.data.tags, "metrics": histories}
    (folder / "run.json").write_text(json.dumps(content, default=str))
    if client.list_artifacts(run_id):
        client.download_artifacts(run_id, "", str(folder / "artifacts"))


def write(uri: str, folder: Path) -> None:
    """Everything in the files into the MLflow at `uri`."""
    client = MlflowClient(uri)
    for own in sorted(path.parent for path in folder.glob("*/experiment.json")):
        told = json.loads((own / "experiment.json").read_text())
        found = client.get_experiment_by_name(told["name"])
        experiment = found.experiment_id if found else client.create_experiment(told["name"], tags=told["tags"])
        for run in sorted(own.glob("runs/*")):
            _write_run(client, experiment, run)
        for trace in sorted(own.glob("traces/*.json")):
            _write_trace(client, experiment, Trace.from_json(trace.read_text()))


def _write_run(client: MlflowClient, experiment: str, folder: Path) -> None:
    told = json.loads((folder / "run.json").read_text())
    info = told["info"]
    run = client.create_run(experiment, start_time=info["start_time"], run_name=info["run_name"]).info.run_id
    client.log_batch(run, params=[Param(*param) for param in told["params"].items()])
    points = [Metric(key, *point) for key, history in told["metrics"].items() for point in history]
    for start in range(0, len(points), METRICS_IN_BATCH):
        client.log_batch(run, points[start : start + METRICS_IN_BATCH])
    client.log_batch(run, tags=[RunTag(*tag) for tag in told["tags"].items()])
    client.log_artifacts(run, str(folder / "artifacts"))
    client.set_terminated(run, info["status"], info["end_time"])


def _write_trace(client: MlflowClient, experiment: str, trace: Any) -> None:
    trace.info.trace_location.mlflow_experiment.experiment_id = experiment
    trace.info.tags.pop("mlflow.artifactLocation", None)  # the target's own
    store = client._tracking_client.store  # noqa: SLF001 (there is no other way to write a trace under its id)
    store.start_trace(trace.info)
    store.log_spans(experiment, trace.data.spans)


def paged(search: Any, **arguments: Any) -> Iterator[Any]:
    """All that a search finds."""
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        if not (token := page.token):
            return


if __name__ == "__main__":
    read(sys.argv[1], Path(sys.argv[3]))
    write(sys.argv[2], Path(sys.argv[3]))
