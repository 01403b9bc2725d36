"""Generated runs with everything that MLflow stores in a way of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardmig.adapters.mlflow.store import NewRun, RunStore, Status, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics

HIGHEST = np.finfo(np.float64).max
LONG_KEY = "ключ/" + "k" * 245


class RunContent(msgspec.Struct, frozen=True):
    """One run to be written through any store."""

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[Metrics]
    status: Status
    end_ms: int | None


def generated_runs(count: int = 4) -> Iterator[RunContent]:
    """Always the same runs: NaN, fitted infinities, negative and repeated steps, odd keys, series in several parts."""
    random = np.random.default_rng(20261121)
    statuses: list[Status] = ["FINISHED", "FAILED", "KILLED", "RUNNING"]
    for number in range(count):
        yield RunContent(
            name=f"run {number} – ü",
            params={"lr": repr(0.1 * number), "text": "x" * 6000, LONG_KEY: "1", "namn/på": "å" * number, "empty": ""},
            tags={
                "shardmig.key": f"key{number}",
                "mlflow.note.content": "# note",
                "long": "t" * 8000,
                "mlflow.user": "eve",
            },
            metrics=[*_curves(random, number), *_special_values()],
            status=statuses[number % len(statuses)],
            end_ms=None if number == 3 else 1_700_000_100_000 + number,
        )


def write(store: RunStore, experiment_id: str, content: RunContent, start_ms: int) -> StoredRun:
    """The whole life of a run."""
    user = content.tags["mlflow.user"]
    new = NewRun(experiment_id=experiment_id, name=content.name, start_ms=start_ms, user=user, tags=content.tags)
    run = store.create_run(new)
    store.log_params(run, content.params)
    for metrics in content.metrics:
        store.log_metrics(run, metrics)
    store.set_tags(run, {"later": "1", "long": "replaced"})
    store.finish_run(run, content.status, content.end_ms, {"shardmig.state": "complete"})
    return run


def metrics_of(series: dict[str, list[tuple[int, int, float]]]) -> Metrics:
    """Points (step, time, value) of each key, in the order that stores ask for."""
    rows = [row for points in series.values() for row in sorted(points, key=_in_order)]
    steps, times_ms, values = zip(*rows, strict=True) if rows else ((), (), ())
    lengths = _int64([len(points) for points in series.values()])
    return Metrics(list(series), lengths, _int64(steps), _int64(times_ms), np.array(values, dtype=np.float64))


def _curves(random: np.random.Generator, number: int) -> Iterator[Metrics]:
    length = 700
    steps = np.arange(length, dtype=np.int64)
    for part in range(2):
        keys = [f"metrics/train/loss_{i}" for i in range(3)] + [LONG_KEY]
        yield Metrics(
            keys,
            np.full(len(keys), length, dtype=np.int64),
            np.tile(steps + part * length, len(keys)),
            np.tile(1_700_000_000_000 + steps * 10 + number, len(keys)),
            random.normal(size=length * len(keys)),
        )


def _special_values() -> Iterator[Metrics]:
    nan = float("nan")
    yield metrics_of(
        {
            "nan last beats negative": [(1, 5, -2.0), (1, 5, nan)],
            "nan last beaten by positive": [(1, 5, 2.0), (1, 5, nan)],
            "nan last ties with zero": [(1, 5, 0.0), (1, 5, nan)],
            "nan alone": [(3, 7, nan)],
            "nan between": [(1, 1, 1.0), (2, 2, nan), (3, 3, 3.0)],
            "infinite as fitted": [(0, 0, -HIGHEST), (1, 0, HIGHEST), (2, 0, 5e-324)],
            "negative steps": [(-5, 10, 1.0), (-3, 8, 2.0), (-3, 9, 0.5)],
            "repeated steps": [(0, 9, 1.0), (0, 3, 4.0), (0, 9, 0.5), (0, 3, -4.0)],
            "wide steps": [(-(2**63), 0, 1.0), (2**53 + 1, 0, 1.0), (2**63 - 1, 0, 0.1)],
            "größe/日本 - 1": [(0, 0, 0.1 + 0.2)],
        }
    )
    yield metrics_of({"late first": [(9, 90, 9.0)], "tie later": [(4, 4, 0.0)], "no points": []})
    yield metrics_of({"late first": [(2, 20, 2.0)], "tie later": [(4, 4, nan)]})
    yield metrics_of({"late first": [(9, 90, 9.0), (9, 90, 10.0)]})


def _in_order(row: tuple[int, int, float]) -> tuple[int, int, bool, float]:
    step, time_ms, value = row
    return step, time_ms, value != value, value


def _int64(column: Sequence[int]) -> NDArray[np.int64]:
    return np.array(column, dtype=np.int64)
