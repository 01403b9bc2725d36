"""The W&B target passes the suite on a folder of run folders."""

from __future__ import annotations

from pathlib import Path

from shardmig.adapters.base import WriteSide
from shardmig.adapters.conformance import TargetSuite
from shardmig.adapters.wandb import open_target
from shardmig.records import LoadOptions


class TestOffline(TargetSuite):
    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"offline-dir": str(folder / "wandb")}, load)
