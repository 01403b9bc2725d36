"""What tests of reports share."""

from __future__ import annotations

import pytest

from shardmig.records import Report
from tests.unit.report.reports import failed_load


@pytest.fixture
def report() -> Report:
    return failed_load()
