"""A source with every edge that MLflow's own client can make: runs of all states, nested, deleted, oddly named."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
)

START_MS: Final = 1_700_000_000_000
NAN, INF = float("nan"), float("inf")
ODD_FILES: Final = (
    "plain.txt",
    "no extension",
    "with:colon.bin",
    "it's & co (1).txt",
    "100%.txt",
    "ünï/日本/φ.txt",
    "a/b/c/d/deep.json",
    ".hidden/.file",
    "UPPER/File.TXT",
    "UPPER/file.txt",
    "two..dots.txt",
    "ends.",
    " leading space",
    "tilde~0123456789abcdef.txt",
    "x" * 200 + ".log",
    "model/MLmodel",
)


def fill(uri: str, *, points: int = 1200, second: str = "övning: 'två' \"tre\"") -> None:
    """Make everything in the MLflow at `uri`. `second`: the name of the second experiment."""
    client = MlflowClient(uri)
    first = client.create_experiment("team/first", tags={"mlflow.note.content": "# about", "owner": "ünï"})
    other = client.create_experiment(second)
    client.create_experiment("empty")
    gone = client.create_experiment("gone", tags={"why": "deleted"})
    parent = _run(client, first, "parent", 0, points=points)
    child = _run(client, first, "child", 1, parent=parent, status="FAILED")
    grandchild = _run(client, other, "grandchild elsewhere", 2, parent=child, status="KILLED")
    _run(client, other, "great-grandchild", 3, parent=grandchild, deleted=True)
    _run(client, first, "still running", 4, status="RUNNING")
    _run(client, first, "scheduled", 5, status="SCHEDULED")
    _run(client, first, "ünï – ñame 🚀", 6, end=False)
    orphaned = _run(client, gone, "in a deleted experiment", 7)
    _run(client, first, "parent is in a deleted experiment", 8, parent=orphaned)
    _run(client, first, "parent never existed", 9, parent="0" * 32)
    bare = client.create_run(first, start_time=START_MS + 10, run_name="bare")
    client.set_terminated(bare.info.run_id, end_time=START_MS + 10)
    _inputs(client, parent, child)
    client.delete_experiment(gone)


def _run(
    client: MlflowClient,
    experiment: str,
    name: str,
    number: int,
    *,
    parent: str = "",
    status: str = "FINISHED",
    deleted: bool = False,
    end: bool = True,
    points: int = 3,
) -> str:
    start_ms = START_MS + number * 1000
    tags = {"mlflow.user": f"user {number}", "mlflow.source.name": "train.py", "mlflow.note.content": f"note {number}"}
    tags |= {"params/odd": "a tag", "long": "t" * 8000, "ключ/ü": "värde", "empty": "", "a--0123456789abcdef": "made"}
    if parent:
        tags["mlflow.parentRunId"] = parent
    run: str = client.create_run(experiment, start_time=start_ms, run_name=name, tags=tags).info.run_id
    params = [Param("lr", repr(0.1 * number)), Param("text", "x" * 6000), Param("namn/på", "å"), Param("none", "")]
    params += [Param("k" * 250, "long key"), Param("params/lr", "nested name"), Param("a--0123456789abcdef", "made")]
    client.log_batch(run, [], params, [RunTag("later", "1")])
    for start in range(0, points, 1000):
        steps = range(start, min(points, start + 1000))
        client.log_batch(run, [Metric("loss", 1 / (1 + step), start_ms + step, step) for step in steps])
    client.log_batch(run, _odd_points(start_ms))
    _artifacts(client, run, number)
    if status in ("RUNNING", "SCHEDULED"):
        client.update_run(run, status=status)
    elif end:
        client.set_terminated(run, status, end_time=start_ms + 500)
    else:
        client.update_run(run, status=status)
    if deleted:
        client.delete_run(run)
    return run


def _odd_points(time_ms: int) -> list[Metric]:
    return [
        Metric("odd", NAN, time_ms, 0),
        Metric("odd", INF, time_ms, 1),
        Metric("odd", -INF, time_ms, 2),
        Metric("odd", 5e-324, time_ms, 3),
        Metric("odd", 0.1 + 0.2, 0, 2**53 + 1),
        Metric("odd", NAN, time_ms, -7),
        Metric("same step", 1.0, time_ms, 5),
        Metric("same step", 2.0, time_ms, 5),
        Metric("same step", 2.0, time_ms - 1, 5),
        Metric("same step", NAN, time_ms, 5),
        Metric("lr", 0.5, time_ms, 0),
        Metric("größe/日本 - 1", -0.0, time_ms, 0),
        Metric("k" * 250, 1.0, time_ms, 0),
        Metric("metrics/lr", 1.5, time_ms, 0),
    ]


def _artifacts(client: MlflowClient, run: str, number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ODD_FILES if number == 0 else ODD_FILES[:2]:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{number} {name}".encode() * (1 + 20_000 * (name == "plain.txt")))
        Path(folder, "empty.bin").touch()
        client.log_artifacts(run, folder)


def _inputs(client: MlflowClient, parent: str, child: str) -> None:
    train = Dataset("träning", "digest1", "local", '{"uri": "/data"}', '{"schema": "' + "s" * 7000 + '"}', "{}")
    test = Dataset("test", "digest2", "code", "{}")
    train_input = DatasetInput(train, [InputTag("mlflow.data.context", "training"), InputTag("ü", "1")])
    client.log_inputs(parent, [train_input, DatasetInput(test, [InputTag("mlflow.data.context", "eval")])])
    client.log_inputs(child, [DatasetInput(train, [InputTag("mlflow.data.context", "other use")])])
    model = client.create_logged_model(client.get_run(parent).info.experiment_id, "classifier", parent).model_id
    client.log_outputs(parent, [LoggedModelOutput(model, 7)])
    client.log_inputs(child, models=[LoggedModelInput(model)])
