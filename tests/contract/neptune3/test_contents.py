"""What was logged is what is read: types, exact numbers, points, files, forks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.neptune3 import Neptune3Source, open_source
from shardmig.archive.files import DigestSink
from shardmig.records import FloatPoints, Header, ProjectId, RunId, Selection
from tests.contract.neptune3.filling import CREATED_MS, add_long_series, append, assign, create, rich_project, upload
from tests.contract.neptune3.reading import list_all, read_all, same
from tests.servers.neptune3.server import Neptune3

WRITER = """
    import datetime, math
    from neptune_scale import Run
    from neptune_scale.types import Histogram

    def start(run_id, **more):
        return Run(project="ws/p", run_id=run_id, experiment_name="exp", enable_console_log_capture=False,
                   source_tracking_config=None, **more)

    if __name__ == "__main__":
        run = start("run-1")
        run.log_configs({"p/int": 2**53 + 1, "p/nan": math.nan, "p/text": "x", "p/yes": True,
                         "p/at": datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc)})
        run.add_tags(["b", "a"])
        for step in range(5):
            run.log_metrics({"m/loss": 1 / (step + 1), "m/zero": 0.0}, step=step * 0.5)
            run.log_string_series({"t/log": f"line {step}"}, step=step)
            run.log_histograms({"h/w": Histogram(bin_edges=[0, 1, 2], counts=[step, 2])}, step=step)
        run.log_metrics({"m/loss": math.nan}, step=10)
        run.assign_files({"f/x.y": b"hello", "f/x_y": b"world"})
        run.log_files({"fs/a": b"one"}, step=0)
        run.log_files({"fs/a": b"two"}, step=1.5)
        run.close()
        fork = start("fork", fork_run_id="run-1", fork_step=1)
        fork.log_metrics({"m/loss": 7.0}, step=3)
        fork.close()
"""


def test_what_neptune_scale_wrote_is_read_value_by_value(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    server.store.project("ws/p")
    written = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(WRITER)],
        cwd=tmp_path,
        env={**os.environ, "GIT_PYTHON_REFRESH": "quiet"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert written.returncode == 0, written.stderr
    runs = list_all(source, "ws/p")
    assert [(run.id, run.locator, run.parent) for run in runs] == [("run-1", "P-1", None), ("fork", "P-2", "run-1")]
    found = read_all(source, runs, tmp_path)
    for run in runs:
        assert same(found[run.id].fields, server.store.dump("ws/p", run.id))
        assert not found[run.id].losses()
    whole = found[RunId("run-1")]
    assert whole.fields["p/int", "int"] == 9007199254740993
    assert math.isnan(whole.fields["m/loss", "floatSeries"][-1][2])
    assert found[RunId("fork")].fields["m/loss", "floatSeries"] == [(Decimal(3), whole_time(server), 7.0)]


def whole_time(server: Neptune3) -> int:
    """The time of the fork's only point."""
    return int(server.store.projects["ws/p"].by_custom_id["fork"].series["m/loss"].committed[0].time_ms)


def test_every_type_and_hazard_is_read_as_it_is(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    rich_project(server)
    found = read_all(source, list_all(source, "ws/rich"), tmp_path)
    for run_id, contents in found.items():
        assert same(contents.fields, server.store.dump("ws/rich", run_id))
        assert not contents.losses()


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/St_Johns"])
def test_times_do_not_depend_on_where_it_is_executed(
    zone: str, server: Neptune3, source: Neptune3Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    rich_project(server)
    runs = list_all(source, "ws/rich")
    assert runs[0].created_ms == CREATED_MS
    fields = read_all(source, runs[:1], tmp_path)[runs[0].id].fields
    assert fields["sys/creation_time", "datetime"] == CREATED_MS
    assert fields["logs/err", "stringSeries"][1][1] == CREATED_MS + 1


def test_a_fork_has_its_own_points_and_with_lineage_those_of_its_ancestors(server: Neptune3, tmp_path: Path) -> None:
    create(server, "ws/f", "root")
    append(server, "ws/f", "root", "m", [(step, CREATED_MS, float(step)) for step in range(10)])
    append(server, "ws/f", "root", "only/root", [(step, CREATED_MS, 1.0) for step in range(3)])
    create(server, "ws/f", "child", fork=("root", "5"))
    append(server, "ws/f", "child", "m", [(step, CREATED_MS, 10.0 + step) for step in range(6, 9)])
    create(server, "ws/f", "grandchild", fork=("child", "7"))
    append(server, "ws/f", "grandchild", "m", [("7.5", CREATED_MS, 20.0)])
    for lineage in ("no", "yes"):
        source = open_source({"lineage": lineage})
        found = read_all(source, list_all(source, "ws/f"), tmp_path)
        source.close()
        for run_id, contents in found.items():
            assert same(contents.fields, server.store.dump("ws/f", run_id, lineage=lineage == "yes")), (run_id, lineage)
            assert not contents.losses()
        steps = [float(step) for step, _, _ in found[RunId("grandchild")].fields["m", "floatSeries"]]
        assert steps == ([0, 1, 2, 3, 4, 5, 6, 7, 7.5] if lineage == "yes" else [7.5])
        header = found[RunId("grandchild")].pieces[0].chunk
        assert isinstance(header, Header)
        assert header.run.parent == "child"
        assert found[RunId("grandchild")].fields["sys/forking/step", "float"] == 7.0


def test_no_rows_appear_for_fields_that_a_run_does_not_have(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    create(server, "ws/p", "has")
    create(server, "ws/p", "has-not")
    assign(server, "ws/p", "has", {"only/here": 1, "typed": 2})
    assign(server, "ws/p", "has-not", {"typed": "two"})
    found = read_all(source, list_all(source, "ws/p"), tmp_path)
    assert not [key for key in found[RunId("has-not")].fields if key[0] in ("only/here", "sys/forking/parent")]
    assert found[RunId("has")].fields["typed", "int"] == 2
    assert found[RunId("has-not")].fields["typed", "string"] == "two"


def test_runs_without_a_custom_id_go_by_the_id_of_the_server(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    project = server.store.project("ws/old")
    project.create(None)
    create(server, "ws/old", "OLD-1")  # what a user calls a run may be what the server calls another one
    runs = list_all(source, "ws/old")
    assert [(run.id, run.locator) for run in runs] == [("OLD-1", "OLD-1"), ("OLD-1 (OLD-2)", "OLD-2")]
    assert all(not contents.losses() for contents in read_all(source, runs, tmp_path).values())


def test_files_keep_their_names_and_never_share_one(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    create(server, "ws/p", "run")
    places = {"f/x.y": "a/x_y/model.pt", "f/x_y": "b/x_y/model.pt", "g": "c/none/plot"}
    assign(
        server,
        "ws/p",
        "run",
        {path: upload(server, "ws/p", place, path.encode(), "image/png") for path, place in places.items()},
    )
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    names = {path: ref.name for (path, _), ref in contents.files.items()}
    assert names == {"f/x.y": "model.pt", "f/x_y": "model.pt", "g": "plot.png"}
    assert {path: contents.fields[path, "fileRef"] for path in places} == {path: path.encode() for path in places}


def test_a_file_that_the_store_no_longer_has_is_a_gap(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    create(server, "ws/p", "run")
    assign(server, "ws/p", "run", {path: upload(server, "ws/p", f"at/{path}", b"1") for path in ("a", "b")})
    del server.store.objects["ws/p", "at/a"]
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    assert [(one.kind, one.code, one.field) for one in contents.findings] == [("gap", "file-not-stored", "a")]
    assert contents.fields["b", "fileRef"] == b"1"


def test_previews_are_apart_from_points_and_only_there_when_asked(server: Neptune3, tmp_path: Path) -> None:
    create(server, "ws/p", "run")
    append(server, "ws/p", "run", "m", [(1, CREATED_MS, 1.0), (2, CREATED_MS, 2.0)])
    append(server, "ws/p", "run", "m", [(3, CREATED_MS, 3.0)], completion=0.25)
    for asked in ("no", "yes"):
        source = open_source({"metric-previews": asked})
        contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
        source.close()
        assert [value for _, _, value in contents.fields["m", "floatSeries"]] == [1.0, 2.0]
        previews = {key: rows for (key, _), rows in contents.fields.items() if key.startswith("sys/metric_previews/")}
        if asked == "yes":
            assert previews == {
                "sys/metric_previews/value/m": [(Decimal(3), CREATED_MS, 3.0)],
                "sys/metric_previews/completion/m": [(Decimal(3), CREATED_MS, 0.25)],
            }
        else:
            assert not previews
            assert [(one.kind, one.code, one.field) for one in contents.findings] == [
                ("note", "previews-left-out", "m")
            ]


def test_a_type_of_a_newer_server_is_a_loss_not_silence(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    create(server, "ws/p", "run")
    server.store.projects["ws/p"].by_custom_id["run"].values["new/kind"] = ("tensor", None)
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    assert [(one.code, one.field) for one in contents.losses()] == [("unknown-type", "new/kind")]


def test_a_server_that_wants_types_named_is_read_too(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    rich_project(server)
    server.reader.wants_types = True
    found = read_all(source, list_all(source, "ws/rich"), tmp_path)
    assert all(same(one.fields, server.store.dump("ws/rich", run_id)) for run_id, one in found.items())


def test_the_state_of_old_runs_is_a_gap(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    create(server, "ws/p", "run")
    server.store.projects["ws/p"].by_custom_id["run"].values["sys/state"] = ("experimentState", None)
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    assert [(one.kind, one.code, one.field) for one in contents.findings] == [("gap", "value-not-offered", "sys/state")]


def test_a_million_points_come_whole_in_order_and_in_bounded_columns(server: Neptune3, source: Neptune3Source) -> None:
    create(server, "ws/p", "run")
    add_long_series(server, "ws/p", "run", "m", 1_000_000)
    pieces = source.read_runs(list_all(source, "ws/p"), Want(chunk_points=30_000), DigestSink())
    chunks = [piece.chunk for piece in pieces if isinstance(piece.chunk, FloatPoints)]
    assert {len(chunk.values) for chunk in chunks[:-1]} == {30_000}
    rows = np.arange(1_000_000)
    assert np.array_equal(np.concatenate([chunk.steps.units for chunk in chunks]), rows)
    assert np.array_equal(np.concatenate([chunk.times_ms for chunk in chunks]), rows + CREATED_MS)
    assert np.array_equal(np.concatenate([chunk.values for chunk in chunks]), [math.sin(row / 1_000) for row in rows])


def test_a_run_of_nine_thousand_fields_costs_few_requests(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    create(server, "ws/p", "wide")
    assign(server, "ws/p", "wide", {f"params/p{number:05}": number for number in range(4_500)})
    for number in range(4_500):
        append(server, "ws/p", "wide", f"metrics/m{number:05}", [(0, CREATED_MS, number / 7), (1, CREATED_MS, 0.0)])
    runs = list_all(source, "ws/p")
    server.requests.clear()
    contents = read_all(source, runs, tmp_path)[RunId("wide")]
    assert same(contents.fields, server.store.dump("ws/p", "wide"))
    assert sum(server.requests.values()) <= 12, server.requests


def test_a_small_run_of_every_type_costs_seven_requests_beside_its_files(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    rich_project(server)
    runs = [run for run in list_all(source, "ws/rich") if run.id == "run-1"]
    server.requests.clear()
    read_all(source, runs, tmp_path)
    server.requests.pop("/objects/")
    assert server.requests == {
        "/api/leaderboard/v1/proto/leaderboard/attributes/query": 1,
        "/api/leaderboard/v1/proto/attributes/series/float": 1,
        "/api/leaderboard/v1/proto/attributes/series": 3,
        "/api/storagebridge/v1/signedUrl": 2,
    }


def test_fields_selected_by_name_are_all_that_is_transferred(server: Neptune3, tmp_path: Path) -> None:
    create(server, "ws/p", "wide")
    assign(server, "ws/p", "wide", {f"p{number}": number for number in range(100)})
    server.pages.values = 10
    source = open_source({})
    selection = Selection(attributes=("p7", "p70"))
    runs = list_all(source, "ws/p")
    server.requests.clear()
    contents = read_all(source, runs, tmp_path, selection=selection)[RunId("wide")]
    source.close()
    assert contents.fields == {("p7", "int"): 7, ("p70", "int"): 70}
    assert server.requests.total() == 1


def test_only_selected_projects_are_listed(server: Neptune3) -> None:
    for project in ("ws/a", "ws/b-old", "ws/b-new", "other/a", "ws/secret"):
        server.store.project(project)
    server.store.denied.add("ws/secret")

    def listed(options: dict[str, str], *projects: str) -> list[ProjectId]:
        source = open_source(options)
        found = list(source.list_projects(Selection(projects=projects)))
        source.close()
        return found

    assert listed({}) == ["other/a", "ws/a", "ws/b-new", "ws/b-old"]
    assert listed({"workspace": "ws"}) == ["ws/a", "ws/b-new", "ws/b-old"]
    assert listed({"workspace": "ws", "project-pattern": "^b", "project-exclude-pattern": "old$"}) == ["ws/b-new"]
    assert listed({}, "ws/b-old", "ws/a") == ["ws/a", "ws/b-old"]


def test_the_server_answers_a_runs_query(server: Neptune3) -> None:
    for number in range(4):
        create(server, "ws/p", f"run-{number}")
        assign(server, "ws/p", f"run-{number}", {"params/lr": number / 10})
    source = open_source({"runs-query": '(`params/lr`:float >= 0.2) OR (`sys/custom_run_id`:string == "run-0")'})
    assert [run.id for run in list_all(source, "ws/p")] == ["run-0", "run-2", "run-3"]
    source.close()
