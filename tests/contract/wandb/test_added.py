"""What people add to a run that shardmig brought, or change of it, comes with it when it is read again, and what shardmig itself
wrote is not taken for theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardmig.adapters.conformance import field_digests, rich_run
from shardmig.adapters.conformance.runs import MULTIPLIER as RICH_MULTIPLIER
from shardmig.adapters.conformance.runs import FieldKey
from shardmig.adapters.wandb.naming import BLOCK
from shardmig.adapters.wandb.source import open_source
from shardmig.archive.files import ArchiveFiles
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, Chunk, FieldType, ProjectId, Selection
from tests.contract.wandb.foreign_runs import PNG, START_MS, Recording
from tests.contract.wandb.going_on import RUN, Read, bring, go_on, sample
from tests.servers.wandb.server import WandbServer
from tests.servers.wandb.store import Run

SERIES: set[tuple[str, FieldType]] = {
    ("accuracy", "float_series"),
    ("deep.x", "float_series"),
    ("flag", "float_series"),
    ("huge", "float_series"),
    ("shot", "file_series"),
    ("shot", "string_series"),  # the captions
    ("spread", "histogram_series"),
    ("weights (2)", "histogram_series"),
    ("word", "string_series"),
}


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
def test_what_people_add_by_resuming_a_run_on_a_server_comes_with_it(wandb: WandbServer, tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    entity, project, name = bring(chunks, files, {}).split("/")
    before = Read({})
    assert (field_digests(before.chunks), before.findings) == (field_digests(chunks), [])
    go_on("online", tmp_path / "client", (entity, project, name))
    read = Read({})
    _check(read, chunks)
    assert read.ref.fingerprint != before.ref.fingerprint
    assert read.steps_of("accuracy") == read.steps_of("word") == read.steps_of("shot") == ["3.1", "3.2", "3.3"]
    assert [path for path in read.values if path.startswith("summary/")] == ["summary/best"]
    assert read.values["sys/wandb/config"]
    assert ("files/wandb-metadata.json", "file") in field_digests(read.chunks)


@pytest.mark.server
def test_what_people_add_by_resuming_a_run_in_a_folder_comes_with_it(tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    run_id = bring(chunks, files, {"offline-dir": str(tmp_path / "w")})
    options = {"path": str(tmp_path / "w")}
    before = Read(options)
    assert (field_digests(before.chunks), before.findings) == (field_digests(chunks), [])
    go_on("offline", tmp_path / "w" / "client", ("", "kept", run_id))
    read = Read(options)
    _check(read, chunks)
    assert read.ref.entity == before.ref.entity
    assert read.ref.fingerprint != before.ref.fingerprint
    assert read.steps_of("accuracy") == ["0.0", "0.1", "0.2"]
    assert read.values["summary/best"] == 7
    assert json.loads(read.values["artifacts/model"])["metadata"] == {"acc": 1}
    assert field_digests(read.chunks)["artifacts/model", "file_set"].rows == 1
    told = [one for one in read.findings if one.code == "content-changed"]  # whoever sets tags offline sets all of them
    assert [(one.field, one.count) for one in told] == [("sys/tags", 2)]


def _check(read: Read, chunks: list[Chunk]) -> None:
    """The run as it was brought, and what was added to it."""
    found, own = field_digests(read.chunks), field_digests(chunks)
    assert {key: found[key] for key in own} == own
    assert {key: found[key].rows for key in SERIES} == dict.fromkeys(SERIES, 3)
    values = read.values
    assert (values["later/a"], values["later/none"], values["sizes"]) == (1, "null", '[1, "2"]')
    told = {name: values[f"sys/wandb/{name}"] for name in ("name", "notes", "state", "added_tags")}
    assert told == {"name": "renamed", "notes": "well done", "state": "failed", "added_tags": ["good"]}
    assert "sys/wandb/group" not in values
    assert {("bool-as-number", "flag"), ("int-to-float", "huge")} <= read.codes
    assert [path for path, _ in found if path.startswith("system/")]
    assert not [path for path, _ in found if path.startswith(("files/media/", "files/config", "files/shardmig/"))]


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
def test_what_people_changed_on_the_pages_of_a_server_is_brought_or_told(wandb: WandbServer, tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    run = _run(wandb, bring(chunks, files, {"job-type": "brought"}))
    assert not _extra(Read({}), chunks)
    run.display, run.group, run.notes, run.tags, run.job_type = "better", "", "", ["one", "chosen"], "other"
    run.summary |= {"metrics/loss": {"min": 1.0}, "mine": "best"}
    run.files["reports/mine.txt"] = b"mine"
    run.artifacts = {"model": {"w": "reports/mine.txt"}, f"run-{run.key[2]}-history": {"0.parquet": "notes.txt"}}
    run.used = ["set"]
    read = Read({})
    assert {path: value for path, value in read.values.items() if path in dict(_extra(read, chunks))} == {
        "artifacts/model:v0": read.values["artifacts/model:v0"],
        "summary/metrics/loss/min": 1.0,
        "summary/mine": "best",
        "sys/wandb/added_tags": ["chosen"],
        "sys/wandb/job_type": "other",
        "sys/wandb/name": "better",
        "sys/wandb/used_artifacts": ["team/data/set:v3"],
    }
    assert {key for key in _extra(read, chunks) if key[1].startswith("file")} == {
        ("artifacts/model:v0", "file_set"),
        ("files/reports/mine.txt", "file"),
    }
    gone = {"sys/wandb/group", "sys/wandb/notes", "sys/tags"}
    assert {one.field for one in read.findings if one.code == "content-changed"} == gone


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
def test_a_value_that_people_removed_is_told_where_only_some_fields_are_read(
    wandb: WandbServer, tmp_path: Path
) -> None:
    chunks, files = sample(tmp_path)
    run = _run(wandb, bring(chunks, files, {}))
    del run.config["params/lr"], run.config["text"]
    read = Read({}, Selection(attributes=("^params/",)))
    assert [(one.kind, one.code, one.field) for one in read.findings] == [("gap", "content-changed", "params/lr")]


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
def test_what_shardmig_wrote_is_nothing_that_was_added(wandb: WandbServer, tmp_path: Path) -> None:
    """Whatever the run has; and where an older shardmig did not note the job type that it gave."""
    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), RUN.project)
    chunks = rich_run(files, RUN.project, RUN.id)
    run = _run(wandb, bring(chunks, files, {"job-type": "brought"}, RICH_MULTIPLIER))
    for _ in (0, 1):
        read = Read({})
        assert (field_digests(read.chunks), read.findings) == (field_digests(chunks), [])
        run.config[BLOCK]["value"].pop("job_type", None)


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
def test_a_run_that_was_given_the_config_of_a_brought_one_is_another_run(wandb: WandbServer, tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    brought = _run(wandb, bring(chunks, files, {}))
    copy, _ = wandb.store.upsert({"project": "kept", "name": "abc", "state": "finished"})
    copy.config = dict(brought.config)
    source = open_source({})
    assert set(source.list_projects(Selection())) == {"team/kept", "ws/kept"}
    assert [run.id for run in source.list_runs(ProjectId("team/kept"), Selection())] == ["abc"]
    assert field_digests(Read({}).chunks) == field_digests(chunks)


def test_files_that_people_put_beside_a_brought_run_in_a_folder_come_with_it(tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    run_id = bring(chunks, files, {"offline-dir": str(tmp_path / "w")})
    place = tmp_path / "w" / f"offline-run-{run_id}" / "files"
    (place / "config.yaml").write_text("wandb sync makes it of the config")
    (place / "mine.txt").write_text("mine")
    read = Read({"path": str(tmp_path / "w")})
    assert _extra(read, chunks) == {("files/mine.txt", "file")}


@pytest.mark.parametrize("entity", ["", "team"])
def test_what_people_logged_under_names_that_the_run_has_comes_beside_it(tmp_path: Path, entity: str) -> None:
    """Offline nobody knows where the run had ended: their points begin with step 0 again. shardmig leaves it to whoever sends
    the run which entity it goes to."""
    chunks, files = sample(tmp_path)
    run_id = bring(chunks, files, {"offline-dir": str(tmp_path / "w")})
    theirs = Recording(run_id, "kept", entity=entity, start_ms=START_MS + 1, job_type="again")
    theirs.config({"params/lr": 9.0, "text": "x" * 100_000})
    theirs.row(0, {"metrics/loss": 7.0, "log": "said"})
    theirs.exit()
    theirs.write(tmp_path / "w", [("notes.txt", b"theirs")], name="run-2-theirs")
    read = Read({"path": str(tmp_path / "w")})
    found = _extra(read, chunks)
    assert {key for key in found if not key[0].startswith("sys/wandb/")} == {
        ("params/lr (2)", "float"),
        ("metrics/loss (2)", "float_series"),
        ("log (2)", "string_series"),
        ("files/notes.txt", "file"),
    }
    assert read.values["params/lr (2)"] == 9.0
    assert read.values["sys/wandb/job_type"] == "again"
    assert ("name-changed", "params/lr") in read.codes


def test_what_was_added_is_archived_and_brought_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chunks, files = sample(tmp_path / "first")
    run_id = bring(chunks, files, {"offline-dir": "w"})
    theirs = Recording(run_id, "kept", entity="", start_ms=START_MS + 1, tags=["one", "two", "good"])
    theirs.config({"params/lr": 9.0})
    histogram = {"_type": "histogram", "values": [1, 2], "bins": [0.0, 0.5, 1.0]}
    image = {"_type": "image-file", "path": "media/i.png"}
    theirs.row(0, {"metrics/loss": 7.0, "log": "said"})
    for key, value in {"weights": histogram, "image": image}.items():
        theirs.records[-1].history.item.add(key=key, value_json=json.dumps(value))
    theirs.exit()
    theirs.write(tmp_path / "w", [("media/i.png", PNG)], name="run-2-theirs")
    archive, always = ["-d", "data", "-f", "files"], ["--engine", "inline", "--no-progress"]
    into = ["--target", "wandb", "--offline-dir", "again"]
    assert execute(["export", "--source", "wandb", "w", *archive, *always]) == 0
    assert execute(["load", *archive, *into, *always]) == 0
    assert execute(["verify", *archive, *into, *always]) == 0
    read, on = Read({"path": "w"}), Read({"path": "again"})
    assert field_digests(on.chunks) == field_digests(read.chunks)
    assert {"weights (2)", "image (2)", "log (2)", "params/lr (2)", "sys/wandb/added_tags"} <= {
        path for path, _ in _extra(on, chunks)
    }
    assert on.findings == []


def test_of_a_brought_run_only_what_is_wanted_of_the_added_is_read(tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    run_id = bring(chunks, files, {"offline-dir": str(tmp_path / "w")})
    theirs = Recording(run_id, "kept", entity="", start_ms=START_MS + 1, notes="later")
    theirs.config({"mine": 1})
    theirs.row(0, {"m": 7.0})
    theirs.write(tmp_path / "w", [("mine.txt", b"theirs")], name="run-2-theirs")
    read = Read({"path": str(tmp_path / "w")}, Selection(classes=("parameters",)))
    found = field_digests(read.chunks)
    assert ("mine", "int") in found
    assert not [key for key in found if key[1].endswith(("series", "file"))]
    only_points = Read({"path": str(tmp_path / "w")}, Selection(classes=("metrics",)))
    assert {key for key in field_digests(only_points.chunks) if key not in field_digests(chunks)} == {
        ("m", "float_series")
    }


def test_a_log_that_was_given_the_config_of_a_brought_run_is_another_run(tmp_path: Path) -> None:
    chunks, files = sample(tmp_path)
    key = bring(chunks, files, {"offline-dir": str(tmp_path / "w")})
    copy = Recording("abc", "kept", entity="")
    block = {"key": key, "state": "complete", "project": RUN.project, "run_id": RUN.id}
    copy.run.config.update.add(key=BLOCK, value_json=json.dumps(block))
    copy.records[-1].run.CopyFrom(copy.run)
    copy.row(0, {"m": 1.0})
    copy.write(tmp_path / "w")
    source = open_source({"path": str(tmp_path / "w")})
    assert [run.id for run in source.list_runs(ProjectId("kept"), Selection())] == ["abc"]
    assert field_digests(Read({"path": str(tmp_path / "w")}).chunks) == field_digests(chunks)


def _run(wandb: WandbServer, run_id: str) -> Run:
    entity, project, name = run_id.split("/")
    return wandb.store.runs[entity, project, name]


def _extra(read: Read, chunks: list[Chunk]) -> set[FieldKey]:
    """What is there beside the run as it was brought, which is there too."""
    found, own = field_digests(read.chunks), field_digests(chunks)
    assert {key: found[key] for key in own} == own
    return found.keys() - own.keys()
