from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers.s3.server import Bucket, Server, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """One server for the session."""
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: Server) -> Iterator[Bucket]:
    """An empty bucket, to which the environment leads."""
    os.environ |= s3.environment
    s3.proxy.forget()
    yield s3.bucket()
    s3.proxy.forget()
