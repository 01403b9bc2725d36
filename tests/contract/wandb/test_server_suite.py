"""The W&B target passes the suite on a server: logs are sent with the vendor's own `wandb sync` and read back with its
public API service, both unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import WriteSide
from shardmig.adapters.conformance import TargetSuite
from shardmig.adapters.wandb import open_target
from shardmig.records import LoadOptions
from tests.servers.wandb.server import WandbServer


@pytest.mark.server
@pytest.mark.xdist_group("wandb-server")
class TestServer(TargetSuite):
    @pytest.fixture(autouse=True)
    def _server(self, wandb: WandbServer) -> None:
        self.url = wandb.url

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"base-url": self.url}, load)
