"""A real `mlflow server` for tests, on a loopback port; its whole process group is gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.servers.health import wait_until_healthy

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 3.0


class MlflowServer(msgspec.Struct, frozen=True):
    """A running server and the database behind it."""

    port: int
    database: Path

    @property
    def uri(self) -> str:
        """Its tracking URI."""
        return f"http://127.0.0.1:{self.port}"

    def forget_runs(self) -> None:
        """Mark all runs deleted: the next test finds none of them."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection, connection:
            connection.execute("UPDATE runs SET lifecycle_stage = 'deleted'")


@contextmanager
def mlflow_server(folder: Path, database: Path, *, workers: int, artifacts: str = "") -> Iterator[MlflowServer]:
    """A server over an initialised SQLite file; artifacts go through it into `folder`, or to where `artifacts` says."""
    with server_over(f"sqlite:///{database}", folder, workers=workers, artifacts=artifacts) as port:
        yield MlflowServer(port, database)


@contextmanager
def server_over(store: str, folder: Path, *, workers: int, artifacts: str = "") -> Iterator[int]:
    """The port of a server over any initialised database, by its URI; otherwise as `mlflow_server`."""
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers), "--backend-store-uri", store]
    command += ["--artifacts-destination", artifacts or str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True, env=_environment(folder)
        )
        try:
            wait_until_healthy("mlflow server", port, process, folder / "server.log", _START_TIMEOUT_S)
            yield port
        finally:
            _stop(process)


@pytest.fixture(scope="session")
def mlflow_http(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server with several workers, as MLflow's default is, for the whole session."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    database = Path(shutil.copy(sqlite_template, folder / "mlflow.db"))
    with mlflow_server(folder, database, workers=2) as server:
        yield server


def _environment(folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # Background jobs evaluate traces: nothing of ours, and seven processes that take seconds to start.
    return inherited | quiet | {"HOME": str(folder), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's process group: uvicorn's workers are children of a child."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
