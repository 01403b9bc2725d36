"""The ZenML source passes the suite of every source, over a real store."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.zenml import open_source
from tests.servers.zenml import use_zenml

pytestmark = pytest.mark.xdist_group("zenml")


class TestZenmlSource(SourceSuite):
    @pytest.fixture(autouse=True)
    def _store(self, filled_zenml: Path) -> None:
        self.filled = filled_zenml
        use_zenml(filled_zenml)

    def open_source(self, folder: Path) -> ReadSide:
        return open_source({})

    def snapshot(self, folder: Path) -> object:
        return super().snapshot(self.filled)
