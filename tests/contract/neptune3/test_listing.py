"""Listing past 10,000 runs."""

from __future__ import annotations

import pytest

from shardmig.adapters.neptune3 import Neptune3Source
from shardmig.adapters.wrappers import RetryingSource
from shardmig.errors import Unavailable
from shardmig.records import ProjectId
from tests.contract.neptune3.filling import CREATED_MS
from tests.contract.neptune3.reading import EVERYTHING, list_all
from tests.servers.neptune3.server import Neptune3


def test_25000_runs_with_equal_times_are_each_listed_once(server: Neptune3, source: Neptune3Source) -> None:
    project = server.store.project("ws/many")
    for number in range(25_000):
        project.create(f"run-{number}", created_ms=CREATED_MS)
    listing = source.list_runs(ProjectId("ws/many"), EVERYTHING)
    next(listing)
    pages = server.requests["/api/leaderboard/v1/proto/leaderboard/entries/search/"]
    assert pages == 1, "the first runs come before the last page was asked for"
    found = [run.id for run in list_all(source, "ws/many")]
    assert len(found) == len(set(found)) == 25_000
    assert found == [run.id for run in list_all(source, "ws/many")]


def test_runs_removed_while_listing_cost_no_other_run(server: Neptune3, source: Neptune3Source) -> None:
    project = server.store.project("ws/p")
    for number in range(20):
        project.create(f"run-{number}", created_ms=CREATED_MS)
    server.pages.entries = 5
    plain = source.list_runs(ProjectId("ws/p"), EVERYTHING)
    patient = RetryingSource(source).list_runs(ProjectId("ws/p"), EVERYTHING)
    first = [next(plain).id, next(patient).id]
    gone = project.runs["P-1"]
    gone.values["sys/trashed"] = ("bool", True)
    with pytest.raises(Unavailable, match="removed while"):
        list(plain)
    assert {*first, *(run.id for run in patient)} == {f"run-{number}" for number in range(20)}
