"""Source `wandb` passes the suite on folders, and gives what W&B's own client recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide, Want, migration_key
from shardmig.adapters.conformance import SourceSuite, field_digests, plain_run, rich_run
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.source import open_source
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput
from shardmig.records import ArchivePaths, Chunk, Fields, Finding, Header, LoadOptions, ProjectId, RunRef, Selection
from tests.contract.wandb.foreign_runs import START_MS, Recording, everything


class TestFolders(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        root = folder / "wandb"
        if not root.exists():
            everything(root)
            _bring(root, plain_run(run_id="BROUGHT-1"))
            _bring(root, plain_run(run_id="BROUGHT-2", parent="BROUGHT-1"))
        return open_source({"path": str(root)})


def test_a_run_that_was_brought_is_given_as_what_it_was(tmp_path: Path) -> None:
    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), ProjectId("ws/rich"))
    chunks = rich_run(files)
    target = open_target({"offline-dir": str(tmp_path / "wandb")}, LoadOptions(step_multiplier=100))
    header = chunks[0]
    assert isinstance(header, Header)
    target.write_run(migration_key(header.run), "d", iter(chunks), files, None)
    source = open_source({"path": str(tmp_path / "wandb")})
    assert list(source.list_projects(Selection())) == ["ws/rich"]
    (run,) = source.list_runs(ProjectId("ws/rich"), Selection())
    assert (run.id, run.created_ms) == (header.run.id, header.run.created_ms)
    read = [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]
    assert field_digests(read) == field_digests(chunks)


def test_a_run_and_its_copy_below_one_folder_are_told_apart(tmp_path: Path) -> None:
    recording = Recording("abc", "proj", entity="ent")
    recording.row(0, {"m": 0.5})
    recording.exit()
    recording.write(tmp_path)
    _bring(tmp_path, plain_run(project="ent/proj", run_id="abc"))
    source = open_source({"path": str(tmp_path)})
    runs = sorted(source.list_runs(ProjectId("ent/proj"), Selection()), key=lambda run: run.id)
    assert [run.id.partition("~")[0] for run in runs] == ["abc", "abc"]
    first, second = ([piece.chunk for piece in source.read_runs([run], Want(), DigestSink())] for run in runs)
    assert ("metrics/m", "float_series") in field_digests(first)
    assert field_digests(second) == field_digests(plain_run(project="ent/proj", run_id="abc"))


def test_what_the_client_recorded_is_given_under_its_names(tmp_path: Path) -> None:
    everything(tmp_path)
    chunks = _read(tmp_path, "ent/one", "rich1")
    fields = {field.path: field.value for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}
    assert fields["config/deep/a/b"] == "x"
    assert fields["config/lr"] == 0.1
    assert fields["config/list"] == '[1, "2"]'
    assert fields["summary/loss/min"] == 0.1
    assert fields["sys/custom_run_id"] == "a run"
    assert fields["sys/tags"] == ["a", "b"]
    assert fields["sys/creation_time"] == START_MS
    rows = {(key, digest.rows) for key, digest in field_digests(chunks).items()}
    assert {
        (("metrics/loss", "float_series"), 120),
        (("metrics/deep.y.z", "float_series"), 120),
        (("metrics/flag", "float_series"), 12),
        (("metrics/word", "string_series"), 12),
        (("metrics/hist", "histogram_series"), 12),
        (("metrics/img", "file_series"), 12),
        (("metrics/imgs/1", "file_series"), 12),
        (("system/cpu", "float_series"), 120),
        (("console/stderr", "string_series"), 1),
        (("files/notes/saved.txt", "file"), 1),
        (("artifacts/model", "file_set"), 1),
    } <= rows


def test_a_run_that_was_resumed_is_one_run(tmp_path: Path) -> None:
    everything(tmp_path)
    chunks = _read(tmp_path, "ent/one", "again")
    fields = {field.path: field.value for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields}
    assert fields["config/a"] == 2
    assert field_digests(chunks)["metrics/m", "float_series"].rows == 2


def test_a_log_whose_writer_was_killed_is_read_up_to_its_end(tmp_path: Path) -> None:
    run = Recording("killed", "p")
    for step in range(2000):
        run.row(step, {"m": float(step)})
    log = next(run.write(tmp_path).glob("*.wandb"))
    log.write_bytes(log.read_bytes()[:-7])
    chunks = _read(tmp_path, "ent/p", "killed")
    assert field_digests(chunks)["metrics/m", "float_series"].rows == 1999
    assert ("gap", "cut-record") in {(finding.kind, finding.code) for finding in _findings(chunks)}


def test_damage_costs_the_records_that_it_hit_and_is_told(tmp_path: Path) -> None:
    run = Recording("hurt", "p")
    for step in range(5000):
        run.row(step, {"m": float(step)})
    log = next(run.write(tmp_path).glob("*.wandb"))
    content = bytearray(log.read_bytes())
    content[100_000] ^= 1
    log.write_bytes(content)
    chunks = _read(tmp_path, "ent/p", "hurt")
    assert 4000 < field_digests(chunks)["metrics/m", "float_series"].rows < 5000
    assert ("gap", "damaged-records") in {(finding.kind, finding.code) for finding in _findings(chunks)}


@pytest.mark.parametrize("content", [b"", b":W&B\xe1\xbe\x00", b"something else"])
def test_a_log_that_names_no_run_fails_alone_and_loudly(tmp_path: Path, content: bytes) -> None:
    everything(tmp_path)
    (tmp_path / "run-1-zzz").mkdir()
    (tmp_path / "run-1-zzz" / "run-zzz.wandb").write_bytes(content)
    source = open_source({"path": str(tmp_path)})
    (run,) = source.list_runs(ProjectId("uncategorized"), Selection())
    assert run.id == "zzz"
    with pytest.raises(BadInput):
        list(source.read_runs([run], Want(), DigestSink()))
    assert _read(tmp_path, "ent/one", "rich1")


def test_system_metrics_and_console_can_be_left_out(tmp_path: Path) -> None:
    everything(tmp_path)
    chunks = _read(tmp_path, "ent/one", "rich1", **{"system-metrics": "no", "console": "no"})
    assert not [path for path, _ in field_digests(chunks) if path.startswith(("system/", "console/"))]


def _read(root: Path, project: str, run_id: str, **options: str) -> list[Chunk]:
    source = open_source({"path": str(root), **options})
    run = next(run for run in source.list_runs(ProjectId(project), Selection()) if run.id == run_id)
    return [piece.chunk for piece in source.read_runs([run], Want(), DigestSink())]


def _findings(chunks: list[Chunk]) -> list[Finding]:
    return list(getattr(chunks[-1], "findings", []))


def _bring(root: Path, chunks: list[Chunk]) -> None:
    header = chunks[0]
    assert isinstance(header, Header)
    run: RunRef = header.run
    target = open_target({"offline-dir": str(root)}, LoadOptions(step_multiplier=1))
    parent = None if run.parent is None else target.find_run(migration_key(RunRef(project=run.project, id=run.parent)))
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), run.project)
    target.write_run(migration_key(run), "d", iter(chunks), nowhere, parent.id if parent else None)
