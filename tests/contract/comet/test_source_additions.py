"""What people added to an experiment that shardmig brought comes with the run, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardmig.adapters.base import ReadSide, Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.comet.source import open_source
from shardmig.adapters.conformance.runs import field_digests, plain_run, rich_run
from shardmig.archive.digest import RunDigest
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import (
    ArchivePaths,
    Chunk,
    Field,
    Fields,
    FloatPoints,
    Header,
    LoadOptions,
    ProjectId,
    RunRef,
    Selection,
    Steps,
    TargetRunId,
)
from tests.contract.comet.archives import metric, write_archive
from tests.contract.comet.going_on import go_on_with
from tests.servers.comet.experiments import Asset
from tests.servers.comet.server import CometServer, comet_server
from tests.unit.comet.test_archive_source import Reading

pytestmark = pytest.mark.xdist_group("comet")

MULTIPLIER = 10
LOSS = [(str(step), value) for step, value in enumerate(np.linspace(1.0, 0.1, 10).tolist())]


def load(options: dict[str, str], chunks: list[Chunk], folder: Path, parent: str | None = None) -> str:
    """The run in Comet, as `shardmig load` brings it; the key of its experiment."""
    digest = RunDigest()
    for chunk in chunks:
        digest.add(chunk)
    target = open_target(options, LoadOptions(step_multiplier=100 if len(chunks) > 4 else MULTIPLIER))
    run, of_run = _run(chunks), TargetRunId(parent) if parent else None
    written = target.write_run(migration_key(run), digest.digest(), iter(chunks), files_of(folder, run), of_run)
    target.close()
    return written.id


def files_of(folder: Path, run: RunRef) -> ArchiveFiles:
    return ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), run.project)


def _run(chunks: list[Chunk]) -> RunRef:
    assert isinstance(chunks[0], Header)
    return chunks[0].run


def read(source: ReadSide, project: str, selection: Selection | None = None) -> list[Chunk]:
    """The only run of a project."""
    [run] = source.list_runs(ProjectId(project), Selection())
    want = Want(selection=selection or Selection())
    return [piece.chunk for piece in source.read_runs([run], want, DigestSink())]


def on(server: CometServer) -> dict[str, str]:
    return {"url": server.url, "requests-per-s": "0", "settle-s": "5"}


def source_of(server: CometServer) -> ReadSide:
    return open_source({"url": server.url, "requests-per-s": "0"})


@pytest.fixture(scope="module")
def gone_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CometServer, Path]]:
    """A server, and a folder of offline archives, with a run that people went on with. Not to be changed."""
    folder = tmp_path_factory.mktemp("comet")
    with comet_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("COMET_API_KEY", server.api_key)
        go_on_with(load(on(server), plain_run(), folder), folder, url=server.url)
        archives = folder / "archives"
        options = {"offline-dir": str(archives), "points-per-upload": "4"}
        go_on_with(load(options, plain_run(), folder), archives)
        yield server, archives


@pytest.fixture(params=["server", "archives"])
def changed(request: pytest.FixtureRequest, gone_on: tuple[CometServer, Path], monkeypatch: Any) -> ReadSide:
    """Either of them."""
    server, archives = gone_on
    monkeypatch.setenv("COMET_API_KEY", server.api_key)
    return source_of(server) if request.param == "server" else open_source({"path": str(archives)})


def test_what_people_added_comes_with_the_run(changed: ReadSide) -> None:
    found = Reading(read(changed, "ws/plain"))
    assert {path: str(found.value(path)) for path in ("theirs", "params/lr", "others/Name", "others/notes")} == {
        "theirs": "3",
        "params/lr": "0.5",
        "others/Name": "renamed",
        "others/notes": "look at this",
    }
    assert found.value("sys/comet/added_tags") == ["good"]
    assert found.value("html/0") == "<b>theirs</b>"
    assert found.value("asset_metadata/assets/report.txt") == '{"by":"hand"}'
    [report] = found.files["assets/report.txt"]
    assert (report.step, report.sha256) == (None, sha256(b"theirs").hexdigest())
    assert any("said so" in text for path in ("logs/stdout", "logs/stderr") for text in found.texts.get(path, []))
    assert [one.code for one in found.findings if one.kind == "loss"] == []
    assert [(one.kind, one.code) for one in found.findings if not one.field] == [("gap", "content-changed")]


def test_points_that_people_added_are_of_the_series_and_have_its_steps(changed: ReadSide) -> None:
    """An epoch, and a point that such a series does not take, have fields of their own."""
    found = Reading(read(changed, "ws/plain"))
    points = {path: [(step, value) for step, _, value in rows] for path, rows in found.points.items()}
    assert points["metrics/loss"] == [*LOSS[:3], ("2.5", 0.75), *LOSS[3:], ("12", 0.05)]
    assert points["eval/acc"] == [("20", 0.9)]
    assert points["epochs/eval/acc"] == [("20", 2.0)]
    assert points["metrics/odd"] == [("0.55", 1.5)]
    assert points["metrics/free"] == [("0", 2.5)]


def test_the_run_itself_is_what_it_was(changed: ReadSide) -> None:
    """Neither its owner, nor its script and code are those of who went on with it."""
    found = Reading(read(changed, "ws/plain"))
    own = [field for field in plain_run()[1].fields if field.path != "params/lr"]  # type: ignore[union-attr]
    assert {field.path: found.fields[field.path] for field in own} == {field.path: field for field in own}
    facts = {path for path in found.fields if path.startswith(("sys/", "source_code/"))}
    assert {path for path in facts if not path.startswith("sys/comet/")} == {
        field.path for field in own if field.path.startswith("sys/")
    }


def test_what_was_added_can_be_asked_for_alone(changed: ReadSide) -> None:
    selection = Selection(attributes=("^(sys/comet/added_tags|others/|metrics/odd)",))
    found = Reading(read(changed, "ws/plain", selection))
    assert found.value("sys/comet/added_tags") == ["good"]
    assert sorted(found.fields) == ["others/Name", "others/notes", "sys/comet/added_tags"]
    assert list(found.points) == ["metrics/odd"]
    assert found.files == {}


def test_what_people_added_under_a_name_that_the_run_has_comes_beside_it(tmp_path: Path, comet: CometServer) -> None:
    """As of a run that came from Comet before."""
    chunks = plain_run()
    assert isinstance(chunks[1], Fields)
    before = ("html/0", "others/notes", "sys/comet/added_tags", "metrics/odd", "assets/report.txt")
    chunks[1].fields.extend(Field(path, "string", "before") for path in before)
    load(on(comet), chunks, tmp_path)
    [experiment] = comet.experiments.values()
    experiment.html, experiment.others["notes"] = "<b>theirs</b>", "theirs"
    experiment.tags.append("theirs")
    experiment.metrics["odd"] = [_point("odd", 1.5, step=None)]
    experiment.assets["1" * 32] = Asset("1" * 32, "report.txt", "asset", b"theirs", None, None, 1)
    found = Reading(read(source_of(comet), "ws/plain"))
    assert {found.value(path) for path in before} == {"before"}
    assert found.value("html/0 (2)") == "<b>theirs</b>"
    assert found.value("others/notes (2)") == "theirs"
    assert found.value("sys/comet/added_tags (2)") == ["theirs"]
    assert [value for _, _, value in found.points["metrics/odd (2)"]] == [1.5]
    assert sorted(found.files) == ["assets/report.txt (2)"]


def test_nothing_that_shardmig_wrote_is_taken_for_an_addition(tmp_path: Path, comet: CometServer) -> None:
    """A failed run with long tags, facts and a parent; one with files, drawn histograms and every odd name."""
    parent = load(on(comet), plain_run("ws/other", "PARENT"), tmp_path)
    chunks = _failed_run()
    load(on(comet), chunks, tmp_path, parent)
    [run] = [one for one in comet.experiments.values() if one.others["Name"] == "RUN-1"]
    assert (run.others["parent"], run.error, len(run.tags)) == (parent, "failed in conformance", 42)
    found = read(source_of(comet), "ws/plain")
    assert field_digests(found) == field_digests(chunks)
    assert Reading(found).findings == []
    archive = files_of(tmp_path, RunRef(project=ProjectId("ws/rich"), id=_run(chunks).id))
    rich = rich_run(archive)
    load(on(comet), rich, tmp_path)
    found = read(source_of(comet), "ws/rich")
    assert field_digests(found) == field_digests(rich)
    assert Reading(found).findings == []


def test_a_histogram_that_people_logged_is_told_from_those_that_shardmig_drew(
    tmp_path: Path, comet: CometServer
) -> None:
    """Also under the name of the run's own."""
    rich = rich_run(files_of(tmp_path, RunRef(project=ProjectId("ws/rich"), id=_run(plain_run()).id)))
    load(on(comet), rich, tmp_path)
    [experiment] = comet.experiments.values()
    assert [one.name for one in experiment.assets.values() if one.type == "histogram3d"] == ["histograms/weights"] * 3
    experiment.assets["1" * 32] = Asset("1" * 32, "histograms/weights", "histogram3d", b"{}", 500, None, 1)
    found = Reading(read(source_of(comet), "ws/rich"))
    [theirs] = found.files["histogram3d/histograms/weights"]
    assert (theirs.step, theirs.sha256) == (Decimal(5), sha256(b"{}").hexdigest())
    assert found.findings == []


def test_a_server_that_names_assets_itself_shows_no_additions(tmp_path: Path, comet: CometServer) -> None:
    """As it did for the runs of a shardmig that gave them no ids. Comet's client replaces an asset by one with another id."""
    archive = files_of(tmp_path, RunRef(project=ProjectId("ws/rich"), id=_run(plain_run()).id))
    rich = rich_run(archive)
    load(on(comet), rich, tmp_path)
    [experiment] = comet.experiments.values()
    for number, asset in enumerate(experiment.assets.values()):
        asset.id = f"{number:032}"
    experiment.assets = {asset.id: asset for asset in experiment.assets.values()}
    assert field_digests(read(source_of(comet), "ws/rich")) == field_digests(rich)
    replaced = next(asset for asset in experiment.assets.values() if asset.name == "files/model.pt")
    replaced.content, replaced.metadata = b"theirs", {"by": "hand"}
    found = Reading(read(source_of(comet), "ws/rich"))
    assert found.files["files/model"][0].sha256 == sha256(b"theirs").hexdigest()
    assert found.value("asset_metadata/files/model.pt") == '{"by":"hand"}'
    assert [one.code for one in found.findings] == ["content-changed"]


def test_a_tag_that_people_removed_and_an_error_that_came_later_are_told(tmp_path: Path, comet: CometServer) -> None:
    load(on(comet), plain_run(), tmp_path)
    [experiment] = comet.experiments.values()
    experiment.tags.remove("one")
    experiment.error = "out of memory"
    found = Reading(read(source_of(comet), "ws/plain"))
    assert [(one.kind, one.code, one.field) for one in found.findings] == [
        ("gap", "content-changed", "sys/tags"),
        ("note", "error-shown", ""),
    ]
    assert "'one'" in found.findings[0].detail
    assert "out of memory" in found.findings[1].detail
    assert found.value("sys/tags") == ["one", "two words"]


def test_a_long_series_that_people_went_on_with_keeps_all_of_its_points(tmp_path: Path, comet: CometServer) -> None:
    """Also where the server shows a sample of them; what it keeps of theirs, nobody can tell."""
    count = 16_000
    steps = np.arange(count, dtype=np.int64)
    series = FloatPoints(["long"], np.array([count]), Steps(steps), 1_700_000_000_000 + steps, np.sin(steps))
    chunks = plain_run()
    chunks[2] = series
    load(on(comet), chunks, tmp_path)
    [experiment] = comet.experiments.values()
    comet.most_values = 15_000
    assert Reading(read(source_of(comet), "ws/plain")).findings == []
    experiment.metrics["long"].append(_point("long", 7.0, step=count * MULTIPLIER))
    found = Reading(read(source_of(comet), "ws/plain"))
    assert [value for _, _, value in found.points["long"]] == [*np.sin(steps).tolist(), 7.0]
    assert [(one.code, one.field) for one in found.findings] == [("content-changed", ""), ("series-sampled", "long")]


def test_points_of_any_kind_in_an_archive_that_people_added_are_there(tmp_path: Path) -> None:
    """Earlier steps, texts, values and steps that no double holds; and what stands in a line that is no message is told."""
    folder = tmp_path / "archives"
    key = load({"offline-dir": str(folder), "points-per-upload": "3"}, plain_run(), tmp_path)
    messages: list[Any] = [
        metric("metrics/loss", 5.0, -10),
        metric("metrics/loss", "good", 30),
        metric("metrics/loss", -0.0, 30),
        metric("metrics/loss", 2**53 + 1, 40),
        metric("metrics/loss", 6.0, None),
        metric("metrics/loss", 7.0, 2**63),
        "torn",
    ]
    write_archive(folder / f"{key}-AbCdEf.zip", key, messages, start_time=1_800_000_000_000, resume_strategy="get")
    found = Reading(read(open_source({"path": str(folder)}), "ws/plain"))
    points = [(step, value) for step, _, value in found.points["metrics/loss"]]
    assert points == [("-1", 5.0), *LOSS[:3], *sorted([LOSS[3], ("3", -0.0)], key=lambda point: point[1]), *LOSS[4:]]
    assert np.signbit(points[4][1]) or np.signbit(points[5][1])
    assert found.texts["metrics/metrics/loss"] == ["good"]
    assert [(step, value) for step, _, value in found.points["metrics/metrics/loss"]] == [("4", 2.0**53), ("2", 6.0)]
    assert sorted((one.kind, one.code, one.field) for one in found.findings) == [
        ("approximation", "int-to-float", "metrics/metrics/loss"),
        ("gap", "content-changed", ""),
        ("gap", "message-damaged", ""),
        ("loss", "step-unreadable", "metrics/metrics/loss"),
        ("note", "step-missing", "metrics/metrics/loss"),
    ]


def test_a_numbered_archive_that_is_gone_is_missed_whatever_people_added(tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    key = load({"offline-dir": str(folder), "points-per-upload": "3"}, plain_run(), tmp_path)
    write_archive(folder / f"{key}-AbCdEf.zip", key, [metric("x", 1.0, 0)], resume_strategy="get")
    (folder / f"{key}-0002.zip").unlink()
    with pytest.raises(Exception, match="2 of 3 numbered archives"):
        read(open_source({"path": str(folder)}), "ws/plain")


def _failed_run() -> list[Chunk]:
    chunks = plain_run()
    assert isinstance(chunks[1], Fields)
    tags = ["two\nlines", "t" * 1200, *(f"{'tag ' * 9}{number}" for number in range(40))]
    own: dict[str, Field] = {
        "sys/failed": Field("sys/failed", "bool", True),
        "sys/tags": Field("sys/tags", "string_set", sorted(tags)),
        "sys/group_tags": Field("sys/group_tags", "string_set", []),
        "sys/description": Field("sys/description", "string", "nul\0inside" + "d" * 1500),
        "source_code/entrypoint": Field("source_code/entrypoint", "string", "train.py"),
        "source_code/branch": Field("source_code/branch", "string", "main"),
    }
    fields = [field for field in chunks[1].fields if field.path not in own]
    return [chunks[0], Fields([*fields, *own.values()]), *chunks[2:]]


def _point(name: str, value: float, step: int | None) -> dict[str, Any]:
    return {"metricName": name, "metricValue": value, "timestamp": 1_800_000_000_000, "step": step, "epoch": None}
