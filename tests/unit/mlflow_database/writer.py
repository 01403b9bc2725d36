"""A worker process: writes runs into a database, however many others do the same. Arguments: URI, name, runs, transactions."""

from __future__ import annotations

import sys

import numpy as np

from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store, prepare_database
from shardmig.adapters.mlflow.store import NewRun, RunStore, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics

KEYS = ["loss", "accuracy"]
ROWS = 200


def part_of(number: int) -> Metrics:
    """The points of one transaction."""
    steps = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int64)
    lengths = np.full(len(KEYS), ROWS, dtype=np.int64)
    return Metrics(KEYS, lengths, np.tile(steps, 2), np.tile(steps + 9, 2), np.tile(np.sin(steps), 2))


def write_run(store: RunStore, run: StoredRun, transactions: int) -> None:
    """All points of a run; a line on standard output after each transaction."""
    store.log_params(run, {"lr": "0.1"})
    for number in range(transactions):
        store.log_metrics(run, part_of(number))
        store.flush(run)
        print(number, flush=True)
    store.finish_run(run, "FINISHED", 10, {"shardmig.state": "complete"})


if __name__ == "__main__":
    uri = prepare_database(sys.argv[1])
    store, reason = open_store(uri, lambda: ClientStore(uri))
    assert reason == "", reason
    experiment = store.experiment_id("shared")
    for number in range(int(sys.argv[3])):
        key = f"{sys.argv[2]}-{number}"
        new = NewRun(experiment_id=experiment, name=key, start_ms=1, user="eve", tags={"shardmig.key": key})
        write_run(store, store.create_run(new), int(sys.argv[4]))
    store.close()
