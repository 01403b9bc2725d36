"""Traces that are looked for next are asked for together, and nothing stale is believed of them."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from shardmig.adapters.base import migration_key
from shardmig.adapters.mlflow.objects.sought import Sought
from shardmig.errors import NotFound
from shardmig.records import ProjectId, RunId, RunRef

TRACES = [RunRef(project=ProjectId("p"), id=RunId(f"tr-{number}"), scope="traces") for number in range(3)]
KEYS = [migration_key(trace) for trace in TRACES]


class Server:
    """Holds the trace tr-1."""

    def __init__(self) -> None:
        self.requests = 0

    def fetch(self, ids: list[str]) -> Iterable[Any]:
        self.requests += 1
        return [SimpleNamespace(trace_id=id_) for id_ in ids if id_ == "tr-1"]


def test_one_request_tells_which_of_all_are_here() -> None:
    server = Server()
    sought = Sought(server.fetch)
    sought.expect(TRACES)
    assert [sought.id_of(key) for key in KEYS] == ["tr-0", "tr-1", "tr-2"]
    assert [sought.info(f"tr-{number}") is not None for number in range(3)] == [False, True, False]
    assert [sought.is_absent(f"tr-{number}") for number in range(3)] == [True, False, True]
    assert server.requests == 1


def test_nothing_is_known_of_what_was_not_expected() -> None:
    sought = Sought(Server().fetch)
    assert sought.id_of(KEYS[0]) is None
    assert not sought.is_absent("tr-0")


def test_nothing_is_known_any_more_of_what_was_written_to() -> None:
    sought = Sought(Server().fetch)
    sought.expect(TRACES)
    sought.id_of(KEYS[0])
    sought.forget("tr-0")
    assert sought.id_of(KEYS[0]) is None
    assert not sought.is_absent("tr-0")
    assert sought.id_of(KEYS[2]) == "tr-2"


def test_a_server_without_this_request_is_asked_one_by_one() -> None:
    def refuse(ids: list[str]) -> Iterable[Any]:
        raise NotFound("no such endpoint")

    sought = Sought(refuse)
    sought.expect(TRACES)
    assert sought.id_of(KEYS[1]) is None
    assert not sought.is_absent("tr-1")
