"""What delayed ACKs cost against an `mlflow server` with several workers, and that our client does not pay it.

    python benchmarks/mlflow_stall.py [--workers 4] [--requests 50]

Prints milliseconds a request (median, fastest) of GETs: kept alive with http.client as it is and with ours, and over a
new connection each, which no stall can reach: what the server itself takes on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.database import prepare_database
from shardmig.adapters.mlflow.http import HttpClient
from tests.servers.mlflow import MlflowServer, mlflow_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4, help="of the server; MLflow's default is 4")
    parser.add_argument("--requests", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = folder / "mlflow.db"
        prepare_database(f"sqlite:///{database}")
        with mlflow_server(folder, database, workers=arguments.workers) as server:
            ways = {"http.client": plain(server), "shardmig": ours(server), "new connections": fresh(server)}
            for title, call in ways.items():
                median, fastest = timed_ms(call, arguments.requests)
                print(f"{title:16} {median:7.1f} {fastest:7.1f}")


def plain(server: MlflowServer) -> Callable[[], object]:
    connection = HTTPConnection("127.0.0.1", server.port)

    def call() -> bytes:
        connection.request("GET", "/health")
        return connection.getresponse().read()

    return call


def ours(server: MlflowServer) -> Callable[[], object]:
    client = HttpClient(server.uri, Login(Credentials()), connections=1, timeout_s=30)
    return lambda: client.read("/health", {})


def fresh(server: MlflowServer) -> Callable[[], object]:
    def call() -> None:
        client = HttpClient(server.uri, Login(Credentials()), connections=1, timeout_s=30)
        client.read("/health", {})
        client.close()

    return call


def timed_ms(call: Callable[[], object], requests: int) -> tuple[float, float]:
    """Median and fastest, after a warm-up."""
    times = []
    for number in range(20 + requests):
        start = time.perf_counter()
        call()
        if number >= 20:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times), min(times)


if __name__ == "__main__":
    main()
