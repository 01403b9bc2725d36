"""The Comet target passes the suite with offline archives left in a folder."""

from __future__ import annotations

from pathlib import Path

from shardmig.adapters.base import WriteSide
from shardmig.adapters.comet import open_target
from shardmig.adapters.conformance import TargetSuite
from shardmig.records import LoadOptions


class TestOfflineFolder(TargetSuite):
    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"offline-dir": str(folder / "comet")}, load)


class TestOfflineFolderOfSmallArchives(TargetSuite):
    """Every run becomes several archives."""

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"offline-dir": str(folder / "comet"), "points-per-upload": "7"}, load)
