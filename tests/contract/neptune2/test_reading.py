"""What the vendor's client wrote is what is read, whatever the server and its network do meanwhile."""

from __future__ import annotations

import hashlib
import json
import time
from decimal import Decimal
from pathlib import Path

import pytest

from shardmig import codec
from shardmig.adapters.base import Want
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Field, FloatPoints, RunRef
from tests.contract.neptune2.vendor import (
    EVERYTHING,
    MOMENT,
    POINTS,
    PROJECT,
    Read,
    listed,
    open_neptune2,
    read,
)
from tests.servers.neptune2.entities import Attribute, Series
from tests.servers.neptune2.server import NeptuneServer


def the_run(run_id: str = "VIS-1") -> Read:
    """One run of the project that the vendor's client wrote."""
    source = open_neptune2()
    try:
        return read(source, run_of(run_id))
    finally:
        source.close()


def run_of(run_id: str) -> RunRef:
    source = open_neptune2()
    try:
        return next(run for run in listed(source) if run.id == run_id)
    finally:
        source.close()


def test_scalars_keep_their_type_and_value(neptune2: NeptuneServer) -> None:
    fields = the_run().fields
    expected = {
        "params/int": ("int", -(2**31)),
        "params/float": ("float", 0.1),
        "params/text": ("string", "żółw\n" * 100),
        "params/flag": ("bool", True),
        "params/when": ("datetime", round(MOMENT.timestamp() * 1000)),
        "sys/tags": ("string_set", ["a", "b"]),
        "sys/group_tags": ("string_set", ["g"]),
        "sys/state": ("string", "running"),
        "sys/name": ("string", "first"),
        "sys/custom_run_id": ("string", "mine"),
        "sys/trashed": ("bool", False),
    }
    assert {path: (fields[path].type, fields[path].value) for path in expected} == expected


def test_integers_beyond_double_precision_are_exact(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    entity.put("big", "int", 2**53 + 1)
    entity.put("too/big", "int", 2**63)
    run = the_run()
    assert run.fields["big"].value == 2**53 + 1
    assert [(one.kind, one.code) for one in run.findings if one.field == "too/big"] == [("loss", "bad-value")]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_points_have_their_steps_and_their_times_in_utc(
    neptune2: NeptuneServer, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    run = the_run()
    dump = neptune2.store.dump()["ws/vision/VIS-1"]
    assert len(run.floats["metrics/loss"]) == POINTS
    for path in ("metrics/loss", "metrics/one"):
        assert run.floats[path] == dump[path][1]
    assert run.texts["log/out"] == dump["log/out"][1]
    assert run.floats["metrics/loss"][8] == (2.0, 1_700_000_001_000, 1 / 9)


def test_small_pages_of_the_server_change_nothing(neptune2: NeptuneServer) -> None:
    neptune2.api.page = 70
    try:
        small = the_run()
    finally:
        neptune2.api.page = 0
    assert codec.encode(small.pieces) == codec.encode(the_run().pieces)


def test_files_have_their_content_and_extension(neptune2: NeptuneServer, tmp_path: Path) -> None:
    archive = ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files"))
    sink = ArchiveFiles(archive, PROJECT)
    source = open_neptune2()
    run = Read(list(source.read_runs([run_of("VIS-1")], Want(selection=EVERYTHING), sink)))
    source.close()
    dump = neptune2.store.dump()["ws/vision/VIS-1"]
    note, large = (run.files[path, "file"][0] for path in ("files/note.v1", "files/large"))
    assert (note.name, sink.path(note).read_bytes()) == ("note.v1.txt", b"hello")
    assert (large.name, large.sha256) == ("large.bin", dump["files/large"][1][1])
    (tree,) = run.files["files/tree", "file_set"]
    assert {name: file.read_text() for name, file in sink.members(tree)} == {
        "a.txt": "tree/a.txt",
        "deep/b.txt": "tree/deep/b.txt",
    }


def test_an_artifact_is_its_hash_and_the_listing_of_its_files(neptune2: NeptuneServer, tmp_path: Path) -> None:
    sink = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), PROJECT)
    source = open_neptune2()
    run = Read(list(source.read_runs([run_of("VIS-1")], Want(selection=EVERYTHING), sink)))
    source.close()
    (listing,) = run.files["files/tracked", "artifact"]
    lines = json.loads(sink.path(listing).read_bytes())
    assert listing.name == "files_list.json"
    assert {(line["filePath"], line["fileHash"], line["size"]) for line in lines} == {
        (name, hashlib.sha1(f"tree/{name}".encode()).hexdigest(), len(f"tree/{name}"))
        for name in ("a.txt", "deep/b.txt")
    }
    assert run.fields["files/tracked/hash"].value == neptune2.store.dump()["ws/vision/VIS-1"]["files/tracked"][1]


def test_images_have_their_bytes_and_say_that_their_steps_are_not_known(neptune2: NeptuneServer) -> None:
    run = the_run()
    dump = neptune2.store.dump()["ws/vision/VIS-1"]
    for path in ("images/rare", "images/each"):
        assert [ref.sha256 for ref in run.files[path, "file_series"]] == [sha for _, _, sha in dump[path][1]]
    assert [ref.step for ref in run.files["images/rare", "file_series"]] == [Decimal(0), Decimal(1), Decimal(20)]
    approximated = {one.field for one in run.findings if one.code == "image-step-is-index"}
    assert approximated == {"images/rare"}
    assert {one.field for one in run.findings if one.code == "image-time-unknown"} == {"images/rare", "images/each"}


def test_references_to_a_commit_are_fields(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    commit = {
        "commitId": "abc",
        "message": "m",
        "authorName": "n",
        "authorEmail": "e",
        "commitDate": "2024-05-06T07:08:09Z",
    }
    git = {"commit": commit, "repositoryDirty": True, "currentBranch": "main", "remotes": ["b", "a"]}
    entity.attributes["source_code/git"] = Attribute("gitRef", git)
    fields = the_run().fields
    assert fields["source_code/git/commit/commit_id"].value == "abc"
    assert fields["source_code/git/commit/commit_date"] == Field(
        "source_code/git/commit/commit_date", "datetime", 1_714_979_289_000
    )
    assert fields["source_code/git/repository_dirty"].value is True
    assert fields["source_code/git/remotes"].value == ["a", "b"]


def test_models_and_their_versions_are_scopes_of_their_own(neptune2: NeptuneServer) -> None:
    source = open_neptune2()
    scopes = {run.id: run.scope for run in listed(source)}
    version = read(source, next(run for run in listed(source) if run.id == "VIS-MOD-2"))
    source.close()
    assert scopes == {
        "VIS-1": "runs",
        "VIS-2": "runs",
        "VIS-MOD": "models",
        "VIS-MOD-1": "model_versions",
        "VIS-MOD-2": "model_versions",
    }
    held = {path: version.fields[path].value for path in ("accuracy", "sys/stage", "sys/model_id")}
    assert held == {"accuracy": 0.75, "sys/stage": "production", "sys/model_id": "VIS-MOD"}
    assert [value for _, _, value in version.floats["weights"]] == [0.75]


def test_an_unknown_type_and_a_value_that_is_none_are_told(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    entity.put("new", "hologram", 1)
    entity.put("none", "string", None)
    entity.put("kept", "string", "x")
    run = the_run()
    assert {(one.kind, one.code, one.field) for one in run.findings} == {
        ("loss", "unknown-type", "new"),
        ("gap", "field-without-value", "none"),
    }
    assert run.fields["kept"].value == "x"


def test_a_field_that_has_the_name_of_a_fact_is_kept_and_the_fact_is_told(empty_neptune2: NeptuneServer) -> None:
    project = empty_neptune2.store.add_project(PROJECT, "VIS")
    entity = empty_neptune2.store.add_entity(project, "run")
    empty_neptune2.store.artifacts[project.id, "c0ffee"] = []
    entity.put("data", "artifact", "c0ffee")
    entity.put("data/hash", "string", "of my own")
    run = the_run()
    assert run.fields["data/hash"].value == "of my own"
    assert [(one.kind, one.field) for one in run.findings] == [("loss", "data/hash")]
    assert "c0ffee" in run.findings[0].detail


def test_nulls_of_the_server_are_what_is_not_there(neptune2: NeptuneServer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = the_run()
    monkeypatch.setattr(neptune2.api, "writes_nulls", True)
    entity = neptune2.store.entity(f"{PROJECT}/VIS-1")
    monkeypatch.setitem(entity.attributes, "sys/none", Attribute("string", None))
    nulls = the_run()
    assert {path: field for path, field in nulls.fields.items() if path != "sys/none"} == plain.fields
    assert nulls.files == plain.files
    added = [one for one in nulls.findings if one not in plain.findings]
    assert [(one.kind, one.code, one.field) for one in added] == [("gap", "field-without-value", "sys/none")]


def with_steps(server: NeptuneServer, *steps: float) -> Read:
    """A run with one series of these steps."""
    project = server.store.add_project(PROJECT, "VIS")
    entity = server.store.add_entity(project, "run")
    entity.attributes["m"] = Attribute("floatSeries", Series(list(steps), [0] * len(steps), [1.0] * len(steps)))
    return the_run()


def test_a_file_set_that_leads_out_of_its_folder_is_a_loss(empty_neptune2: NeptuneServer) -> None:
    entity = empty_neptune2.store.add_entity(empty_neptune2.store.add_project(PROJECT, "VIS"), "run")
    entity.put("tree", "fileSet", {"../../evil": b"x"})
    entity.put("kept", "fileSet", {"./a": b"x", "b/c": b"y"})
    run = the_run()
    assert [(one.kind, one.code, one.field) for one in run.findings] == [("loss", "hostile-path", "tree")]
    assert set(run.files) == {("kept", "file_set")}


def test_what_is_odd_about_a_run_is_told(empty_neptune2: NeptuneServer) -> None:
    entity = empty_neptune2.store.add_entity(empty_neptune2.store.add_project(PROJECT, "VIS"), "run")
    entity.put("defined", "floatSeries", Series())
    entity.put("images", "imageSeries", Series([0.0, 1.0], [1, 2], [b"", b"png"]))
    source = open_neptune2()
    [run] = listed(source)
    entity.put("sys/modification_time", "datetime", 2_000_000_000_000)
    found = read(source, run).findings
    source.close()
    assert {(one.kind, one.code, one.field) for one in found} == {
        ("note", "changed-since-listed", ""),
        ("note", "empty-series", "defined"),
        ("gap", "image-without-content", "images"),
        ("gap", "image-time-unknown", "images"),
    }


@pytest.mark.parametrize("texts", [("0.29", "0.57"), ("0", "4000000000000000"), ("0.0000001", "1000000000000")])
def test_steps_are_the_decimals_that_were_logged(empty_neptune2: NeptuneServer, texts: tuple[str, ...]) -> None:
    run = with_steps(empty_neptune2, *map(float, texts))
    chunks = [piece.chunk for piece in run.pieces if isinstance(piece.chunk, FloatPoints)]
    assert [step for chunk in chunks for step in chunk.steps.to_decimals()] == list(map(Decimal, texts))


def test_a_step_with_too_many_decimals_is_rounded(empty_neptune2: NeptuneServer) -> None:
    run = with_steps(empty_neptune2, 0.0012345678901234567)
    assert [(one.kind, one.code) for one in run.findings] == [("approximation", "step-rounded")]


def test_a_step_that_is_too_large_costs_its_series_loudly(empty_neptune2: NeptuneServer) -> None:
    run = with_steps(empty_neptune2, 1e19)
    assert [(one.kind, one.code, one.field) for one in run.findings] == [("loss", "field-refused", "m")]
