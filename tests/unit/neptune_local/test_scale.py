"""The rules by which the databases of neptune-scale are replayed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.neptune_local.messages3 import messages
from shardmig.records import FloatPoints
from tests.unit.neptune_local.local_data import (
    RunRead,
    created,
    read_all,
    read_one,
    snapshot,
    tags,
    tree_state,
    write_database,
)

MICRO = 1_000_000
CREATED = created(experiment_id="exp", family="fam", creation_time={"seconds": 1_700_000_000, "nanos": 123_999_999})


def replayed(tmp_path: Path, *updates: Any, **details: Any) -> RunRead:
    write_database(
        tmp_path / "db" / "run_operations.sqlite3", [(1000, CREATED), *((2000, one) for one in updates)], **details
    )
    return read_one(tmp_path / "db", tmp_path / "archive")


def value(**kind: Any) -> Any:
    return messages().Value(**kind)


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4", "v5"])
def test_every_scalar_type_is_kept_exactly_in_every_database_version(version: str, tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        snapshot(assign={"p/int": 9_007_199_254_740_993, "p/float": float("inf"), "p/bool": False, "p/text": ""}),
        snapshot(assign={"p/when": value(timestamp={"seconds": 5, "nanos": 7_999_999})}),
        snapshot(assign={"p/set": value(string_set={"values": ["b", "a", "b"]}), "p/int": 2**62 + 1}),
        version=version,
    )
    assert run.logged() == {
        "p/int": 2**62 + 1,
        "p/float": float("inf"),
        "p/bool": False,
        "p/text": "",
        "p/when": 5007,
        "p/set": ["a", "b"],
        "sys/name": "exp",
        "sys/experiment/name": "exp",
    }
    assert run.scalars["sys/custom_run_id"] == "run-1"
    assert run.scalars["sys/family"] == "fam"
    assert run.scalars["sys/creation_time"] == run.ref.created_ms == 1_700_000_000_123
    assert run.scalars["shardmig/database_version"] == version
    assert run.findings == []


def test_steps_and_values_of_metrics_are_exact(tmp_path: Path) -> None:
    rows = [(290_000, 0.1), (MICRO, float("nan")), (MICRO + 1, -0.0), (7_000_000_000_000 * MICRO, float("-inf"))]
    run = replayed(tmp_path, *(snapshot(micro, append={"m": number}, ms=5) for micro, number in rows))
    assert [step for step, _, _ in run.series["m"]] == ["0.29", "1", "1.000001", "7000000000000"]
    assert repr([number for _, _, number in run.series["m"]]) == "[0.1, nan, -0.0, -inf]"
    assert run.findings == []


def test_a_step_at_the_end_of_64_bits_is_kept(tmp_path: Path) -> None:
    run = replayed(tmp_path, snapshot(0, append={"m": 0.5}), snapshot((2**63 - 1) * MICRO, append={"m": 1.5}))
    assert [step for step, _, _ in run.series["m"]] == ["0", "9223372036854775807"]


def test_points_are_handed_out_as_they_are_read_whatever_stands_between_them(tmp_path: Path) -> None:
    """Every second operation has none: no number of a row tells when to look how much was gathered."""
    both = [snapshot(step * MICRO, append={"m": 1.0 * step, "n": 2.0 * step}) for step in range(1000)]
    updates = [one for step, point in enumerate(both) for one in (snapshot(assign={"p": step}), point)]
    write_database(tmp_path / "db" / "x.sqlite3", [(1, CREATED), *((2, one) for one in updates)])
    run = read_one(tmp_path / "db", tmp_path / "archive", want=Want(chunk_points=100))
    chunks = [piece.chunk for piece in run.pieces if isinstance(piece.chunk, FloatPoints)]
    assert chunks[0].paths == ["m", "n"]
    assert [value for _, _, value in run.series["n"]] == [2.0 * step for step in range(1000)]
    assert [value for _, _, value in run.series["m"]] == [1.0 * step for step in range(1000)]


def test_series_that_begin_together_are_in_the_order_of_their_names_in_every_process(tmp_path: Path) -> None:
    """Else a reading that another process goes on with would leave out other chunks than those that are done."""
    names = [f"m/{letter}" for letter in "hgfedcba"]
    updates = [snapshot(step * MICRO, append=dict.fromkeys(names, 1.0 * step)) for step in range(10)]
    write_database(tmp_path / "db" / "x.sqlite3", [(1, CREATED), *((2, one) for one in updates)])
    run = read_one(tmp_path / "db", tmp_path / "archive", want=Want(chunk_points=20))
    chunks = [piece.chunk for piece in run.pieces if isinstance(piece.chunk, FloatPoints)]
    assert [path for chunk in chunks for path in chunk.paths] == sorted(names)
    assert len(chunks) == 4


def test_text_histograms_and_integers_of_series_are_kept(tmp_path: Path) -> None:
    counts = value(histogram={"bin_edges": [0, 0.5, float("inf")], "counts": {"values": [3, 4]}})
    densities = value(histogram={"bin_edges": [0, 1], "densities": {"values": [0.25]}})
    run = replayed(
        tmp_path,
        snapshot(0, append={"t": "żółw\n", "h": counts, "n": 7}, ms=5),
        snapshot(MICRO, append={"h": densities, "n": 2**60 + 1}, ms=6),
    )
    assert run.series == {
        "t": [("0", 5, "żółw\n")],
        "h": [
            ("0", 5, ("COUNTING", [0.0, 0.5, float("inf")], [3.0, 4.0])),
            ("1", 6, ("DENSITY", [0.0, 1.0], [0.25])),
        ],
        "n": [("0", 5, 7.0), ("1", 6, float(2**60))],
    }
    assert [(one.kind, one.code, one.field) for one in run.findings] == [("approximation", "int-to-float", "n")]


def test_a_point_without_step_stands_at_the_next_whole_step_of_the_run(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        snapshot(append={"a": 1.0}),
        snapshot(2_500_000, append={"b": 1.0}),
        snapshot(append={"a": 2.0}),
    )
    assert [step for step, _, _ in run.series["a"]] == ["0", "3"]


def test_tags_are_added_and_removed_in_order_and_overwritten_by_an_assignment(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        snapshot(modify_sets={"sys/tags": tags(["a", "b"])}),
        snapshot(modify_sets={"sys/tags": tags(["c"], ["a"])}),
        snapshot(assign={"sys/group_tags": value(string_set={"values": ["x"]})}),
        snapshot(modify_sets={"sys/group_tags": tags([], ["x"])}),
    )
    assert run.scalars["sys/tags"] == ["b", "c"]
    assert run.scalars["sys/group_tags"] == []


def test_two_types_on_one_path_are_both_kept_and_noted(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        snapshot(assign={"p": 1}),
        snapshot(assign={"p": 0.5}),
        snapshot(0, append={"p": 1.5}),
        snapshot(0, append={"s": "text"}),
        snapshot(MICRO, append={"s": 2.5}),
    )
    assert run.types["p"] == ["float", "int", "float_series"]
    assert sorted(run.types["s"]) == ["float_series", "string_series"]
    assert [(one.kind, one.code, one.field) for one in run.findings] == [
        ("note", "type-changed", "p"),
        ("note", "type-changed", "p"),
        ("note", "type-changed", "s"),
    ]


def test_points_that_the_server_would_refuse_for_their_step_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [(2, 1.0), (2, 9.0), (1, 2.0), (3, 3.0)]
    run = replayed(tmp_path, *(snapshot(step * MICRO, append={"m": number}, ms=step) for step, number in rows))
    assert [(step, number) for step, _, number in run.series["m"]] == [("2", 1.0), ("2", 9.0), ("1", 2.0), ("3", 3.0)]
    (note,) = run.findings
    assert (note.kind, note.code, note.field, note.count) == ("note", "step-not-increasing", "m", 2)


def test_previews_give_way_to_later_points_of_their_step(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        snapshot(MICRO, append={"m": 0.1}, preview=True, ms=1),
        snapshot(MICRO, append={"m": 0.2}, preview=True, ms=2),
        snapshot(MICRO, append={"m": 0.3}, ms=3),
        snapshot(2 * MICRO, append={"m": 0.4}, preview=True, ms=4),
        snapshot(2 * MICRO, append={"m": 0.5, "n": 0.6}, preview=True, ms=5),
    )
    assert run.series == {"m": [("1", 3, 0.3), ("2", 5, 0.5)], "n": [("2", 5, 0.6)]}
    assert [(one.kind, one.code, one.field, one.count) for one in run.findings] == [
        ("note", "preview-points", "m", 1),
        ("note", "preview-points", "n", 1),
    ]


def fork(parent: str, micro: int, *, inherit: bool = False, family: str = "") -> Any:
    step = {"whole": micro // MICRO, "micro": micro % MICRO}
    return created(
        fork_point={"parent_run_id": parent, "step": step, "parent_project": "ws/scale"},
        inherit_configs=inherit,
        family=family,
    )


def test_points_at_or_before_the_fork_step_are_left_out_and_reported(tmp_path: Path) -> None:
    updates = [snapshot(micro, append={"m": 1.0 * micro}, ms=micro) for micro in (1_000_000, 1_500_000, 1_500_001)]
    write_database(tmp_path / "db" / "x.sqlite3", [(1, fork("mother", 1_500_000)), *((2, one) for one in updates)])
    run = read_one(tmp_path / "db", tmp_path / "archive")
    assert [step for step, _, _ in run.series["m"]] == ["1.500001"]
    assert [(one.kind, one.code, one.field, one.count) for one in run.findings] == [("gap", "before-fork-step", "m", 2)]
    assert run.scalars["sys/forking/parent"] == "mother"
    assert run.scalars["sys/forking/step"] == 1.5
    assert run.ref.parent == "mother"


def test_a_fork_inherits_the_configs_of_its_ancestors_the_nearest_first(tmp_path: Path) -> None:
    database = tmp_path / "db"
    write_database(
        database / "a.sqlite3",
        [(1, CREATED), (2, snapshot(assign={"far": 1, "both": 1, "all": 1})), (3, snapshot(0, append={"m": 1.0}))],
        run_id="grandmother",
    )
    write_database(
        database / "b.sqlite3",
        [(1, fork("grandmother", 0, inherit=True)), (2, snapshot(assign={"both": 2, "all": 2, "sys/x": 2}))],
        run_id="mother",
    )
    write_database(
        database / "c.sqlite3", [(1, fork("mother", 0, inherit=True)), (2, snapshot(assign={"all": 3}))], run_id="child"
    )
    write_database(database / "d.sqlite3", [(1, fork("mother", 0))], run_id="not-inheriting")
    write_database(database / "e.sqlite3", [(1, fork("abroad", 0, inherit=True))], run_id="orphan")
    write_database(database / "f.sqlite3", [(1, fork("ring", 0, inherit=True))], run_id="ring")
    runs = read_all(database, tmp_path / "archive")
    wanted = ("far", "both", "all", "sys/x")
    assert [runs["child"].scalars.get(path) for path in wanted] == [1, 2, 3, None]
    assert not set(wanted) & set(runs["not-inheriting"].scalars)
    assert runs["child"].series == {}
    assert [(one.kind, one.code) for one in runs["orphan"].findings] == [("note", "parent-not-here")]
    assert [(one.kind, one.code) for one in runs["ring"].findings] == [("note", "parent-not-here")]


def test_databases_of_one_run_are_merged_by_time(tmp_path: Path) -> None:
    write_database(
        tmp_path / "db" / "z.sqlite3",
        [(10, CREATED), (20, snapshot(0, append={"m": 1.0}, ms=1)), (40, snapshot(assign={"p": "last"}))],
    )
    write_database(
        tmp_path / "db" / "a.sqlite3",
        [(15, created(experiment_id="later")), (30, snapshot(MICRO, append={"m": 2.0}, ms=2, assign={"p": "first"}))],
    )
    run = read_one(tmp_path / "db", tmp_path / "archive")
    assert run.series["m"] == [("0", 1, 1.0), ("1", 2, 2.0)]
    assert run.scalars["p"] == "last"
    assert run.scalars["sys/name"] == "exp"
    assert run.findings == []


def file_value(destination: str, size: int = 5) -> Any:
    return value(file_ref={"path": destination, "size_bytes": size, "mime_type": "text/plain"})


def test_files_are_found_by_path_or_beside_the_database(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes.txt").write_text("notes")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "1f2e.txt").write_text("bytes")
    uploads = [
        (str(tmp_path / "work" / "notes.txt"), "d/1", "text/plain", 5, 0),
        ("/old/place/1f2e.txt", "d/2", "text/plain", 5, 1),
        ("/old/place/gone.txt", "d/3", "text/plain", 5, 0),
        (str(tmp_path / "work" / "notes.txt"), "d/4", "text/html", 9, 0),
    ]
    run = replayed(
        tmp_path,
        snapshot(assign={"f/path": file_value("d/1"), "f/bytes": file_value("d/2"), "f/gone": file_value("d/3")}),
        snapshot(assign={"f/sent": file_value("d/5"), "f/changed": file_value("d/4")}),
        snapshot(1_500_000, append={"s": file_value("d/1")}, ms=5),
        snapshot(2_500_000, append={"s": file_value("d/2")}, ms=6),
        snapshot(2_500_000, append={"s": file_value("d/1")}, ms=7),
        uploads=uploads,
    )
    assert run.stored["f/path: notes.txt"] == b"notes"
    assert run.stored["f/bytes: bytes.txt"] == b"bytes"
    assert [(str(one.step), one.time_ms, one.name) for one in run.files["s"]] == [
        ("1.5", 5, "notes.txt"),
        ("2.5", 6, "s.txt"),
        ("2.5", 7, "3-notes.txt"),
    ]
    assert sorted((one.kind, one.code, one.field) for one in run.findings) == [
        ("gap", "file-not-here", "f/sent"),
        ("loss", "missing-file", "f/gone"),
        ("note", "file-changed", "f/changed"),
        ("note", "mime-type", "f/changed"),
        ("note", "step-not-increasing", "s"),
    ]


def test_everything_in_the_write_ahead_log_is_read_and_nothing_is_touched(tmp_path: Path) -> None:
    live = write_database(tmp_path / "live" / "run_operations.sqlite3", [(1, CREATED)])
    killed = tmp_path / "killed"
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for step in range(50):
            blob = snapshot(step * MICRO, append={"m": float(step)}).SerializeToString()
            with connection:
                connection.execute("INSERT INTO run_operations VALUES (NULL, 2, 0, ?, ?)", (blob, len(blob)))
        shutil.copytree(live.parent, killed)
    assert (killed / "run_operations.sqlite3-wal").stat().st_size > 1000
    before = tree_state(killed)
    run = read_one(killed, tmp_path / "archive")
    assert len(run.series["m"]) == 50
    assert tree_state(killed) == before


def test_what_a_server_acknowledged_is_gone_and_counted(tmp_path: Path) -> None:
    updates = [snapshot(step * MICRO, append={"m": 1.0}) for step in range(9)]
    path = write_database(tmp_path / "db" / "x.sqlite3", [(1, CREATED), *((2, one) for one in updates)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM run_operations WHERE sequence_id <= 4 OR sequence_id = 7")
    run = read_one(tmp_path / "db", tmp_path / "archive")
    assert [(one.kind, one.code, one.count) for one in run.findings] == [
        ("gap", "partial-start", 4),
        ("gap", "lost-records", 1),
        ("gap", "no-create-record", 1),
    ]
    assert run.ref.created_ms == 2


def test_messages_that_cannot_be_read_are_losses(tmp_path: Path) -> None:
    path = write_database(
        tmp_path / "db" / "x.sqlite3",
        [
            (1, CREATED),
            (2, b"\xff\xff\xff"),
            (3, snapshot(0, append={"m": 1.0, "odd": value(bool=True), "none": value()})),
        ],
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO run_operations VALUES (NULL, 4, 9, x'00', 1)")
    run = read_one(tmp_path / "db", tmp_path / "archive")
    assert run.series == {"m": [("0", 1_700_000_000_000, 1.0)]}
    assert sorted((one.kind, one.code, one.field) for one in run.findings) == [
        ("loss", "bad-record", ""),
        ("loss", "unknown-operation", ""),
        ("loss", "unknown-value", "none"),
        ("loss", "unknown-value", "odd"),
    ]
