from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardmig.adapters.neptune3 import Neptune3Source, open_source
from tests.servers.neptune3.server import Neptune3, neptune3_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Neptune3]:
    """A server, and its token in the environment."""
    with neptune3_server() as running:
        monkeypatch.setenv("NEPTUNE_API_TOKEN", running.token)
        yield running


@pytest.fixture
def source(server: Neptune3) -> Iterator[Neptune3Source]:
    """The adapter over the server, without options."""
    opened = open_source({})
    yield opened
    opened.close()
