"""Listing is complete, whatever the server's search hides."""

from __future__ import annotations

import pytest

from shardmig.errors import Denied, NotFound
from shardmig.records import ProjectId, Selection
from tests.contract.neptune2.vendor import OTHER, PROJECT, listed, open_neptune2
from tests.servers.neptune2.operations import execute
from tests.servers.neptune2.server import NeptuneServer

RUNS = 25_000
ALL_PROJECTS = Selection()


def test_25000_runs_of_one_millisecond_are_listed_once_each(empty_neptune2: NeptuneServer) -> None:
    store = empty_neptune2.store
    store.now_ms = lambda: 1_700_000_000_123
    project = store.add_project(PROJECT, "VIS")
    for _ in range(RUNS):
        store.add_entity(project, "run")
    source = open_neptune2(scopes="runs")
    runs = listed(source)
    source.close()
    assert len(runs) == len({run.id for run in runs}) == RUNS
    assert {run.created_ms for run in runs} == {1_700_000_000_123}
    assert empty_neptune2.requests["searchLeaderboardEntries"] <= RUNS // 1000 + 3


def test_a_server_with_small_pages_is_listed_whole(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    for _ in range(123):
        empty_neptune2.store.add_entity(project, "run")
    empty_neptune2.api.entries = 10
    source = open_neptune2()
    assert len(listed(source)) == 123
    source.close()


def test_runs_that_come_and_go_meanwhile_hide_no_other(empty_neptune2: NeptuneServer) -> None:
    store = empty_neptune2.store
    project = store.add_project(PROJECT, "VIS")
    for _ in range(300):
        store.add_entity(project, "run")
    empty_neptune2.api.entries = 100
    source = open_neptune2(scopes="runs")
    found: list[str] = []
    for run in source.list_runs(PROJECT, Selection(include_archived=True)):
        if not found:
            del project.by_sys_id[0]
            store.add_entity(project, "run")
        found.append(run.id)
    source.close()
    assert set(found) >= {f"VIS-{number}" for number in range(1, 301)}


def test_the_fingerprint_of_a_run_changes_when_it_is_written_to(empty_neptune2: NeptuneServer) -> None:
    store = empty_neptune2.store
    entity = store.add_entity(store.add_project(PROJECT, "VIS"), "run")
    source = open_neptune2()
    [before] = listed(source)
    store.now_ms = lambda: 2_000_000_000_000
    execute(entity, {"path": "x", "assignInt": {"value": 1}}, store.now_ms())
    [after] = listed(source)
    source.close()
    assert before.id == after.id
    assert before.fingerprint != after.fingerprint


def test_trashed_runs_are_listed_when_asked_for(neptune2: NeptuneServer) -> None:
    source = open_neptune2(scopes="runs")
    assert [(run.id, run.archived) for run in listed(source)] == [("VIS-1", False), ("VIS-2", True)]
    assert [run.id for run in listed(source, PROJECT, Selection())] == ["VIS-1"]
    source.close()


def test_a_query_of_the_server_chooses_runs(neptune2: NeptuneServer) -> None:
    query = '`sys/name`:string = "first" OR `sys/id`:string = "VIS-77"'
    source = open_neptune2(scopes="runs", runs_query=query)
    assert [run.id for run in listed(source)] == ["VIS-1"]
    source.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [OTHER, PROJECT]),
        ({"workspace": "ws"}, [PROJECT]),
        ({"project_pattern": "^nlp$"}, [OTHER]),
        ({"project_exclude_pattern": "nlp"}, [PROJECT]),
    ],
)
def test_projects_are_found_by_workspace_and_pattern(
    neptune2: NeptuneServer, options: dict[str, str], expected: list[ProjectId]
) -> None:
    source = open_neptune2(**options)
    assert list(source.list_projects(ALL_PROJECTS)) == expected
    source.close()


def test_projects_are_found_beyond_the_first_page(empty_neptune2: NeptuneServer) -> None:
    labels = [f"ws/p{number:03}" for number in range(25)]
    for label in labels:
        empty_neptune2.store.add_project(label, "P")
    empty_neptune2.api.entries = 10
    source = open_neptune2()
    assert list(source.list_projects(ALL_PROJECTS)) == labels
    source.close()


def test_the_project_of_the_environment_is_the_default(
    neptune2: NeptuneServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEPTUNE_PROJECT", OTHER)
    source = open_neptune2()
    assert list(source.list_projects(ALL_PROJECTS)) == [OTHER]
    source.close()


def test_a_forbidden_project_is_told_if_it_was_named_and_skipped_if_it_was_found(
    empty_neptune2: NeptuneServer,
) -> None:
    empty_neptune2.store.add_project("ws/secret", "SEC", is_forbidden=True)
    source = open_neptune2()
    with pytest.raises(Denied):
        list(source.list_runs(ProjectId("ws/secret"), Selection(projects=("ws/secret",))))
    assert list(source.list_runs(ProjectId("ws/secret"), ALL_PROJECTS)) == []
    source.close()


def test_a_forbidden_project_that_the_environment_names_is_told(
    empty_neptune2: NeptuneServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_neptune2.store.add_project("ws/secret", "SEC", is_forbidden=True)
    monkeypatch.setenv("NEPTUNE_PROJECT", "ws/secret")
    source = open_neptune2()
    with pytest.raises(Denied):
        list(source.list_runs(ProjectId("ws/secret"), ALL_PROJECTS))
    source.close()


def test_a_project_that_does_not_exist_is_told(neptune2: NeptuneServer) -> None:
    source = open_neptune2()
    with pytest.raises(NotFound):
        list(source.list_runs(ProjectId("ws/none"), Selection(projects=("ws/none",))))
    source.close()
