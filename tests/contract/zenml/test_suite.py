"""The ZenML target passes the suite on its real local store."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import WriteSide
from shardmig.adapters.conformance import TargetSuite
from shardmig.adapters.zenml import open_target
from shardmig.records import LoadOptions

pytestmark = pytest.mark.xdist_group("zenml")


class TestZenml(TargetSuite):
    @pytest.fixture(autouse=True)
    def _store(self, zenml: Path) -> None:
        """An initialised store as ZenML's own."""

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({}, load)
