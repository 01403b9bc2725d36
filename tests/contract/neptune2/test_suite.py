"""The suite of every source, over a server that the vendor's client wrote to."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide
from shardmig.adapters.conformance import SourceSuite
from tests.contract.neptune2.vendor import open_neptune2
from tests.servers.neptune2.server import NeptuneServer


class TestNeptune2(SourceSuite):
    @pytest.fixture(autouse=True)
    def _server(self, neptune2: NeptuneServer) -> None:
        self.server = neptune2

    def open_source(self, folder: Path) -> ReadSide:
        return open_neptune2()

    def snapshot(self, folder: Path) -> object:
        return self.server.store.dump()
