"""How fast Neptune's local folders are read into an archive, in points a second and core, and by two workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.workload import START_MS, Rates, Shape, chunks_of, parse_arguments, scratch, shardmig, show, thousands
from shardmig.adapters.neptune_local.messages3 import messages
from shardmig.records import FloatPoints
from tests.unit.neptune_local.local_data import write_database

SHAPES = {False: Shape(1, 20, 1000), True: Shape(10, 20, 5000)}
SOURCES = ("1.x", "3.x")
POINTS_AN_OPERATION = 100
"""How many points Neptune's 1.x client gathers in one operation while a script logs one after the other."""


def write_folders(root: Path, shape: Shape) -> None:
    """Runs as neptune-client 1.x leaves them in offline mode."""
    for number in range(shape.runs):
        folder = root / ".neptune" / "offline" / f"run__01234567-89ab-cdef-0123-{number:012}"
        folder.mkdir(parents=True)
        lines = [
            json.dumps({"obj": operation, "version": version, "at": START_MS / 1000})
            for version, operation in enumerate(_operations(shape, number), 1)
        ]
        (folder / "data-1.log").write_text("".join(f"{line}\n" for line in lines))
        (folder / "last_put_version").write_text(str(len(lines)))
        (folder / "last_ack_version").write_text("0")


def _operations(shape: Shape, number: int) -> Iterator[dict[str, object]]:
    for chunk in chunks_of(shape, number):
        if not isinstance(chunk, FloatPoints):
            continue
        for path, series in chunk.series():
            rows = zip(series.values.tolist(), series.steps.units.tolist(), series.times_ms.tolist(), strict=True)
            points = [{"value": value, "step": step, "ts": time_ms / 1000} for value, step, time_ms in rows]
            for start in range(0, len(points), POINTS_AN_OPERATION):
                yield {
                    "type": "LogFloats",
                    "path": path.split("/"),
                    "values": points[start : start + POINTS_AN_OPERATION],
                }


def write_databases(root: Path, shape: Shape) -> None:
    """Runs as neptune-scale leaves them in offline mode: one message a step, with every series in it."""
    for number in range(shape.runs):
        path = root / ".neptune" / f"run-{number}" / "run_operations.sqlite3"
        created = (START_MS, messages().Run(run_id=f"run-{number}"))
        operations = chain([created], _updates(shape, number))
        write_database(path, operations, project="bench/project", run_id=f"run-{number}")


def _updates(shape: Shape, number: int) -> Iterator[tuple[int, bytes]]:
    random = np.random.default_rng(number)
    for step in range(shape.points):
        update = messages().UpdateRunSnapshot()
        update.timestamp.seconds = START_MS // 1000 + step
        update.step.whole = step
        for series, value in enumerate(random.normal(size=shape.series).tolist()):
            update.append[f"metrics/train/loss_{series:05}"].float64 = value
        yield START_MS + step * 1000, update.SerializeToString()


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    shape = SHAPES[arguments.full]
    rates, rows = Rates(arguments.repeats), []
    with scratch() as folder:
        write_folders(folder / "1.x", shape)
        write_databases(folder / "3.x", shape)
        empty = Shape(1, 1, 1)
        write_folders(folder / "nothing", empty)
        exports = iter(range(10**6))

        def export(what: str, workers: int = 1) -> float:
            words = ("export", "--source", "neptune-local", folder / what, "--project", "bench/project")
            archive = folder / f"export-{next(exports)}"
            places = ("-d", archive / "data", "-f", archive / "files")
            return shardmig(folder, *words, *places, "--workers", str(workers))

        export("nothing")
        ways = {"nothing": ("nothing", 1), "nothing, 2 workers": ("nothing", 2)}
        for name in SOURCES:
            ways |= {f"neptune {name}": (name, 1), f"neptune {name}, 2 workers": (name, 2)}
        rates.measure({way: partial(export, *what) for way, what in ways.items()})
    for name in SOURCES:
        alone_s = {}
        for way, nothing in ((f"neptune {name}", "nothing"), (f"neptune {name}, 2 workers", "nothing, 2 workers")):
            whole_s = rates.seconds(way)
            alone_s[way] = max(whole_s - rates.seconds(nothing), 1e-9)
            speedup = alone_s[f"neptune {name}"] / alone_s[way]
            rates_shown = (thousands(shape.total, whole_s), thousands(shape.total, alone_s[way]), f"{speedup:.2f}")
            rows.append([way, str(shape), f"{whole_s:.2f} s", *rates_shown])
    columns = ("source", "runs x series x points", "time", "rate", "without start-up", "times one worker")
    show(f"shardmig export (an export of one point takes {rates.seconds('nothing'):.2f} s)", columns, rows)


if __name__ == "__main__":
    main()
