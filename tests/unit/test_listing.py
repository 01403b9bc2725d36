"""A listing tells how far it is: a large source lists for minutes before anything moves."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.many_runs import write_many
from shardmig.listing import Listing
from shardmig.planner import Request
from shardmig.records import AdapterSpec, ArchivePaths, Progress


def test_a_listing_tells_at_once_that_it_began_and_then_how_many_runs_came(tmp_path: Path) -> None:
    source = write_many(tmp_path / "source", 3)
    asked = Request(
        phases=("export",),
        source=AdapterSpec("archive", {"data": source.data, "files": source.files}),
        archive=ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")),
    )
    told: list[Progress] = []
    for _ in Listing(asked, observe=told.append).runs():
        time.sleep(0.6)
    assert [(one.listed, one.phases) for one in told] == [(0, []), (2, []), (3, [])]
