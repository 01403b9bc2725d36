from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.neptune2.vendor import write_projects
from tests.servers.neptune2.server import NeptuneServer, neptune_server
from tests.servers.tracking_databases import sqlite_file, sqlite_template

__all__ = ["sqlite_file", "sqlite_template"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeptuneServer]:
    """A server with two projects that the vendor's client wrote. Tests only read it."""
    with neptune_server() as server:
        folder = tmp_path_factory.mktemp("neptune2")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("NEPTUNE_DATA_DIRECTORY", str(folder / ".neptune"))
            environment.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
            write_projects(server, folder)
        yield server


@pytest.fixture
def neptune2(written: NeptuneServer, monkeypatch: pytest.MonkeyPatch) -> NeptuneServer:
    """The same server, its token in the environment."""
    monkeypatch.setenv("NEPTUNE_API_TOKEN", written.api_token)
    written.requests.clear()
    return written


@pytest.fixture
def empty_neptune2(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeptuneServer]:
    """A server of the test's own."""
    with neptune_server() as server:
        monkeypatch.setenv("NEPTUNE_API_TOKEN", server.api_token)
        yield server
