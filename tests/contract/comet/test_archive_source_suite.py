"""Offline archives are a source that passes the suite."""

from __future__ import annotations

from pathlib import Path

from shardmig.adapters.base import ReadSide, Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.comet.source import open_source
from shardmig.adapters.conformance import SourceSuite, field_digests, plain_run
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, Header, LoadOptions, ProjectId, Selection
from tests.contract.comet.archives import OLD_KEY, metric, write_archive, write_world


class TestOfflineArchives(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        write_world(folder / "comet")
        return open_source({"path": str(folder / "comet")})


def test_an_experiment_and_its_copy_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    write_archive(tmp_path / f"{OLD_KEY}.zip", OLD_KEY, [metric("loss", 1.0, 0)])
    chunks = plain_run(project="old/vision", run_id=OLD_KEY)
    assert isinstance(chunks[0], Header)
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("old/vision"))
    target = open_target({"offline-dir": str(tmp_path)}, LoadOptions(step_multiplier=1))
    target.write_run(migration_key(chunks[0].run), "d" * 32, iter(chunks), nowhere, None)
    source = open_source({"path": str(tmp_path)})
    runs = {run.id: run for run in source.list_runs(ProjectId("old/vision"), Selection())}
    original, copy = sorted(runs)
    assert (original, copy.partition("~")[0]) == (OLD_KEY, OLD_KEY)
    read = [piece.chunk for piece in source.read_runs([runs[copy]], Want(), DigestSink())]
    assert field_digests(read) == field_digests(chunks)
    assert isinstance(read[0], Header)
    assert read[0].run.id == copy
    assert [one.code for one in read[-1].findings if one.code == "copy-beside-original"] != []  # type: ignore[union-attr]
