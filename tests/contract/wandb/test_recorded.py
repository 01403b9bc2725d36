"""What people record in W&B beside numbers is not lost in silence when their run folders are read."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.conformance import field_digests, plain_run
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.source import open_source
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput
from shardmig.records import (
    ArchivePaths,
    Chunk,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Header,
    LoadOptions,
    ProjectId,
    RunRef,
    Selection,
    StringPoints,
)
from tests.contract.wandb.foreign_runs import PNG, START_MS, Recording


def test_a_name_and_tags_that_were_set_later_are_those_of_the_run(tmp_path: Path) -> None:
    run = Recording("r", "p", display_name="first", tags=["a"], notes="kept")
    run.run_again(display_name="second", tags=["b", "c"])
    run.write(tmp_path)
    fields = _fields(_read(tmp_path))
    assert fields["sys/custom_run_id"] == "second"
    assert fields["sys/tags"] == ["b", "c"]
    assert fields["sys/description"] == "kept"


def test_objects_of_wandb_in_config_and_summary_are_json_text(tmp_path: Path) -> None:
    run = Recording("r", "p")
    used = {"_type": "artifactVersion", "id": "abc", "usedAs": "data"}
    histogram = {"_type": "histogram", "values": [1], "bins": [0, 1]}
    run.config({"data": used})
    run.summary({"weights": histogram, "_best": 3, "_runtime": 1, "_wandb": {"runtime": 1}})
    run.write(tmp_path)
    fields = _fields(_read(tmp_path))
    assert json.loads(fields["config/data"]) == used
    assert json.loads(fields["summary/weights"]) == histogram
    assert fields["summary/_best"] == 3
    assert not {"summary/_runtime", "summary/_wandb/runtime"} & set(fields)


def test_captions_stay_with_their_images(tmp_path: Path) -> None:
    run = Recording("r", "p")
    plain = {"_type": "image-file", "path": "media/images/a.png", "size": 24, "width": 1, "height": 1, "format": "png"}
    run.row(0, {"plain": plain, "captioned": plain | {"caption": "a cat"}})
    run.write(tmp_path, [("media/images/a.png", PNG)])
    chunks = _read(tmp_path)
    assert json.loads(_texts(chunks)["metrics/captioned"][0])["caption"] == "a cat"
    assert "metrics/plain" not in _texts(chunks)
    assert {ref.path for ref in _refs(chunks)} == {"metrics/plain", "metrics/captioned"}


def test_texts_that_look_like_numbers_stay_texts_and_empty_objects_are_told(tmp_path: Path) -> None:
    run = Recording("r", "p")
    run.row(0, {"word": "NaN", "number": float("nan")})
    run.records[-1].history.item.add(nested_key=["empty"], value_json="{}")
    run.write(tmp_path)
    chunks = _read(tmp_path)
    assert _texts(chunks) == {"metrics/empty": ["{}"], "metrics/word": ["NaN"]}
    assert [path for path, _ in _floats(chunks)] == ["metrics/number"]


def test_numbers_beyond_all_doubles_and_measurements_that_are_none_cost_no_run(tmp_path: Path) -> None:
    run = Recording("r", "p")
    run.row(0, {"huge": 10**400, "large": -(10**30)})
    run.records[-1].history.item.add(nested_key=["endless"], value_json="9" * 5000)
    run.stats(START_MS, {"cpu": 1.5})
    run.records[-1].stats.item.add(key="gpu", value_json='"A100"')
    run.write(tmp_path)
    chunks = _read(tmp_path)
    values = {path: points.values.tolist() for path, points in _floats(chunks)}
    assert values == {
        "metrics/huge": [float("inf")],
        "metrics/large": [-1e30],
        "metrics/endless": [float("inf")],
        "system/cpu": [1.5],
    }
    told = {finding.field for finding in _findings(chunks) if finding.code == "int-to-float"}
    assert told == {"metrics/huge", "metrics/large", "metrics/endless"}
    assert _texts(chunks)["system/gpu"] == ['"A100"']


def test_a_text_that_has_no_utf8_form_costs_that_character_only(tmp_path: Path) -> None:
    run = Recording("r", "p")
    run.config({"file": "caf\udce9", "n": 1})
    run.row(0, {"word": "\ud800!"})
    run.write(tmp_path)
    chunks = _read(tmp_path)
    assert _fields(chunks)["config/file"] == "caf\ufffd"
    assert _fields(chunks)["config/n"] == 1
    assert _texts(chunks)["metrics/word"] == ["\ufffd!"]
    told = {finding.field for finding in _findings(chunks) if finding.code == "lone-surrogate"}
    assert told == {"config/file", "metrics/word"}


def test_every_version_of_an_artifact_comes_with_what_was_said_of_it(tmp_path: Path) -> None:
    run = Recording("r", "p")
    for version in (0, 1):
        member = tmp_path / f"weights-{version}"
        member.write_text(f"weights {version}")
        for _ in (0, 1):  # logged again as it was
            run.artifact(
                "model",
                {"w.bin": member},
                digest=f"d{version}",
                metadata=json.dumps({"acc": version}),
                aliases=["best"],
            )
            run.reference("s3://bucket/data")
    run.use("data:v3")
    run.write(tmp_path / "wandb")
    chunks = _read(tmp_path / "wandb")
    assert _fields(chunks)["sys/wandb/used_artifacts"] == ["data:v3"]
    assert {(ref.path, ref.size_bytes) for ref in _refs(chunks)} == {("artifacts/model:0", 9), ("artifacts/model:1", 9)}
    told = json.loads(_fields(chunks)["artifacts/model:1"])
    assert told == {
        "type": "model",
        "metadata": {"acc": 1},
        "aliases": ["best"],
        "references": {"data": "s3://bucket/data"},
    }
    assert not _findings(chunks)


def test_the_list_of_a_very_large_artifact_is_read_from_its_file(tmp_path: Path) -> None:
    member, list_of_files = tmp_path / "weights", tmp_path / "list.jl.gz"
    member.write_text("weights")
    with gzip.open(list_of_files, "wt") as lines:
        lines.write(json.dumps({"path": "w.bin", "digest": "d", "local_path": str(member)}) + "\n")
    run = Recording("r", "p")
    run.artifact("large", {}, listed_in=list_of_files)
    run.artifact("gone", {}, listed_in=tmp_path / "nowhere")
    run.write(tmp_path / "wandb")
    chunks = _read(tmp_path / "wandb")
    assert {ref.path: ref.size_bytes for ref in _refs(chunks)} == {"artifacts/large": 7, "artifacts/gone": 0}
    assert [(one.kind, one.code, one.field) for one in _findings(chunks)] == [
        ("gap", "file-not-here", "artifacts/gone")
    ]


def test_files_of_one_series_and_step_are_all_given(tmp_path: Path) -> None:
    """A run that was resumed offline begins with step 0 again."""
    for number in (0, 1):
        run = Recording("r", "p", start_ms=START_MS + number)
        run.row(0, {"image": {"_type": "image-file", "path": f"media/images/{number}.png"}})
        run.write(tmp_path, [(f"media/images/{number}.png", PNG + bytes([number]))], name=f"run-{number}-r")
    refs = {(ref.path, ref.name) for ref in _refs(_read(tmp_path))}
    assert refs == {("metrics/image", "1.png"), ("files/media/images/0.png", "0.png")}


def test_a_run_folder_that_was_copied_counts_once(tmp_path: Path) -> None:
    run = Recording("r", "p")
    for step in range(100):
        run.row(step, {"m": float(step)})
    folder = run.write(tmp_path / "wandb")
    shutil.copytree(folder, tmp_path / "backup" / folder.name)
    log = next((tmp_path / "backup").rglob("*.wandb"))
    log.write_bytes(log.read_bytes()[:1000])  # copied while the run went on
    assert field_digests(_read(tmp_path))["metrics/m", "float_series"].rows == 100


def test_logs_that_lie_in_one_folder_are_runs_of_their_own(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    _bring(tmp_path / "brought", plain_run(run_id="ONE"))
    _bring(tmp_path / "brought", plain_run(run_id="TWO"))
    run = Recording("zzz", "p")
    run.write(tmp_path / "other")
    for log in tmp_path.rglob("*.wandb"):
        shutil.copyfile(log, flat / log.name)
    assert {ref.label for ref in _runs(flat)} == {"ws/plain/ONE", "ws/plain/TWO", "ent/p/zzz"}


def test_what_a_killed_load_left_is_no_run_and_a_copy_is_no_second_one(tmp_path: Path) -> None:
    _bring(tmp_path / "a", plain_run())
    folder = next((tmp_path / "a").iterdir())
    shutil.copytree(folder, tmp_path / "a" / f".writing-{folder.name}")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (run,) = _runs(tmp_path)
    assert run.label == "ws/plain/RUN-1"
    chunks = [piece.chunk for piece in open_source({"path": str(tmp_path)}).read_runs([run], Want(), DigestSink())]
    assert field_digests(chunks) == field_digests(plain_run())


def test_a_log_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    Recording("good", "p").write(tmp_path)
    (tmp_path / "run-bad").mkdir()
    (tmp_path / "run-bad" / "run-bad.wandb").symlink_to("/proc/self/mem")  # a file whose first bytes nobody can read
    source = open_source({"path": str(tmp_path)})
    assert {ref.label for ref in _runs(tmp_path)} == {"ent/p/good", "uncategorized/bad"}
    (bad,) = source.list_runs(ProjectId("uncategorized"), Selection())
    with pytest.raises(BadInput, match="cannot be read"):
        list(source.read_runs([bad], Want(), DigestSink()))


@pytest.mark.parametrize("zeros", [range(40_000, 50_000), range(65_536, 200_000), range(150_000, 163_840)])
def test_zeros_that_a_crashed_computer_left_in_a_log_are_told(tmp_path: Path, zeros: range) -> None:
    run = Recording("hurt", "p")
    for step in range(5000):
        run.row(step, {"m": float(step), "text": "x" * (step % 7 == 0) * 300})
    log = next(run.write(tmp_path).glob("*.wandb"))
    content = bytearray(log.read_bytes())
    assert len(content) > zeros.stop
    content[zeros.start : zeros.stop] = bytes(len(zeros))
    log.write_bytes(content)
    codes = {(finding.kind, finding.code) for finding in _findings(_read(tmp_path))}
    assert ("gap", "damaged-records") in codes
    assert ("loss", "unknown-record") not in codes


def test_a_run_that_went_on_since_it_was_listed_is_another_version(tmp_path: Path) -> None:
    run = Recording("r", "p")
    run.row(0, {"m": 1.0})
    folder = run.write(tmp_path)
    (first,) = _runs(tmp_path)
    shutil.rmtree(folder)
    run.row(1, {"m": 2.0})
    run.write(tmp_path)
    (second,) = _runs(tmp_path)
    assert first.entity == second.entity
    assert first.fingerprint != second.fingerprint


def _runs(root: Path) -> list[RunRef]:
    source = open_source({"path": str(root)})
    return [run for project in source.list_projects(Selection()) for run in source.list_runs(project, Selection())]


def _read(root: Path) -> list[Chunk]:
    (run,) = _runs(root)
    return [piece.chunk for piece in open_source({"path": str(root)}).read_runs([run], Want(), DigestSink())]


def _fields(chunks: list[Chunk]) -> dict[str, Any]:
    return {field.path: field.value for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}


def _texts(chunks: list[Chunk]) -> dict[str, list[str]]:
    series = (pair for chunk in chunks if isinstance(chunk, StringPoints) for pair in chunk.series())
    return {path: points.values.to_list() for path, points in series}


def _floats(chunks: list[Chunk]) -> list[tuple[str, FloatPoints]]:
    return [pair for chunk in chunks if isinstance(chunk, FloatPoints) for pair in chunk.series()]


def _refs(chunks: list[Chunk]) -> list[FileRef]:
    return [ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files]


def _findings(chunks: list[Chunk]) -> list[Finding]:
    return list(getattr(chunks[-1], "findings", []))


def _bring(root: Path, chunks: list[Chunk]) -> None:
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(root)}, LoadOptions(step_multiplier=1))
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), header.run.project)
    target.write_run(migration_key(header.run), "d", iter(chunks), nowhere, None)
