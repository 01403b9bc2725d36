"""The archive source passes the suite on archives of ours and of neptune-exporter."""

from __future__ import annotations

import shutil
from pathlib import Path

from shardmig.adapters.archive import open_source
from shardmig.adapters.base import ReadSide
from shardmig.adapters.conformance import SourceSuite, plain_run, rich_run, wide_run
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ProjectId
from tests.contract.archives import archive_paths, publish

EXPORTED = Path(__file__).parents[1] / "samples" / "exporter-3x"


class TestArchiveSource(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        archive = archive_paths(folder)
        if not Path(archive.data).exists():
            publish(folder, rich_run(ArchiveFiles(archive, ProjectId("ws/rich"))))
            for chunks in (plain_run(), plain_run(run_id="RUN-2"), plain_run("ws/other", "RUN-1"), wide_run(60)):
                publish(folder, chunks)
        return open_source({"data": archive.data, "files": archive.files})


class TestArchiveOfNeptuneExporter(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        if not (folder / "data").exists():
            shutil.copytree(EXPORTED, folder, dirs_exist_ok=True)
        return open_source({"data": str(folder / "data"), "files": str(folder / "files")})
