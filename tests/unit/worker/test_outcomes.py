"""Runs that are settled together: an outcome for each, whatever becomes of the others."""

from __future__ import annotations

import pytest

from shardmig.errors import AdapterError, BadInput, Fatal, Unavailable, settled, settled_each
from shardmig.records import ProjectId, RunId, RunOutcome, RunRef
from shardmig.worker.outcomes import settle_groups

GROUPS = [["a", "b", "c"], ["d"], ["e", "f"]]


def told(results: dict[str, AdapterError]) -> list[tuple[str, str]]:
    """The outcomes of the groups: (run, state). `results`: the runs that fail, and by what."""
    done: list[RunOutcome] = []
    groups = [[RunRef(project=ProjectId("p"), id=RunId(id_)) for id_ in group] for group in GROUPS]
    settle_groups(
        groups, lambda group: [results.get(run.id) or RunOutcome(run=run, state="done") for run in group], done.append
    )
    return [(outcome.run.id, outcome.state) for outcome in done]


def test_a_run_that_fails_stops_neither_its_group_nor_the_next() -> None:
    states = dict(told({"b": BadInput("no"), "d": BadInput("no")}))
    assert states == {"a": "done", "b": "failed", "c": "done", "d": "failed", "e": "done", "f": "done"}


def test_two_runs_in_a_row_that_cannot_be_reached_end_the_attempt_even_across_groups() -> None:
    with pytest.raises(Unavailable, match="down"):
        told({"c": Unavailable("away"), "d": Unavailable("down")})


def test_one_that_was_reached_in_between_shows_that_the_other_side_is_there() -> None:
    assert dict(told({"a": Unavailable("away"), "c": Unavailable("away")}))["f"] == "done"


def test_what_was_reached_behind_two_that_were_not_is_told() -> None:
    assert dict(told({"a": Unavailable("away"), "b": Unavailable("away")}))["c"] == "done"


def test_what_is_fatal_is_no_result_of_one_run() -> None:
    def raising() -> str:
        raise Fatal("the disk is gone")

    with pytest.raises(Fatal):
        settled(raising)


def test_once_two_in_a_row_could_not_be_reached_none_is_tried_any_more() -> None:
    tried: list[str] = []

    def call(name: str) -> str:
        tried.append(name)
        if name in "bde":
            raise Unavailable(f"{name} is away")
        return name

    results = settled_each(call, "abcdefg")
    assert tried == list("abcde")
    assert [one if isinstance(one, str) else one.message for one in results] == [
        "a",
        "b is away",
        "c",
        "d is away",
        "e is away",
        "e is away",
        "e is away",
    ]
