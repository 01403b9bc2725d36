"""The Neptune 3.x source passes the suite, on a server that gives whole answers and on one that gives small pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.neptune3 import open_source
from tests.contract.neptune3.filling import append, create, rich_project
from tests.servers.neptune3.server import Neptune3, neptune3_server


class TestNeptune3Source(SourceSuite):
    @pytest.fixture(autouse=True)
    def _server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with neptune3_server() as self.server:
            monkeypatch.setenv("NEPTUNE_API_TOKEN", self.server.token)
            self.fill(self.server)
            yield

    def fill(self, server: Neptune3) -> None:
        rich_project(server)
        for number in range(5):
            create(server, "ws/other", f"run-{number}", created_ms=1_700_000_000_000 + number // 2)
            append(server, "ws/other", f"run-{number}", "loss", [(step, 1_700_000_000_000, 1.0) for step in range(3)])
        server.store.project("ws/other").create(None)
        server.store.project("ws/other").runs["OTH-2"].values["sys/archived"] = ("bool", True)

    def open_source(self, folder: Path) -> ReadSide:
        return open_source({})

    def snapshot(self, folder: Path) -> object:
        store = self.server.store
        return [
            store.dump(project.name, run.id) for project in store.projects.values() for run in project.runs.values()
        ].__repr__()


class TestNeptune3SourceInSmallPages(TestNeptune3Source):
    def fill(self, server: Neptune3) -> None:
        super().fill(server)
        server.pages.entries, server.pages.values, server.pages.points = 3, 7, 11
