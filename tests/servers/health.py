"""Waiting for a server that a test has started as a process of its own."""

from __future__ import annotations

import subprocess
import time
from http.client import HTTPConnection
from pathlib import Path


def wait_until_healthy(name: str, port: int, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    """Return when it answers /health. Raises RuntimeError, with the end of its log, where it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise RuntimeError(f"{name} is not healthy after {timeout_s} s:\n{log.read_text()[-2000:]}")
