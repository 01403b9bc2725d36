"""A local Comet for a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.comet.server import CometServer, comet_server


@pytest.fixture
def comet(monkeypatch: pytest.MonkeyPatch) -> Iterator[CometServer]:
    """A server of its own, and its API key in the environment."""
    with comet_server() as server:
        monkeypatch.setenv("COMET_API_KEY", server.api_key)
        yield server
