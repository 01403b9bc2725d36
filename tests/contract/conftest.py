from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.ray import connected, ray_cluster

pytest.register_assert_rewrite("shardmig.adapters.conformance")


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """A Ray with two cores that this process is connected to. Tests of it share one xdist group."""
    before = dict(os.environ)
    with ray_cluster(cpus=2) as cluster, connected(cluster):
        os.environ.clear()
        os.environ.update(before)
        yield cluster
