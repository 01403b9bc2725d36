"""A PostgreSQL cluster of its own for a test session, on a loopback port, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
_START_TIMEOUT_S = 30


class PostgresServer(msgspec.Struct, frozen=True):
    """A running cluster; `mlflow` is its superuser, without password."""

    port: int

    def uri(self, database: str = "postgres") -> str:
        """Tracking URI of a database."""
        return f"postgresql+psycopg://mlflow@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """A new database as a copy of `template`, to which nobody may be connected; returns its name."""
        name = f"test_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute one statement outside of any transaction."""
        import psycopg

        conninfo = f"host=127.0.0.1 port={self.port} user=mlflow dbname={database}"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, or a skipped test where there is none to start."""
    binaries = _found_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's initdb is not installed (Debian: apt-get install postgresql)")
    with started_postgres(binaries) as server:
        yield server


@contextmanager
def started_postgres(binaries: Path) -> Iterator[PostgresServer]:
    """A new cluster in a temporary folder. As root it is executed by an unprivileged user: PostgreSQL refuses root."""
    folder = Path(tempfile.mkdtemp(prefix="shardmig-postgres-"))
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(folder, user)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    cluster = folder / "cluster"
    try:
        subprocess.run(
            [binaries / "initdb", "-D", cluster, "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            user=user,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        port = _free_port()
        settings = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off")
        with open(folder / "log", "w+b") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", cluster, *(word for setting in settings for word in ("-c", setting))],
                user=user,
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
            try:
                _wait_until_up(server, port, folder / "log")
                yield PostgresServer(port)
            finally:
                server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: SIGTERM waits for clients to leave
                server.wait(timeout=_START_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found_binaries() -> Path | None:
    on_path = shutil.which("initdb")
    candidates = [*_BINARIES, *([Path(on_path).parent] if on_path else [])]
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


def _unprivileged_user() -> str | None:
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=mlflow dbname=postgres").close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text()}") from None
            time.sleep(0.1)
        else:
            return
