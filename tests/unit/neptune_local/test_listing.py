"""Which runs lie below a path."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.neptune_local import open_source
from shardmig.errors import BadInput, NotFound, UsageError
from shardmig.records import ProjectId, RunId, Selection
from tests.unit.neptune_local.local_data import (
    UUID,
    beyond_reach,
    created,
    list_all,
    open_local,
    points,
    read_all,
    read_one,
    read_run,
    record,
    snapshot,
    write_database,
    write_folder,
)

ONE = [record(1, "AssignInt", "p/a", value=1, at=1_700_000_000.5)]


def metadata(**details: Any) -> dict[str, Any]:
    return {"mode": "offline", "containerId": UUID, "containerType": "run", **details}


@pytest.mark.parametrize(
    "name",
    [
        f"offline/run__{UUID}__7__abcdefgh",
        f"offline/run__{UUID}",
        f"offline/{UUID}",
        f"async/run__{UUID}__7__abcdefgh",
        f"async/run__{UUID}/exec-1795257373.299759-2026-11-21_10.36.13.299759-13017",
        f"async/{UUID}/exec-1795257373.299759-2026-11-21_10.36.13.299759",
    ],
)
def test_every_layout_of_folders_is_understood(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, ONE, name=name)
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.ref.id == "offline-01234567"
    assert run.scalars["shardmig/container_id"] == UUID
    assert run.scalars["shardmig/source"] == name.partition("/")[0]
    assert run.scalars["p/a"] == 1


@pytest.mark.parametrize("up", range(4))
def test_the_path_may_be_the_run_the_data_folder_or_any_parent(up: int, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "deep", ONE)
    path = [folder, *folder.parents][up]
    assert read_one(path, tmp_path / "archive").scalars["p/a"] == 1


def test_several_paths_are_searched_and_what_is_met_twice_is_one_run(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", ONE)
    write_folder(tmp_path / "b", ONE, name="offline/run__99999999-0000-0000-0000-000000000000")
    database = write_database(tmp_path / "c" / "x.sqlite3", [(1, snapshot(assign={"p": 1}))])
    paths = os.pathsep.join(str(path) for path in (tmp_path / "a", folder, tmp_path / "b", database))
    with_one_of_each = open_local(paths)
    assert [run.id for run in list_all(with_one_of_each)] == ["offline-01234567", "offline-99999999", "run-1"]
    with_one_of_each.close()


def test_folders_of_one_container_are_one_run_in_the_order_of_writing(tmp_path: Path) -> None:
    first = [
        record(1, "AssignInt", "p/a", value=1, at=10.0),
        record(2, "LogFloats", "m", values=points((1, None, 1.0)), at=20.0),
        record(3, "AssignInt", "p/b", value=1, at=40.0),
    ]
    second = [
        record(1, "AssignInt", "p/a", value=2, at=15.0),
        record(2, "LogFloats", "m", values=points((2, None, 2.0)), at=25.0),
        record(3, "AssignInt", "p/b", value=2, at=30.0),
    ]
    write_folder(tmp_path, first, name=f"async/run__{UUID}__1__zzzzzzzz", last_put=5)
    write_folder(tmp_path, second, name=f"async/run__{UUID}__2__aaaaaaaa")
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.logged() == {"p/a": 2, "p/b": 1}
    assert run.series["m"] == [("0", 1000, 1.0), ("1", 2000, 2.0)]
    assert [(one.code, one.count) for one in run.findings] == [("lost-records", 2)]


def test_a_copy_of_a_folder_counts_once(tmp_path: Path) -> None:
    lines = [record(n, "LogFloats", "m", values=points((1.0 * n, None, 1.0 * n)), at=1.0 * n) for n in range(1, 9)]
    write_folder(tmp_path / "now", lines, metadata=metadata())
    write_folder(tmp_path / "backup", lines[:5], metadata=metadata())
    run = read_one(tmp_path, tmp_path / "archive")
    assert [value for _, _, value in run.series["m"]] == [1.0 * n for n in range(1, 9)]
    assert [(one.kind, one.code) for one in run.findings] == [("note", "repeated-records")]


def test_a_copy_of_a_database_counts_once_and_another_process_as_well(tmp_path: Path) -> None:
    updates = [(n, snapshot(n * 1_000_000, append={"m": 1.0 * n})) for n in range(9)]
    for place, logged in (("now", updates), ("backup", updates[:5])):
        write_database(tmp_path / place / "p_run-1_77" / "run_operations.sqlite3", [(1, created()), *logged])
    other = [(n, snapshot(n * 1_000_000, append={"n": 1.0 * n})) for n in range(3)]
    write_database(tmp_path / "now" / "p_run-1_99" / "run_operations.sqlite3", [(2, created()), *other])
    run = read_one(tmp_path, tmp_path / "archive")
    assert [value for _, _, value in run.series["m"]] == [1.0 * n for n in range(9)]
    assert len(run.series["n"]) == 3
    assert [(one.kind, one.code) for one in run.findings] == [("note", "repeated-records")]


def test_folders_without_times_follow_each_other_in_the_order_of_their_creation(tmp_path: Path) -> None:
    for number, day in ((1, 2), (2, 1)):
        line = record(1, "AssignInt", "p/a", value=number)
        created_at = metadata(createdAt=f"2023-01-0{day}T00:00:00")
        write_folder(tmp_path, [line], name=f"async/run__{UUID}__{number}__aaaaaaaa", metadata=created_at)
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.scalars["p/a"] == 1
    assert run.ref.created_ms == 1_672_531_200_000


def test_ids_are_lengthened_until_they_differ(tmp_path: Path) -> None:
    for last in ("01234567-89ab-0", "01234567-89ab-1", "01234568"):
        write_folder(tmp_path, ONE, name=f"offline/run__{last}")
    runs = read_all(tmp_path, tmp_path / "archive", run_id_prefix="lost+")
    assert list(runs) == ["lost+01234567-89ab-0", "lost+01234567-89ab-1", "lost+01234568"]


@pytest.mark.parametrize(
    ("known", "line", "expected"),
    [
        ("2026-11-21T09:41:34.242341+00:00", ONE[0], 1_795_254_094_242),
        ("2026-11-21T10:41:34.242341+01:00", ONE[0], 1_795_254_094_242),
        ("2026-11-21T09:41:34.242341", ONE[0], 1_795_254_094_242),
        ("yesterday", ONE[0], 1_700_000_000_500),
        (None, ONE[0], 1_700_000_000_500),
        (None, record(1, "LogFloats", "m", values=points((1, 0, 9.5), (1, 1, 3.25))), 3250),
        (None, record(1, "AssignString", "p", value='"ts": 7'), None),
    ],
)
def test_the_creation_time_comes_from_the_best_witness(
    known: str | None, line: str, expected: int | None, tmp_path: Path
) -> None:
    write_folder(tmp_path, [line], metadata=None if known is None else metadata(createdAt=known))
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.ref.created_ms == expected
    assert run.scalars.get("sys/creation_time") == expected


def test_models_are_listed_in_their_own_scope(tmp_path: Path) -> None:
    write_folder(tmp_path, ONE, name="async/model__11111111-0__1__aaaaaaaa")
    write_folder(tmp_path, ONE, name="async/model_version__22222222-0__1__aaaaaaaa")
    write_folder(tmp_path, ONE, name="async/project__33333333-0__1__aaaaaaaa")
    runs = read_all(tmp_path, tmp_path / "archive")
    assert [run.ref.scope for run in runs.values()] == ["models", "model_versions", "runs"]
    assert runs["offline-33333333"].scalars["shardmig/container_type"] == "project"


def test_a_missing_project_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    write_folder(tmp_path, ONE)
    source = open_source({"path": str(tmp_path)})
    with pytest.raises(UsageError) as raised:
        list(source.list_projects(Selection()))
    assert "--project" in raised.value.hint
    assert list(source.list_projects(Selection(projects=("ws/only",)))) == ["ws/only"]
    source.close()


def test_databases_carry_their_own_project(tmp_path: Path) -> None:
    write_database(tmp_path / "x.sqlite3", [(1, snapshot(assign={"p": 1}))], project="ws/own")
    source = open_source({"path": str(tmp_path)})
    assert list(source.list_projects(Selection())) == ["ws/own"]
    source.close()


def test_projects_runs_and_times_select(tmp_path: Path) -> None:
    write_folder(tmp_path, ONE)
    write_database(tmp_path / "x.sqlite3", [(5000, snapshot(assign={"p": 1}))])
    source = open_local(tmp_path)
    assert [run.id for run in list_all(source, Selection(projects=("ws/scale",)))] == ["run-1"]
    assert [run.id for run in list_all(source, Selection(runs="^offline"))] == ["offline-01234567"]
    assert [run.id for run in list_all(source, Selection(created_before_ms=5001))] == ["run-1"]
    assert list(source.list_runs(ProjectId("ws/other"), Selection())) == []
    source.close()


def test_the_fingerprint_changes_with_the_content_and_only_then(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ONE)

    def fingerprint() -> str:
        source = open_local(tmp_path)
        (run,) = list_all(source)
        source.close()
        return run.fingerprint

    before = fingerprint()
    assert fingerprint() == before
    (folder / "upload_path" / "x.txt").write_text("x")
    assert fingerprint() != before


def test_files_that_are_no_neptune_data_are_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, ONE)
    (tmp_path / "other.sqlite3").write_bytes(b"")
    (tmp_path / ".neptune" / "files.db").write_bytes(b"not ours")
    (tmp_path / ".neptune" / "sync" / f"run__{UUID}" / "upload_path").mkdir(parents=True)
    assert len(read_all(tmp_path, tmp_path / "archive")) == 1


def test_a_link_to_a_parent_does_not_lead_in_circles(tmp_path: Path) -> None:
    write_folder(tmp_path, ONE)
    (tmp_path / ".neptune" / "loop").symlink_to(tmp_path)
    assert len(read_all(tmp_path, tmp_path / "archive")) == 1


@pytest.mark.parametrize(("name", "others"), [("data-prepared.log", 0), ("data-7.log", 1)])
def test_somebodys_log_hides_no_run_below_its_folder(name: str, others: int, tmp_path: Path) -> None:
    write_folder(tmp_path, ONE)
    (tmp_path / name).write_text("read 7 files\n")
    found = read_all(tmp_path, tmp_path / "archive")
    assert found[RunId("offline-01234567")].logged() == {"p/a": 1}
    assert len(found) == 1 + others


def test_a_link_to_nothing_and_a_file_that_is_gone_meanwhile_end_no_listing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ONE)
    (folder / "upload_path" / "sent.txt").symlink_to(tmp_path / "gone.txt")
    database = write_database(tmp_path / "scale" / "run_operations.sqlite3", [(1, snapshot(assign={"p": 1}))])
    (database.parent / "sent.bin").symlink_to(tmp_path / "gone.bin")
    assert set(read_all(tmp_path, tmp_path / "archive")) == {"offline-01234567", "run-1"}


def test_a_folder_that_cannot_be_looked_into_fails_alone_and_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, ONE)
    beyond_reach(tmp_path)
    source = open_local(tmp_path)
    runs = list_all(source)
    assert [run.id == "offline-01234567" for run in runs] == [True, False]
    assert runs[1].id.endswith("(unreadable)")
    with pytest.raises(BadInput) as raised:
        read_run(source, runs[1], tmp_path / "archive")
    assert raised.value.run == runs[1].label
    assert read_run(source, runs[0], tmp_path / "archive").logged() == {"p/a": 1}
    source.close()


def test_a_damaged_database_fails_alone_and_is_named(tmp_path: Path) -> None:
    write_database(tmp_path / "good" / "run_operations.sqlite3", [(1, snapshot(assign={"p": 1}))])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run_operations.sqlite3").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    (tmp_path / "old.sqlite3").write_bytes(b"neither")
    source = open_local(tmp_path)
    runs = {run.id: run for run in list_all(source, Selection())}
    assert set(runs) == {"run-1", "bad (unreadable)", "old (unreadable)"}
    assert {run.project for run in runs.values()} == {"ws/scale"}
    assert read_run(source, runs[RunId("run-1")], tmp_path / "archive").scalars
    for name in ("bad", "old"):
        run = runs[RunId(f"{name} (unreadable)")]
        with pytest.raises(BadInput, match=name) as raised:
            read_run(source, run, tmp_path / "archive")
        assert raised.value.run == run.label
    source.close()


def test_a_damaged_database_alone_is_listed_too(tmp_path: Path) -> None:
    (tmp_path / "lost.sqlite3").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    source = open_source({"path": str(tmp_path)})
    [project] = source.list_projects(Selection())
    assert [run.id for run in source.list_runs(project, Selection())] == ["lost (unreadable)"]
    source.close()


@pytest.mark.parametrize("damage", ["DELETE FROM metadata", "DROP TABLE metadata"])
def test_operations_of_nobody_knows_which_run_are_not_passed_over(damage: str, tmp_path: Path) -> None:
    write_database(tmp_path / "good.sqlite3", [(1, snapshot(assign={"p": 1}))])
    write_database(tmp_path / "bad.sqlite3", [(1, snapshot(assign={"p": 1}))])
    with closing(sqlite3.connect(tmp_path / "bad.sqlite3")) as database:
        database.execute(damage)
        database.commit()
    source = open_local(tmp_path)
    runs = {run.id: run for run in list_all(source)}
    assert set(runs) == {"run-1", "bad (unreadable)"}
    with pytest.raises(BadInput, match="which run"):
        read_run(source, runs[RunId("bad (unreadable)")], tmp_path / "archive")
    source.close()


def test_a_damaged_first_record_hides_no_other_run(tmp_path: Path) -> None:
    write_database(tmp_path / "good.sqlite3", [(1, snapshot(assign={"p": 1}))])
    write_database(tmp_path / "bad.sqlite3", [(1, created()), (2, snapshot(assign={"p": 1}))], run_id="run-2")
    with closing(sqlite3.connect(tmp_path / "bad.sqlite3")) as database:
        database.execute("UPDATE run_operations SET operation = x'ffff' WHERE sequence_id = 1")
        database.commit()
    found = read_all(tmp_path, tmp_path / "archive")
    losses = {run: [one.code for one in read.findings if one.kind == "loss"] for run, read in found.items()}
    assert losses == {"run-1": [], "run-2": ["bad-record"]}


def test_a_run_whose_folder_went_away_is_not_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ONE)
    source = open_local(tmp_path)
    (run,) = list_all(source)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound) as raised:
        read_run(source, run, tmp_path / "archive")
    assert raised.value.run == "ws/project/offline-01234567"
    source.close()


def test_ten_thousand_runs_are_listed_once_each(tmp_path: Path) -> None:
    for number in range(10_050):
        folder = tmp_path / "offline" / f"run__{number:08x}-0000"
        folder.mkdir(parents=True)
        (folder / "data-1.log").write_text(f"{ONE[0]}\n")
    source = open_local(tmp_path)
    ids = [run.id for run in source.list_runs(ProjectId("ws/project"), Selection())]
    source.close()
    assert ids == [RunId(f"offline-{number:08x}") for number in range(10_050)]


def test_a_fork_names_its_parent(tmp_path: Path) -> None:
    fork = created(creation_time={"seconds": 7}, fork_point={"parent_run_id": "mother", "parent_project": "ws/scale"})
    write_database(tmp_path / "x.sqlite3", [(9, fork)])
    source = open_local(tmp_path)
    (run,) = list_all(source)
    source.close()
    assert (run.parent, run.created_ms) == ("mother", 7000)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "path"),
        ({"path": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"path": "/", "include-acked": "perhaps"}, "include-acked"),
        ({"path": "/", "path-map": "no-equals-sign"}, "path-map"),
        ({"path": "/", "colour": "blue"}, "colour"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        open_source(options)
