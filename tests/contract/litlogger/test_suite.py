"""The Lightning target passes the suite against a local server that speaks Lightning's REST to the vendor's client."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import WriteSide, migration_key
from shardmig.adapters.conformance import TargetSuite, plain_run
from shardmig.adapters.conformance.runs import fact_fields
from shardmig.adapters.litlogger import open_target
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Header, LoadOptions, ProjectId
from tests.servers.lightning.server import Lightning


@pytest.mark.xdist_group("lightning")
class TestTarget(TargetSuite):
    @pytest.fixture(autouse=True)
    def _server(self, lightning: Lightning) -> None:
        pass

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"requests-per-s": "0"}, load)


@pytest.mark.xdist_group("lightning")
@pytest.mark.parametrize("named_by", ["name", "id"])
def test_one_named_teamspace_takes_the_runs_of_all_projects(lightning: Lightning, named_by: str) -> None:
    made = lightning.store.create_teamspace("everything")
    load = LoadOptions(step_multiplier=1)
    target = open_target({"requests-per-s": "0", "teamspace": made.name if named_by == "name" else made.id}, load)
    files = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/one"))
    keys = []
    for chunks in (plain_run("ws/one", "RUN-1"), plain_run("ws/two", "RUN-1")):
        header = chunks[0]
        assert isinstance(header, Header)
        keys.append(migration_key(header.run))
        target.write_run(keys[-1], "d" * 32, iter(chunks), files, None)
        held = target.find_run(keys[-1])
        assert held is not None
        assert target.read_facts(held) == target.expected_facts(header.run, fact_fields(chunks), None, None)
    assert len({stream.name for stream in lightning.store.streams.values()}) == 2
    assert {stream.project for stream in lightning.store.streams.values()} == {made.id}
    target.close()
