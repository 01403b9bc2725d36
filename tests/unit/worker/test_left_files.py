"""What an attempt that was killed between publishing and cleaning up left behind is removed by the next one."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest

from shardmig.archive.files import ArchiveFiles
from shardmig.archive.layout import sanitize
from shardmig.cli.app import execute
from shardmig.records import Files
from tests.unit.archive.runs import RUN, paths_in, publish, spool_run

EXPORT = ["export", "--source", "archive", "source/data", "source/files", "-d", "copy/data", "-f", "copy/files"]


def change_source(folder: Path, version: str) -> None:
    """Let the source hold this version of its run, which has one file."""
    run = msgspec.structs.replace(RUN, fingerprint=version)
    store = ArchiveFiles(paths_in(folder), RUN.project)
    ref = store.put(run, "f", "file", io.BytesIO(version.encode()), name="f.txt")
    publish(folder, [Files([ref])], run)


@pytest.mark.parametrize("left", [".spool", ".mend"])
def test_files_of_the_version_before_go_with_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "copy" / "files"
    for version in ("first", "second"):
        change_source(tmp_path / "source", version)
        assert execute([*EXPORT, "--update", "--engine", "inline", "--no-progress"]) == 0
        if version == "first":
            [old] = (path for path in copied.rglob("*") if path.is_file())
    [spools] = (tmp_path / "copy" / "data" / ".shardmig").glob("*/spool")
    old.write_bytes(b"first")
    spool = spool_run(spools / f"{sanitize(f'{RUN.scope}/{RUN.project}/{RUN.id}')}{left}", [])
    theirs = old.with_name("theirs.txt")
    theirs.write_bytes(b"not ours")
    assert execute([*EXPORT, "--update", "--engine", "inline", "--no-progress"]) == 0
    assert not spool.exists()
    assert sorted(path.read_bytes() for path in copied.rglob("*") if path.is_file()) == [b"not ours", b"second"]
