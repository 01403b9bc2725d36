"""What neptune-exporter loses, doubles or breaks, moved by shardmig as a user types it: nothing of it happens here.

Defects that other tests already show to be absent:

    a cut export finalised as whole; Ctrl-C upgrades "resumable" to "truncated"    tests/crash
    another process on the same run; no fsync before the rename                     tests/crash
    a run id that holds `_part_0`, or is longer than a file name may be, on export  tests/unit/archive/test_layout.py
    steps closer than 1e-6 merge; NaN becomes null                                  tests/property/test_archive_round_trip.py
    two attributes that differ in punctuation are written to one file on export     tests/unit/archive/test_files.py
    an attribute path with `..` is written outside the export's folder              tests/unit/archive/test_files.py
    series times of the local clock taken for UTC; steps of images replaced by an
    index; files without their extension (local folders; every time zone)           tests/e2e/test_neptune_local_clients.py
    absent attributes become rows of nothing                                        tests/unit/archive/test_exporter_archives.py
    `--help` imports every tracker; imports change the environment                  tests/unit/cli/test_command_line.py
    a password in argv                                                              tests/unit/cli/test_adapter_flags.py
    hostile paths, links and names                                                  tests/e2e/test_hostile_archives.py
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.e2e.moved import CREATED, Moved, field, file, moved, point
from tests.servers.tracking_databases import sqlite_file, sqlite_template
from tests.unit.neptune_local.local_data import snapshot, write_database

__all__ = ["moved", "sqlite_file", "sqlite_template"]


def losses(outcome: Any) -> list[tuple[str, str]]:
    return [(one["code"], one["field"]) for one in outcome["findings"] if one["kind"] == "loss"]


def test_a_half_loaded_run_is_finished_by_the_same_command_and_not_skipped(moved: Moved) -> None:
    moved.part([point("loss", step, step / 7) for step in range(500)] + [file("model", "RUN-1/model.bin")])
    assert losses(moved.load(code=3)["RUN-1"]) == [("missing-file", "model")]
    assert moved.run().data.tags["shardmig.state"] == "loading"
    assert moved.verify(code=5) == {"RUN-1": "differs"}
    moved.stored("RUN-1/model.bin", b"weights")
    assert moved.moved() == {"RUN-1": "equal"}
    assert len(moved.history("loss")) == 500


def test_the_exit_code_tells_of_every_failure_and_the_report_names_the_run(moved: Moved) -> None:
    for run in ("RUN-1", "RUN-2", "RUN-3"):
        moved.part([field("lr", "float", 0.1)], run)
    [broken] = (moved.folder / "data").rglob("RUN-2*")
    broken.write_bytes(broken.read_bytes()[:-9])
    moved.load(code=3)
    assert "RUN-2" in moved.said
    assert sorted(moved.runs()) == ["RUN-1", "RUN-3"]
    moved.command(f"load {moved.into} -r no-such-run", code=2)


def test_an_integer_stays_the_integer_that_it_is(moved: Moved) -> None:
    integers = [2**53 + 1, 2**63 - 1, -(2**63), 7]
    moved.part([field(f"seed{number}", "int", integer) for number, integer in enumerate(integers)])
    moved.part([field("other", "float", 0.5)], "RUN-2")
    assert set(moved.moved().values()) == {"equal"}
    assert moved.runs()["RUN-1"].data.params == {
        f"seed{number}": str(integer) for number, integer in enumerate(integers)
    }


def test_steps_of_two_decimals_times_100_are_exact(moved: Moved) -> None:
    steps = [Decimal(step) / 100 for step in range(1000)]
    moved.part([point("loss", step, float(step)) for step in steps])
    assert moved.moved("--step-multiplier", "100") == {"RUN-1": "equal"}
    assert sorted(step for step, _, _ in moved.history("loss")) == list(range(1000))


def test_decimal_steps_are_never_merged_unasked(moved: Moved) -> None:
    moved.part([point("loss", step, 1.0) for step in ("0", "0.25", "0.5", "0.75")])
    refused = moved.load("--step-multiplier", "1", code=3)["RUN-1"]
    assert refused["failure"]["error"] == "StepConflict"
    assert "--step-multiplier 4" in refused["failure"]["hint"]
    assert moved.moved() == {"RUN-1": "equal"}
    assert [step for step, _, _ in moved.history("loss")] == [0, 1, 2, 3]


def test_points_without_time_are_told_and_abort_nothing(moved: Moved) -> None:
    moved.part([point("a", 0, 1.0, None), point("a", 1, 2.0), point("b", 0, 3.0), field("lr", "float", 0.1)])
    assert moved.moved() == {"RUN-1": "approximated"}
    assert moved.history("a") == [(0, 0, 1.0), (1, CREATED, 2.0)]
    assert moved.history("b") == [(0, CREATED, 3.0)]


def test_series_that_are_split_over_parts_are_whole(moved: Moved) -> None:
    for number in range(3):
        steps = range(number * 10, number * 10 + 10)
        histogram = ("COUNTING", [0.0, 1.0], [1.0])
        moved.part(
            [point("log", step, f"line {step}", kind="string") for step in steps]
            + [point("weights", step, histogram, kind="histogram") for step in steps]
            + [point("loss", step, step / 3) for step in steps],
            number=number,
        )
    assert moved.moved() == {"RUN-1": "equal"}
    assert [line.rpartition("; ")[2] for line in moved.artifact("log/series.txt").decode().splitlines()] == [
        f"line {step}" for step in range(30)
    ]
    assert len(json.loads(moved.artifact("weights/histograms.json"))) == 30
    assert len(moved.history("loss")) == 30


def test_a_missing_or_unreadable_part_fails_the_run_instead_of_shortening_it(moved: Moved) -> None:
    for run in ("middle", "cut"):
        for number in range(3):
            moved.part([point("loss", number, 1.0)], run, number=number)
    (folder,) = (moved.folder / "data").iterdir()
    next(folder.glob("middle*_part_1.parquet")).unlink()
    cut = next(folder.glob("cut*_part_2.parquet"))
    cut.write_bytes(cut.read_bytes()[:-9])
    moved.load(code=3)
    assert "part_1" in moved.said
    assert "part_2" in moved.said
    assert not any(run.data.tags["shardmig.state"] == "complete" for run in moved.runs().values())


def test_histograms_keep_every_bin_and_every_digit(moved: Moved) -> None:
    edges, counts = [number / 3 for number in range(2001)], [number / 7 for number in range(2000)]
    moved.part([point("weights", 0, ("DENSITY", edges, counts), kind="histogram")])
    assert moved.moved() == {"RUN-1": "equal"}
    [shown] = json.loads(moved.artifact("weights/histograms.json"))
    assert (shown["edges"], shown["values"]) == (edges, counts)


def test_no_run_id_breaks_the_search_or_is_loaded_twice(moved: Moved) -> None:
    ids = ["it's", "' OR 1=1 --", 'say "so"', "run_part_0", "x" * 400, "a%b_c\\"]
    for run in ids:
        moved.part([point("loss", 0, 1.0)], run)
    assert moved.moved() == dict.fromkeys(ids, "equal")
    assert {outcome["state"] for outcome in moved.load().values()} == {"skipped"}
    assert sorted(run.data.tags["shardmig.run_id"] for run in moved.runs().values()) == sorted(ids)


def test_runs_of_two_projects_with_one_id_and_without_name_stay_two(moved: Moved) -> None:
    for project, rate in (("ws/one", 0.1), ("ws/two", 0.2)):
        moved.part([field("lr", "float", rate)], "RUN-1", project)
    moved.moved()
    runs = [
        moved.client.search_runs([moved.client.get_experiment_by_name(name).experiment_id])
        for name in ("ws/one", "ws/two")
    ]
    assert [[run.data.params["lr"] for run in some] for some in runs] == [["0.1"], ["0.2"]]


def test_a_run_without_any_sys_field_is_loaded(moved: Moved) -> None:
    moved.part([point("loss", 0, 1.0)], "bare")
    assert moved.moved() == {"bare": "equal"}
    assert list(moved.runs()) == ["bare"]


def test_steps_beyond_a_trillion_keep_their_run(moved: Moved) -> None:
    steps = [1_700_000_000_000, 1_700_000_000_001, 9_007_199_254_740_993]
    updates = [(CREATED, snapshot(step * 1_000_000, append={"loss": 1.5, "log": "x"})) for step in steps]
    write_database(moved.folder / "source" / "run_operations.sqlite3", updates, project="ws/proj")
    moved.command(f"migrate --source neptune-local source -p ws/proj {moved.into}")
    assert [step for step, _, _ in moved.history("loss")] == steps
    assert set(moved.verify().values()) == {"equal"}


def test_names_that_mlflow_refuses_or_that_others_clean_alike_arrive_apart(moved: Moved) -> None:
    long = "p" * 250
    names = ["a:b", "a_b", "a.b", "cfg//lr", "cfg/lr", "a\tb", "x/", "./x", f"{long}1", f"{long}2", "loss#1", "loss%1"]
    moved.part(
        [field(f"p/{name}", "int", number) for number, name in enumerate(names)]
        + [
            row
            for number, name in enumerate(names)
            for row in (point(f"m/{name}", 0, float(number)), point(f"m/{name}", 1, 0.5))
        ]
    )
    assert moved.moved() == {"RUN-1": "equal"}
    run = moved.run()
    assert sorted(run.data.params.values(), key=int) == [str(number) for number in range(len(names))]
    assert len(run.data.metrics) == len(names)
    assert (run.data.params["p/a:b"], run.data.params["p/a_b"]) == ("0", "1")


def test_nan_and_infinite_values_are_kept(moved: Moved) -> None:
    infinity = float("inf")
    moved.part(
        [
            point("only_nan", 0, None),
            point("loss", 0, infinity),
            point("loss", 1, -infinity),
            field("p", "float", float("nan")),
        ]
    )
    assert moved.moved() == {"RUN-1": "approximated"}
    [(_, _, value)] = moved.history("only_nan")
    assert value != value
    assert moved.run().data.params["p"] == "nan"
    assert "shardmig/exact.parquet" in moved.artifacts()


def test_a_long_text_is_whole_when_read_back(moved: Moved) -> None:
    moved.part([field("prompt", "string", "x" * 7000)])
    assert moved.moved() == {"RUN-1": "approximated"}
    assert "param-truncated" in moved.said
    assert "exact-values-in-sidecar" in moved.said


def test_times_status_owner_description_tags_and_lineage_survive(moved: Moved) -> None:
    facts = [
        field("sys/creation_time", "datetime", CREATED),
        field("sys/running_time", "float", 1.5),
        field("sys/failed", "bool", True),
        field("sys/owner", "string", "eve"),
        field("sys/description", "string", "what for"),
        field("sys/tags", "string_set", ["best"]),
    ]
    moved.part(facts, "parent")
    fork = [field("sys/forking/parent", "string", "parent"), field("sys/forking/step", "float", 2.0)]
    moved.part([*fork, field("sys/name", "string", "another experiment")], "child")
    assert set(moved.moved().values()) == {"equal"}
    runs = moved.runs()
    info, tags = runs["parent"].info, runs["parent"].data.tags
    assert (info.start_time, info.end_time, info.status, info.user_id) == (CREATED, CREATED + 1500, "FAILED", "eve")
    assert (tags["mlflow.note.content"], tags["tags/best"]) == ("what for", "best")
    assert runs["child"].data.tags["mlflow.parentRunId"] == info.run_id
    assert runs["child"].data.tags["shardmig.fork.step"] == "2.0"


def test_a_fork_that_came_before_its_parent_is_linked_when_the_parent_comes(moved: Moved) -> None:
    moved.part([field("lr", "float", 0.1)], "parent")
    moved.part([field("lr", "float", 0.2), field("sys/forking/parent", "string", "parent")], "child")
    moved.load("-r", "child")
    assert "mlflow.parentRunId" not in moved.run().data.tags
    assert set(moved.moved().values()) == {"equal"}
    runs = moved.runs()
    assert runs["child"].data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id


def test_a_series_of_many_lines_is_as_long_on_disk_as_it_is(moved: Moved) -> None:
    moved.part([point("log", step, "x" * 100, kind="string") for step in range(170)])
    moved.load()
    assert moved.artifact("log/series.txt").count(b"x") == 17_000


def test_many_short_series_are_loaded_whole(moved: Moved) -> None:
    rows = [point(f"metrics/m{number:04}", step, 0.5) for number in range(2000) for step in range(3)]
    moved.part(rows)
    assert moved.moved() == {"RUN-1": "equal"}
    assert len(moved.run().data.metrics) == 2000


def test_an_export_of_other_classes_is_no_skip(moved: Moved) -> None:
    moved.part([field("lr", "float", 0.1), point("loss", 0, 1.0)])
    repack = "export --source archive data files -d new/data -f new/files"
    first = moved.command(f"{repack} -c parameters")["phases"][0]["counters"]
    second = moved.command(repack)["phases"][0]["counters"]
    assert (first["fields"], first["points"]) == (1, 0)
    assert (second["fields"], second["points"]) == (2, 1)


def test_strings_of_more_than_two_gigabytes_would_be_read_in_pieces(moved: Moved) -> None:
    """The incumbent keeps the first chunk of a column only; here a column of many chunks loses none."""
    import pyarrow.parquet as pq

    path = moved.part([point("log", step, f"{step}" * 50, kind="string") for step in range(1000)])
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=7)
    assert moved.moved() == {"RUN-1": "equal"}
    assert moved.artifact("log/series.txt").count(b"\n") == 1000


def test_everything_said_on_the_command_line_is_also_one_document(moved: Moved, tmp_path: Path) -> None:
    moved.part([field("lr", "float", 0.1)])
    plan = moved.command(f"plan {moved.into}")
    assert plan["counters"]["runs"] == 1
    assert moved.runs() == {}
