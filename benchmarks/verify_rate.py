"""How fast a load is verified point by point, beside what SQLite itself gives out."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.workload import (
    Databases,
    Rates,
    Shape,
    parse_arguments,
    scratch,
    shardmig,
    show,
    thousands,
    timed,
    write_archive,
)
from shardmig.adapters.mlflow.client import ClientStore
from shardmig.adapters.mlflow.database import open_store
from shardmig.records import ArchivePaths, TargetRunId

SHAPES = {False: Shape(4, 20, 250), True: Shape(50, 20, 1000)}
POINTS_AT_A_TIME = 250_000


def bare_select(database: Path) -> float:
    """Seconds of one statement a run, its rows fetched as tuples."""
    with closing(sqlite3.connect(database)) as connection:
        runs = connection.execute("SELECT run_uuid FROM runs").fetchall()
        select = "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY key, step"
        return timed(lambda: [len(connection.execute(select, run).fetchall()) for run in runs])


def histories(database: Path) -> float:
    """Seconds of the read side alone."""
    with closing(sqlite3.connect(database)) as connection:
        runs = [TargetRunId(run_id) for (run_id,) in connection.execute("SELECT run_uuid FROM runs")]
    uri = f"sqlite:///{database}"
    store, reason = open_store(uri, ClientStore(uri))
    assert reason == "", reason
    stored = [store.get_run(run) for run in runs]
    took_s = timed(lambda: [sum(map(len, store.history(run, run.metric_keys, POINTS_AT_A_TIME))) for run in stored])
    store.close()
    return took_s


def whole_verify(folder: Path, database: Path, archive: ArchivePaths, workers: int) -> float:
    """Seconds of `shardmig verify` as a user executes it; it must find everything equal."""
    shutil.rmtree(folder / "archive-copy", ignore_errors=True)
    copy = Path(shutil.copytree(Path(archive.data).parent, folder / "archive-copy"))
    words = (
        "verify",
        "--target",
        "mlflow",
        "--mlflow-tracking-uri",
        f"sqlite:///{database}",
        "--workers",
        str(workers),
    )
    return shardmig(folder, *words, "-d", copy / "data", "-f", copy / "files")


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    shape = SHAPES[arguments.full]
    with scratch() as folder:
        archive = write_archive(folder, shape)
        database = Databases(folder).fresh()
        words = ("load", "--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{database}")
        loaded = Path(shutil.copytree(Path(archive.data).parent, folder / "archive-loaded"))
        shardmig(folder, *words, "-d", loaded / "data", "-f", loaded / "files")
        rates = Rates(arguments.repeats)
        rates.measure(
            {
                "bare SELECT": lambda: bare_select(database),
                "histories": lambda: histories(database),
                "shardmig verify --workers 1": lambda: whole_verify(folder, database, archive, 1),
                "shardmig verify --workers 2": lambda: whole_verify(folder, database, archive, 2),
            }
        )
    rows = [
        [str(shape), name, f"{rates.seconds(name):.2f} s", thousands(shape.total, rates.seconds(name))]
        for name in rates.names()
    ]
    show("Verifying a SQLite tracking database", ("runs x series x points", "way", "time", "rate"), rows)


if __name__ == "__main__":
    main()
