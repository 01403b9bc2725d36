"""The ground that the other tests stand on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

_REACH_OUT = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=1)"


def test_a_test_cannot_reach_beyond_loopback() -> None:
    with pytest.raises(ConnectionRefusedError, match="loopback only"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)


def test_a_python_started_by_a_test_cannot_reach_beyond_loopback() -> None:
    result = subprocess.run([sys.executable, "-c", _REACH_OUT], capture_output=True, text=True)
    assert result.returncode == 1
    assert "loopback only" in result.stderr


def test_a_test_reaches_a_server_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass


@pytest.mark.parametrize("prefix", ["MLFLOW_TRACKING", "NEPTUNE_", "SHARDMIG_", "XDG_"])
def test_the_settings_of_the_developer_are_out_of_reach(prefix: str) -> None:
    assert [name for name in os.environ if name.startswith(prefix)] == []


def test_the_clock_follows_the_time_zone_of_the_test() -> None:
    os.environ["TZ"] = "Asia/Kathmandu"
    time.tzset()
    assert time.localtime(0).tm_hour == 5
