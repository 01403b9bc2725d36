"""An archive as a source: repacking neptune-exporter's archives and ours into another."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.archive import open_source
from shardmig.adapters.base import Want
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.archive.layout import archive_paths
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.spool import RunSpool
from shardmig.archive.writer import compact
from shardmig.errors import UsageError
from shardmig.records import ArchivePaths, End, Fields, Files, ProjectId, Receipt, RunRef, Selection
from tests.unit.archive.runs import RUN, paths_in, publish

SAMPLES = Path(__file__).parents[2] / "samples"


def _repack(data: Path, run: RunRef, target: ArchivePaths, scratch: Path) -> Receipt:
    source = open_source({"data": str(data)})
    spool = RunSpool(scratch / "spool")
    spool.restart()
    for piece in source.read_runs([run], Want(), ArchiveFiles(target, run.project)):
        spool.append(piece)
    spool.close()
    source.close()
    return compact(spool.path, target, asked=Selection(), source="archive", source_version="", started_ms=0)


@pytest.mark.parametrize("sample", ["exporter-3x", "exporter-2x", "exporter-2x-models"])
def test_a_repacked_archive_of_neptune_exporter_has_the_same_content(tmp_path: Path, sample: str) -> None:
    source = open_source({"data": str(SAMPLES / sample)})
    target = paths_in(tmp_path)
    (project,) = source.list_projects(Selection())
    runs = list(source.list_runs(project, Selection()))
    assert runs
    for run in runs:
        receipt = _repack(SAMPLES / sample, run, target, tmp_path)
        original = ArchiveReader(archive_paths(SAMPLES / sample))
        *_, end = (piece.chunk for piece in original.read(run, Want()))
        assert isinstance(end, End)
        assert end.digest == receipt.digest
        *_, repacked = (piece.chunk for piece in ArchiveReader(target).read(run, Want()))
        assert isinstance(repacked, End)
        assert repacked.digest == receipt.digest
        assert [finding.kind for finding in receipt.findings if finding.kind == "loss"] == []
    listed = open_source({"data": target.data, "files": target.files})
    assert [(run.id, run.parent, run.created_ms) for run in listed.list_runs(project, Selection())] == [
        (run.id, run.parent, run.created_ms) for run in runs
    ]


def test_a_file_whose_bytes_have_changed_is_a_loss(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    store = ArchiveFiles(paths_in(tmp_path), RUN.project)
    ref = store.put(RUN, "f", "file", tmp_path / "one", name="one")
    publish(tmp_path, [Files([ref])])
    store.path(ref).write_bytes(b"two")
    source = open_source({"data": str(tmp_path)})
    chunks = [piece.chunk for piece in source.read_runs([RUN], Want(), DigestSink())]
    assert isinstance(chunks[-1], End)
    assert [(finding.kind, finding.code, finding.field) for finding in chunks[-1].findings] == [
        ("loss", "damaged-file", "f")
    ]


def test_selections_are_obeyed(tmp_path: Path) -> None:
    source = open_source({"data": str(SAMPLES / "exporter-3x")})
    assert list(source.list_projects(Selection(projects=("other",)))) == []
    project = ProjectId("ws/three")
    assert [run.id for run in source.list_runs(project, Selection(runs="[12]$"))] == ["run-1", "run-2"]
    (run,) = source.list_runs(project, Selection(created_after_ms=1_700_007_200_000))
    chunks = [
        piece.chunk
        for piece in source.read_runs([run], Want(selection=Selection(attributes=("^p/int$",))), DigestSink())
    ]
    (fields,) = [chunk for chunk in chunks if isinstance(chunk, Fields)]
    assert [field.path for field in fields.fields] == ["p/int"]
    assert len(chunks) == 3


def test_the_folder_must_be_named() -> None:
    with pytest.raises(UsageError, match="folder"):
        open_source({})
