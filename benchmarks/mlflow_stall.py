"""What delayed ACKs cost against an `mlflow server` with several workers, and that our client does not pay it.

    python benchmarks/mlflow_stall.py [--workers 4] [--requests 50]

Prints milliseconds a request (median) of keep-alive GETs: with http.client as it is, and with ours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

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
            for title, call in {"http.client": plain(server), "shardmig": ours(server)}.items():
                warm_up(call)
                print(f"{title:12} {median_ms(call, arguments.requests):7.1f} ms a request")


def plain(server: MlflowServer) -> Callable[[], object]:
    connection = HTTPConnection("127.0.0.1", server.port)

    def call() -> bytes:
        connection.request("GET", "/health")
        return connection.getresponse().read()

    return call


def ours(server: MlflowServer) -> Callable[[], object]:
    client = HttpClient(server.uri, connections=1, timeout_s=30)
    return lambda: client.read("/health", {})


def warm_up(call: Callable[[], object]) -> None:
    for _ in range(20):
        call()


def median_ms(call: Callable[[], object], requests: int) -> float:
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
