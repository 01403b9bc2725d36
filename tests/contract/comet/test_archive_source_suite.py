"""Offline archives are a source that passes the suite."""

from __future__ import annotations

from pathlib import Path

from shardmig.adapters.base import ReadSide
from shardmig.adapters.comet.source import open_source
from shardmig.adapters.conformance import SourceSuite
from tests.contract.comet.archives import write_world


class TestOfflineArchives(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        write_world(folder / "comet")
        return open_source({"path": str(folder / "comet")})
