"""The Comet target passes the suite with the vendor's uploader against a local server."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import WriteSide
from shardmig.adapters.comet import open_target
from shardmig.adapters.conformance import TargetSuite
from shardmig.records import LoadOptions
from tests.servers.comet.server import CometServer

pytestmark = pytest.mark.xdist_group("comet")


class TestServer(TargetSuite):
    @pytest.fixture(autouse=True)
    def _server(self, comet: CometServer) -> None:
        self._url = comet.url

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"url": self._url, "settle-s": "1", "requests-per-s": "0"}, load)
