"""How fast runs become W&B transaction logs, are read back from them, and are sent to a local server.

The baseline of writing is the vendor's own protobuf classes: the same rows, already merged by step, as `Record` messages
that are made, serialised and framed (without times). Sending is the vendor's `wandb sync` into the server of the tests, which
shares the cores: it says nothing of the hosted service, and is told by the clock. The others are seconds of processor time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.workload import Rates, Shape, chunks_of, parse_arguments, scratch, show, thousands, timed
from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.log import LogWriter
from shardmig.adapters.wandb.records import messages
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, Chunk, FloatPoints, Header, LoadOptions
from tests.servers.wandb.server import KEY, wandb_server

SHAPES = {
    False: (Shape(1, 1, 20_000), Shape(1, 20, 2_000)),
    True: (Shape(1, 1, 500_000), Shape(1, 20, 50_000), Shape(1, 1000, 1000)),
}
LOAD = LoadOptions(step_multiplier=1)


def worked(work: Callable[[], object]) -> float:
    """Seconds of processor time that it takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def written(shape: Shape, options: dict[str, str], seconds: Callable[[Callable[[], object]], float] = worked) -> float:
    """Seconds of the write side alone; the chunks are ready before."""
    target = open_target(options, LOAD)
    runs = [list(chunks_of(shape, number)) for number in range(shape.runs)]
    nowhere = ArchivePaths("/nonexistent", "/nonexistent")

    def write(chunks: list[Chunk]) -> None:
        header = chunks[0]
        assert isinstance(header, Header)
        files = ArchiveFiles(nowhere, header.run.project)
        target.write_run(migration_key(header.run), "digest", iter(chunks), files, None)

    took_s = seconds(lambda: [write(chunks) for chunks in runs])
    target.close()
    return took_s


def written_offline(folder: Path, shape: Shape) -> float:
    fresh = tempfile.mkdtemp(dir=folder)
    try:
        return written(shape, {"offline-dir": fresh})
    finally:
        shutil.rmtree(fresh)


def read_back(folder: Path, shape: Shape) -> float:
    """Seconds of reading every run of a folder back."""
    fresh = tempfile.mkdtemp(dir=folder)
    written(shape, {"offline-dir": fresh})
    target = open_target({"offline-dir": fresh}, LOAD)

    def read() -> None:
        for number in range(shape.runs):
            header = next(chunks_of(shape, number))
            assert isinstance(header, Header)
            held = target.find_run(migration_key(header.run))
            assert held is not None
            pieces = (piece.chunk for piece in target.read_run(held, Want(), DigestSink()))
            assert (
                sum(len(chunk.values) for chunk in pieces if isinstance(chunk, FloatPoints))
                == shape.series * shape.points
            )

    took_s = worked(read)
    shutil.rmtree(fresh)
    return took_s


def vendor_classes(folder: Path, shape: Shape) -> float:
    """Seconds of the same rows through the vendor's messages; the columns are merged before the clock starts."""
    runs = []
    for number in range(shape.runs):
        columns: dict[str, list[float]] = {}
        for chunk in chunks_of(shape, number):
            for path, points in chunk.series() if isinstance(chunk, FloatPoints) else ():
                columns.setdefault(path, []).extend(points.values.tolist())
        runs.append(columns)
    with (folder / "vendor.wandb").open("wb") as file:
        log = LogWriter(file)
        return worked(lambda: [log.add_all(vendor_records(columns)) for columns in runs])


def vendor_records(columns: dict[str, list[float]]) -> Iterator[bytes]:
    pb = messages()
    for step, values in enumerate(zip(*columns.values(), strict=True)):
        history = pb.HistoryRecord(step=pb.HistoryStep(num=step))
        for path, value in zip(columns, values, strict=True):
            history.item.add(key=path, value_json=repr(value))
        yield pb.Record(history=history).SerializeToString()


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    rows = []
    with scratch() as folder, wandb_server() as server:
        os.environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "HOME": str(folder)}

        def sent(shape: Shape) -> float:
            server.forget()
            return written(shape, {"base-url": server.url}, timed)

        for shape in SHAPES[arguments.full]:
            rates = Rates(arguments.repeats)
            rates.measure(
                {
                    "vendor's classes": lambda shape=shape: vendor_classes(folder, shape),  # type: ignore[misc]
                    "write_run into a folder": lambda shape=shape: written_offline(folder, shape),  # type: ignore[misc]
                    "read_run from a folder": lambda shape=shape: read_back(folder, shape),  # type: ignore[misc]
                    "write_run to the local server": lambda shape=shape: sent(shape),  # type: ignore[misc]
                }
            )
            rows += [
                [str(shape), name, f"{rates.seconds(name):.2f} s", thousands(shape.total, rates.seconds(name))]
                for name in rates.names()
            ]
    show("W&B transaction logs, one process", ("runs x series x points", "way", "time", "rate"), rows)


if __name__ == "__main__":
    main()
