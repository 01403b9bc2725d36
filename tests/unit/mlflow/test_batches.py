"""Requests are full, within MLflow's limits, and never touch one key at the same time."""

from __future__ import annotations

import threading
from collections import Counter

import msgspec
import numpy as np
import pytest

from shardmig.adapters.mlflow.batches import Batch, Batches
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.errors import Unavailable


def metrics(lengths: dict[str, int], first_step: int = 0) -> Metrics:
    counts = np.array(list(lengths.values()), dtype=np.int64)
    steps = np.concatenate([np.arange(count) + first_step for count in counts]).astype(np.int64)
    return Metrics(list(lengths), counts, steps, steps + 1000, steps / 3)


def sent(params: dict[str, str], *parts: Metrics, lanes: int = 4) -> list[Batch]:
    batches: list[Batch] = []
    collected = Batches("run", batches.append, lanes)
    collected.add_params(params)
    for part in parts:
        collected.add_metrics(part)
    collected.flush()
    return batches


def test_many_short_series_share_requests() -> None:
    batches = sent({}, metrics({f"m{number}": 10 for number in range(900)}), lanes=1)
    assert [len(batch.metrics) for batch in batches] == [1000] * 9


def test_a_small_run_takes_one_request_however_many_connections_there_are() -> None:
    batches = sent({"p": "v"}, metrics({f"m{number}": 20 for number in range(5)}), lanes=4)
    assert [(len(batch.params), len(batch.metrics)) for batch in batches] == [(1, 100)]


def test_connections_share_what_takes_more_than_one_request() -> None:
    assert len(sent({}, metrics({f"m{number}": 500 for number in range(8)}), lanes=4)) == 4


def test_connections_share_full_requests() -> None:
    batches = sent({f"p{number}": "v" for number in range(20)}, metrics({f"m{number}": 500 for number in range(20)}))
    assert sorted(len(batch.metrics) + len(batch.params) for batch in batches) == [20, *[1000] * 10]


def test_params_travel_with_points() -> None:
    batches = sent({f"p{number}": "v" for number in range(150)}, metrics({"m": 1500}), lanes=1)
    assert [(len(batch.params), len(batch.metrics)) for batch in batches] == [(100, 900), (50, 600)]


def test_no_request_is_over_a_limit_however_long_keys_and_values_are() -> None:
    params = {f"{number:03}{'ü' * 247}": "\\" * 6000 for number in range(300)}
    keys = {f"{number:03}{'漢' * 247}": 40 for number in range(100)}
    batches = sent(params, metrics(keys), lanes=3)
    for batch in batches:
        assert len(batch.metrics) + len(batch.params) <= 1000
        assert len(batch.params) <= 100
        assert len(msgspec.json.encode(batch)) <= 1_000_000
    assert Counter(point.key for batch in batches for point in batch.metrics) == keys
    assert {param.key: param.value for batch in batches for param in batch.params} == params


def test_every_point_is_sent_once_with_its_own_values() -> None:
    parts = [metrics({"a": 30_000, "b": 5}), metrics({"a": 7, "c": 2500}, first_step=30_000)]
    found = {(p.key, p.step, p.timestamp, p.value) for batch in sent({}, *parts) for p in batch.metrics}
    expected = {
        (key, step, step + 1000, step / 3)
        for part in parts
        for key, rows in part.spans()
        for step in part.steps[rows].tolist()
    }
    assert found == expected
    assert sum(len(batch.metrics) for batch in sent({}, *parts)) == len(expected)


def test_nan_is_sent_as_text() -> None:
    nan = Metrics(["m"], np.ones(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([np.nan]))
    assert sent({}, nan)[0].metrics[0].value == "NaN"


def test_a_series_is_sent_by_one_connection_in_order_behind_its_latest_point() -> None:
    seen: dict[str, list[tuple[str, int]]] = {}
    lock = threading.Lock()

    def send(batch: Batch) -> None:
        with lock:
            for point in batch.metrics:
                seen.setdefault(point.key, []).append((threading.current_thread().name, point.step))

    batches = Batches("run", send, 3)
    batches.add_metrics(metrics({f"m{number}": 2500 for number in range(7)}))
    batches.flush()
    for points in seen.values():
        assert len({thread for thread, _ in points}) == 1
        assert [step for _, step in points] == [2499, *range(2499)]


def test_the_error_of_a_request_is_raised() -> None:
    def send(batch: Batch) -> None:
        raise Unavailable("no")

    batches = Batches("run", send, 2)
    batches.add_metrics(metrics({"a": 10, "b": 10}))
    with pytest.raises(Unavailable):
        batches.flush()
