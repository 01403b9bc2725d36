"""Faults cost time and nothing else; what is lost for good is told by field."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shardmig import codec
from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.neptune2 import Neptune2Source, parse_options
from shardmig.archive.files import DigestSink
from shardmig.errors import AuthFailed, Denied, NotFound, Transient
from shardmig.records import End, Finding, FloatPoints, Header, Piece, RunRef, Selection
from tests.contract.neptune2.vendor import EVERYTHING, PROJECT, listed, open_neptune2, read
from tests.servers.faults import Faults
from tests.servers.neptune2.entities import Attribute, Series
from tests.servers.neptune2.server import NeptuneServer

OUTAGE_S = float(os.environ.get("OUTAGE_S", "1"))


@pytest.fixture
def faulty(neptune2: NeptuneServer, monkeypatch: pytest.MonkeyPatch) -> NeptuneServer:
    """The written server with faults of this test's own."""
    monkeypatch.setattr(neptune2, "faults", Faults())
    return neptune2


@pytest.fixture
def source(faulty: NeptuneServer) -> Iterator[ReadSide]:
    """A source that is connected already: the client's own start has pauses of seconds."""
    source = open_neptune2()
    listed(source)
    faulty.requests.clear()
    yield source
    source.close()


def stream_until_end(stream: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces of one run."""
    for piece in stream:
        yield piece
        if isinstance(piece.chunk, End):
            return


def first_run(source: ReadSide) -> RunRef:
    return next(iter(source.list_runs(PROJECT, EVERYTHING)))


def test_a_fifth_of_all_requests_may_fail_and_nothing_is_lost(faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    undisturbed = read(source, run)
    faulty.faults.share = 0.2
    disturbed = read(source, run)
    assert faulty.faults.injected > 0
    assert codec.encode(disturbed.pieces) == codec.encode(undisturbed.pieces)


def test_five_percent_faults_lose_nothing_of_twenty_runs(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    for number in range(20):
        entity = empty_neptune2.store.add_entity(project, "run")
        entity.put("number", "int", number)
        for name in ("a", "b"):
            series = Series(list(map(float, range(1_500))), list(range(1_500)), [number / 7] * 1_500)
            entity.attributes[name] = Attribute("floatSeries", series)
    source = open_neptune2(scopes="runs")
    runs = listed(source)
    empty_neptune2.faults.share, empty_neptune2.api.page = 0.05, 250
    found = {run.id: read(source, run) for run in runs}
    source.close()
    assert empty_neptune2.faults.injected > 5
    dump = empty_neptune2.store.dump()
    for run_id, held in found.items():
        assert not [one for one in held.findings if one.kind == "loss"]
        assert {name: held.floats[name] for name in ("a", "b")} == {
            name: dump[f"{PROJECT}/{run_id}"][name][1] for name in ("a", "b")
        }


def test_listing_survives_faults(faulty: NeptuneServer, source: ReadSide) -> None:
    undisturbed = listed(source)
    faulty.faults.share = 0.5
    assert listed(source) == undisturbed
    assert faulty.faults.injected > 0


def test_an_outage_costs_nothing_but_time(faulty: NeptuneServer) -> None:
    """Of a second here; scripts/outage_campaign makes it a minute."""
    source = Neptune2Source(parse_options({}))
    run = first_run(source)
    undisturbed = read(source, run)
    faulty.faults.die(OUTAGE_S)
    began = time.monotonic()
    assert codec.encode(read(source, run).pieces) == codec.encode(undisturbed.pieces)
    source.close()
    assert time.monotonic() - began >= OUTAGE_S


def test_the_pause_that_the_server_asks_for_is_kept(faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    faulty.faults = Faults(upcoming=["429"], retry_after_s=1)
    began = time.monotonic()
    read(source, run)
    assert time.monotonic() - began >= 1.0


def test_access_tokens_are_renewed_while_reading(empty_neptune2: NeptuneServer) -> None:
    empty_neptune2.token_life_s = 1.0
    empty_neptune2.store.add_entity(empty_neptune2.store.add_project(PROJECT, "VIS"), "run")
    source = open_neptune2()
    run = first_run(source)
    refreshed = empty_neptune2.refreshed
    time.sleep(1.1)
    assert read(source, run).fields
    source.close()
    assert empty_neptune2.refreshed > refreshed


def test_a_token_that_the_server_forgot_is_replaced_once(faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    faulty.refreshed = 0
    faulty.expire_tokens()
    assert read(source, run).floats
    assert faulty.refreshed == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("metrics/loss", "field-refused"),
        ("log/out", "field-refused"),
        ("files/large", "file-refused"),
        ("files/tree", "file-refused"),
        ("images/rare", "file-refused"),
    ],
)
def test_a_field_that_is_refused_is_a_loss_of_that_field_alone(
    faulty: NeptuneServer, source: ReadSide, path: str, code: str
) -> None:
    run = first_run(source)
    whole = read(source, run)
    faulty.faults.failing = {path: 404}
    partial = read(source, run)
    [loss] = [one for one in partial.findings if one.kind == "loss"]
    assert (loss.code, loss.field) == (code, path)
    assert set(whole.floats) - {path} == set(partial.floats)
    assert {key for key in whole.files if key[0] != path} == set(partial.files)


@pytest.mark.parametrize("path", ["files/large", "files/tree"])
@pytest.mark.parametrize("times", [1, 1000])
def test_a_file_shorter_than_told_or_a_damaged_zip_is_fetched_again_and_then_a_loss_of_that_field(
    path: str, times: int, faulty: NeptuneServer, source: ReadSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [path] if times > 1 else []
    run = first_run(source)
    whole = read(source, run)
    monkeypatch.setattr(faulty.api, "cut_short", {path: times})
    found = read(source, run)
    assert [one.field for one in found.findings if one.kind == "loss"] == losses
    assert {key: refs for key, refs in whole.files.items() if key[0] not in losses} == found.files


@pytest.mark.parametrize(("times", "losses"), [(1, []), (1000, ["metrics/one"])])
def test_a_page_that_cannot_be_read_is_asked_for_again_and_then_a_loss_of_its_series(
    times: int, losses: list[str], faulty: NeptuneServer, source: ReadSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = first_run(source)
    whole = read(source, run)
    monkeypatch.setattr(faulty.api, "cut_short", {"metrics/one": times})
    found = read(source, run)
    assert [one.field for one in found.findings if one.kind == "loss"] == losses
    assert set(whole.floats) - set(losses) == set(found.floats)


@pytest.mark.parametrize("status", [404, 500])
def test_an_image_that_is_refused_costs_no_other_one(status: int, faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    whole = read(source, run)
    entity = faulty.store.entity(f"{PROJECT}/VIS-1")
    faulty.faults.failing = {f"images/rare {entity.id} {index}": status for index in (0, 1)}
    partial = read(source, run)
    assert partial.files["images/rare", "file_series"] == whole.files["images/rare", "file_series"][2:]
    [loss] = [one for one in partial.findings if one.kind == "loss"]
    assert (loss.code, loss.field, loss.count) == ("file-refused", "images/rare", 2)


def test_a_field_that_the_server_always_fails_at_is_a_loss(faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    whole = read(source, run)
    faulty.faults.failing = {"metrics/one": 500}
    partial = read(source, run)
    [loss] = [one for one in partial.findings if one.kind == "loss"]
    assert (loss.code, loss.field) == ("field-refused", "metrics/one")
    assert set(whole.floats) - {"metrics/one"} == set(partial.floats)


def test_a_server_that_fails_at_everything_costs_no_field(faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    faulty.faults.failing = {"metrics/one": 500, "getExperiment ": 500}
    with pytest.raises(Transient) as raised:
        read(source, run)
    assert (raised.value.run, raised.value.field) == (run.label, "metrics/one")


def test_a_series_that_is_shorter_than_the_server_counts_is_a_loss(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    series = Series(list(map(float, range(50))), [0] * 50, [0.5] * 50)
    entity.attributes["m"] = Attribute("floatSeries", series)
    empty_neptune2.api.counted_too_many = 7
    source = open_neptune2()
    run = read(source, first_run(source))
    source.close()
    assert len(run.floats["m"]) == 50
    assert run.findings == [Finding("loss", "series-cut", "m", 7, "the server counts 57")]


@pytest.mark.parametrize("kind", ["floatSeries", "stringSeries"])
def test_a_series_that_ends_before_its_last_step_is_a_loss(kind: str, empty_neptune2: NeptuneServer) -> None:
    entity = empty_neptune2.store.add_entity(empty_neptune2.store.add_project(PROJECT, "VIS"), "run")
    values = [0.5] * 50 if kind == "floatSeries" else ["x"] * 50
    entity.attributes["m"] = Attribute(kind, Series(list(map(float, range(50))), [0] * 50, values))
    empty_neptune2.api.counted_too_many, empty_neptune2.api.page = -7, 10
    source = open_neptune2()
    run = read(source, first_run(source))
    source.close()
    assert len(run.floats.get("m", [])) + len(run.texts.get("m", [])) == 43
    [loss] = run.findings
    assert (loss.kind, loss.code, loss.field) == ("loss", "series-cut", "m")


def test_a_run_that_is_gone_fails_alone_and_behind_the_runs_before_it(faulty: NeptuneServer, source: ReadSide) -> None:
    runs = listed(source)
    faulty.faults.failing = {f"getExperimentAttributes {faulty.store.entity(f'{PROJECT}/VIS-2').id}": 404}
    stream = source.read_runs(runs, Want(selection=EVERYTHING), DigestSink())
    assert [piece.run.id for piece in stream_until_end(stream)][-1] == "VIS-1"
    with pytest.raises(NotFound) as raised:
        next(stream)
    assert raised.value.run == "ws/vision/VIS-2"


def test_a_reading_that_is_abandoned_goes_on_behind_its_cursor(faulty: NeptuneServer, source: ReadSide) -> None:
    run = first_run(source)
    want = Want(selection=EVERYTHING, chunk_points=500)
    whole = list(source.read_runs([run], want, DigestSink()))
    for cut in range(1, len(whole) - 1):
        stream = source.read_runs([run], want, DigestSink())
        begun = list(itertools.islice(stream, cut))
        stream.close()  # type: ignore[attr-defined]
        resumed = Want(selection=EVERYTHING, chunk_points=500, cursors={run.id: begun[-1].cursor})
        [header, *rest] = source.read_runs([run], resumed, DigestSink())
        assert isinstance(header.chunk, Header)
        assert codec.encode([*begun, *rest]) == codec.encode(whole)


def test_one_request_brings_a_run_beside_its_pages_and_files(faulty: NeptuneServer, source: ReadSide) -> None:
    runs = [run for run in listed(source) if run.id == "VIS-1"]
    faulty.requests.clear()
    list(source.read_runs(runs, Want(selection=EVERYTHING), DigestSink()))
    pages_and_files = {
        "getFloatSeriesValues": 4,
        "getStringSeriesValues": 1,
        "getImageSeriesValues": 2,
        "getImageSeriesValue": 6,
        "downloadAttribute": 2,
        "prepareForDownloadFileSetAttributeZip": 1,
        "getDownloadPrepareRequest": 2,
        "fetchDownload": 1,
        "listArtifactFiles": 1,
    }
    assert dict(faulty.requests) == {"getExperimentAttributes": 1, **pages_and_files}


def test_requests_are_under_way_side_by_side(faulty: NeptuneServer, source: ReadSide) -> None:
    runs = listed(source)
    faulty.faults.latency_s = 0.1
    faulty.requests.clear()
    began = time.monotonic()
    list(source.read_runs(runs, Want(selection=EVERYTHING), DigestSink()))
    took_s = time.monotonic() - began
    assert took_s < faulty.requests.total() * 0.1 / 2


def test_a_missing_and_a_wrong_token_are_told(
    faulty: NeptuneServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NEPTUNE_API_TOKEN")
    with pytest.raises(AuthFailed, match="no Neptune API token"):
        list(open_neptune2().list_projects(EVERYTHING))
    monkeypatch.setenv("NEPTUNE_API_TOKEN", "bm90aGluZw==")
    with pytest.raises(AuthFailed):
        list(open_neptune2().list_projects(EVERYTHING))
    (tmp_path / "token").write_text(f"{faulty.api_token}\n")
    source = open_neptune2(token_file=str(tmp_path / "token"))
    assert len(list(source.list_projects(EVERYTHING))) == 2
    source.close()


def test_a_revoked_token_is_told(empty_neptune2: NeptuneServer) -> None:
    empty_neptune2.faults.failing = {"getClientConfig": 401}
    with pytest.raises(AuthFailed):
        list(open_neptune2().list_projects(EVERYTHING))


def test_a_forbidden_field_is_a_loss(faulty: NeptuneServer, source: ReadSide) -> None:
    faulty.faults.failing = {"metrics/one": 403}
    [loss] = [one for one in read(source, first_run(source)).findings if one.kind == "loss"]
    assert (loss.code, loss.field) == ("field-refused", "metrics/one")
    faulty.faults.failing = {"searchLeaderboardEntries": 403}
    with pytest.raises(Denied):
        list(source.list_runs(PROJECT, Selection(projects=(PROJECT,))))


def test_a_run_of_9000_fields_takes_one_request_and_one_for_each_series(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    for number in range(8_000):
        entity.put(f"params/{number}", "int", number)
    for number in range(1_000):
        entity.attributes[f"metrics/{number}"] = Attribute("floatSeries", Series([0.0, 1.0], [1, 2], [0.5, 0.25]))
    source = open_neptune2()
    run = read(source, first_run(source))
    source.close()
    assert len(run.fields) == 8_000 + sum(path.startswith("sys/") for path in entity.attributes)
    assert len(run.floats) == 1_000
    assert empty_neptune2.requests["getExperimentAttributes"] == 1
    assert empty_neptune2.requests["getFloatSeriesValues"] == 1_000


def test_a_series_of_a_million_points_is_whole_and_in_order(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    steps = [float(number) for number in range(1_000_000)]
    entity.attributes["m"] = Attribute("floatSeries", Series(steps, list(range(1_000_000)), steps))
    source = open_neptune2()
    chunks = [
        piece.chunk
        for piece in source.read_runs([first_run(source)], Want(), DigestSink())
        if isinstance(piece.chunk, FloatPoints)
    ]
    source.close()
    assert [len(chunk.steps) for chunk in chunks] == [250_000] * 4
    whole = np.arange(1_000_000)
    assert np.array_equal(np.concatenate([chunk.steps.units for chunk in chunks]), whole)
    assert np.array_equal(np.concatenate([chunk.times_ms for chunk in chunks]), whole)
    assert np.array_equal(np.concatenate([chunk.values for chunk in chunks]), whole)
