from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.lightning.server import Lightning, lightning_server


@pytest.fixture(scope="session")
def lightning_of_session() -> Iterator[Lightning]:
    """One server for all tests of a process."""
    with lightning_server() as running:
        yield running


@pytest.fixture
def lightning(lightning_of_session: Lightning, monkeypatch: pytest.MonkeyPatch) -> Lightning:
    """An empty server, and its key in the environment."""
    lightning_of_session.forget()
    for name, value in lightning_of_session.environment.items():
        monkeypatch.setenv(name, value)
    return lightning_of_session
