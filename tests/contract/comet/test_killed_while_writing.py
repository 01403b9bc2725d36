"""SIGKILL at any step on the disk: a partial run is never taken for a whole one, and writing again makes it whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.comet.source import open_source
from shardmig.adapters.conformance.runs import field_digests, rich_run
from shardmig.archive.files import DigestSink
from shardmig.records import Header, Selection
from tests.contract.comet import killed

POINTS = 20


def test_a_run_that_was_killed_while_it_was_written_is_partial_or_whole_and_is_made_good(tmp_path: Path) -> None:
    command = [sys.executable, killed.__file__, str(tmp_path), str(POINTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert int(done.stdout) > POINTS
    files = killed.files_in(tmp_path / "archive")
    chunks = rich_run(files)
    assert isinstance(chunks[0], Header)
    key = migration_key(chunks[0].run)
    expected, states = field_digests(chunks), set()
    whole = sorted(path.read_bytes() for path in (tmp_path / "whole").glob("*.zip"))
    folders = [folder for folder in tmp_path.iterdir() if folder.name.isdigit()]
    assert len(folders) > POINTS // 2
    for folder in folders:
        target = open_target(killed.options(folder), killed.LOAD)
        found = target.find_run(key)
        states.add(found.state if found is not None else "missing")
        if found is not None and found.state == "complete":
            assert field_digests(piece.chunk for piece in target.read_run(found, Want(), DigestSink())) == expected
        else:
            source = open_source({"path": str(folder)})
            assert "ws/rich" not in list(source.list_projects(Selection()))
        killed.write(folder, files, chunks)
        again = target.find_run(key)
        assert again is not None
        assert again.state == "complete"
        assert sorted(path.read_bytes() for path in folder.glob("*.zip")) == whole
    assert "missing" in states
