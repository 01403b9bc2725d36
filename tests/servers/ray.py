"""A real Ray on this machine: its processes are started here, the tests are connected to it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardmig.engines.ray import connect

_QUICK_IMPORTS = Path(__file__).with_name("ray_quick_imports")
_STORE_BYTES = 200 * 1024 * 1024


@contextmanager
def ray_cluster(*, cpus: int) -> Iterator[Any]:
    """A ray.cluster_utils.Cluster whose head has so many cores. More nodes: `add_node`. It ends with the context."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_QUICK_IMPORTS), os.environ.get("PYTHONPATH", "")])
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    head = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    try:
        cluster = Cluster(initialize_head=True, head_node_args=head)
    except Exception:  # noqa: BLE001 - it gives its processes 15 s to start, which may be too little on busy cores
        cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def connected(cluster: Any) -> Iterator[Any]:
    """This process as a driver of the cluster."""
    import ray

    connect(ray, cluster.address, 0, {})
    try:
        yield cluster
    finally:
        ray.shutdown()
