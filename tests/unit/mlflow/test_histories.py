"""Histories come in canonical order, however long they are and in whatever order the server gives them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.histories import ROWS_HELD, History
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.rest import MOST_HISTORY, RestStore
from shardmig.adapters.mlflow.store import StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.archive.merging import BLOCK_ROWS
from shardmig.errors import Unavailable
from shardmig.records import TargetRunId
from tests.servers.scripted import Server, scripted_server

__all__ = ["scripted_server"]

RUN = StoredRun(
    id=TargetRunId("r"),
    experiment_id="0",
    name="",
    user="",
    status="FINISHED",
    start_ms=0,
    end_ms=0,
    artifact_uri="",
    tags={},
)


def history_of(steps: list[int], times_ms: list[int], values: list[float], page: int) -> History:
    history = History("loss")
    for start in range(0, len(steps), page):
        part = slice(start, start + page)
        history.add(steps[part], times_ms[part], values[part])
    return history


@pytest.mark.parametrize("count", [1000, ROWS_HELD * 2, BLOCK_ROWS + 1000])
def test_points_in_any_order_come_out_by_step_time_and_value(count: int) -> None:
    random = np.random.default_rng(3)
    steps = random.permutation(count) // 3
    times = random.integers(0, 2, count)
    values = random.normal(size=count)
    parts = list(history_of(steps.tolist(), times.tolist(), values.tolist(), page=25_000).in_order(10_000))
    order = np.lexsort((values, times, steps))
    assert np.array_equal(np.concatenate([part.steps for part in parts]), steps[order])
    assert np.array_equal(np.concatenate([part.times_ms for part in parts]), times[order])
    assert np.array_equal(np.concatenate([part.values for part in parts]), values[order])
    assert all(one.steps[-1] < other.steps[0] for one, other in pairwise(parts))
    assert max(len(part) for part in parts) < 10_003


def test_nan_is_last_and_every_bit_is_kept() -> None:
    values = [float("nan"), 5e-324, -1.5, 1.7976931348623157e308, 0.1, -1.7976931348623157e308]
    [part] = history_of([1] * 6, [0] * 6, values, page=2).in_order(2)
    assert part.values[:-1].tolist() == sorted(values[1:])
    assert np.isnan(part.values[-1])


def test_nothing_is_no_part() -> None:
    assert list(history_of([], [], [], page=1).in_order(10)) == []


def test_a_point_that_comes_twice_means_that_the_pages_moved() -> None:
    with pytest.raises(Unavailable, match="changed while it was read"):
        list(history_of([1, 2, 2], [0, 0, 0], [1.0, 2.0, 2.0], page=2).in_order(10))


def test_a_point_that_was_logged_twice_comes_twice_however_many_pages_there_are() -> None:
    [part] = history_of([1, 1, 2, 3], [0, 0, 0, 0], [1.0, 1.0, 2.0, 3.0], page=2).in_order(10)
    assert part.steps.tolist() == [1, 1, 2, 3]
    with pytest.raises(Unavailable, match="changed while it was read"):
        list(history_of([1, 1, 1, 3], [0, 0, 0, 0], [1.0, 1.0, 1.0, 3.0], page=2).in_order(10))


def test_a_server_over_files_gives_a_point_that_was_logged_twice_in_one_answer(scripted_server: Server) -> None:
    twice = {"metrics": [{"value": 1.5, "timestamp": "7", "step": "3"}] * 2}
    scripted_server.script = [(200, {}, msgspec.json.encode(twice)), answer(0, 1)]
    assert [part.steps.tolist() for part in read(scripted_server)] == [[3, 3], [0]]


def read(server: Server) -> list[Metrics]:
    http = HttpClient(server.uri, Login(Credentials()), connections=1, timeout_s=5)
    store = RestStore(http, connections=1)
    try:
        return list(store.history(RUN, ["a", "b"], 100_000))
    finally:
        store.close()


def answer(first: int, count: int, token: str = "") -> tuple[int, dict[str, str], bytes]:
    points = [{"value": 1.5, "timestamp": "7", "step": str(step)} for step in range(first, first + count)]
    return 200, {}, msgspec.json.encode({"metrics": points} | ({"next_page_token": token} if token else {}))


@pytest.mark.parametrize("refusal", [(404, {}, b"not here"), (403, {}, b"no"), (200, {}, b"<html>the UI</html>")])
def test_a_server_without_the_bulk_answer_is_asked_for_it_once(
    scripted_server: Server, refusal: tuple[int, dict[str, str], bytes]
) -> None:
    scripted_server.script = [refusal, answer(0, 2), answer(0, 3)]
    assert [(part.keys, len(part)) for part in read(scripted_server)] == [(["a"], 2), (["b"], 3)]
    paths = [path.partition("?")[0].rpartition("/")[2] for _, path, _, _ in scripted_server.asked]
    assert paths == ["get-history-bulk", "get-history", "get-history"]


def answer_of(run_id: str, count: int) -> tuple[int, dict[str, str], bytes]:
    points = [{"value": 1.5, "timestamp": "7", "step": str(step), "run_id": run_id} for step in range(count)]
    return 200, {}, msgspec.json.encode({"metrics": points})


@pytest.mark.parametrize(
    "in_vain",
    [(403, {}, b"no"), answer(0, 2), answer_of("s", 2), answer_of("x", 2), (200, {}, b"{}")],
    ids=["refused", "whose points they are is not told", "only the other run", "another run", "nothing"],
)
def test_a_server_that_does_not_tell_several_runs_apart_is_asked_so_once(
    scripted_server: Server, in_vain: tuple[int, dict[str, str], bytes]
) -> None:
    facts = {"info": {"run_id": "r", "experiment_id": "0"}, "data": {"metrics": [{"key": key} for key in "ab"]}}
    told: tuple[int, dict[str, str], bytes] = (200, {}, msgspec.json.encode({"run": facts}))
    scripted_server.script = [told, told, in_vain, answer(0, 2), answer(0, 3)]
    store = RestStore(HttpClient(scripted_server.uri, Login(Credentials()), connections=1, timeout_s=5), connections=1)
    store.expect([TargetRunId("r"), TargetRunId("s")])
    run = store.get_run(TargetRunId("r"))
    assert [len(part) for part in store.history(run, ["a", "b"], 100_000)] == [2, 3]
    store.close()
    assert [path.count("run_id=") for _, path, _, _ in scripted_server.asked] == [1, 1, 2, 1, 1]


def test_a_series_that_the_bulk_answer_may_have_cut_is_read_in_pages(scripted_server: Server) -> None:
    whole = answer(0, MOST_HISTORY)
    scripted_server.script = [whole, answer(0, MOST_HISTORY, "next"), answer(MOST_HISTORY, 5), answer(0, 1)]
    first, second = read(scripted_server)
    assert first.steps.tolist() == list(range(MOST_HISTORY + 5))
    assert second.steps.tolist() == [0]
    assert "page_token=next" in scripted_server.asked[2][1]


def test_a_series_that_cannot_be_read_leaves_nothing_open(scripted_server: Server) -> None:
    many = answer(0, MOST_HISTORY)
    pages = [answer(page * MOST_HISTORY, MOST_HISTORY, "more") for page in range(5)]
    scripted_server.script = [many, *pages, (401, {}, b"")]
    with pytest.raises(Exception, match="401"):
        read(scripted_server)
