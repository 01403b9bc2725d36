"""How fast points go into Comet's offline archives and out of them, against the vendor's own client: `log_metric`, which
writes an archive point by point. What follows, sending the archive, is the vendor's uploader on both ways."""

from __future__ import annotations

import os
import shutil
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.workload import Rates, Shape, chunks_of, parse_arguments, show, thousands
from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.comet.source import open_source
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.records import ArchivePaths, FloatPoints, Header, LoadOptions, ProjectId, Selection

SHAPES = {False: Shape(1, 20, 1_000), True: Shape(1, 100, 10_000)}
VENDORS_MOST = 20_000
"""Points that the vendor's client is given; it needs about 0.2 ms each."""


class Ours:
    """The write side into a folder, and both ways of reading it."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._shape = shape
        self._folder = folder
        self._numbers = count()
        self._files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), ProjectId("bench"))

    def write(self) -> float:
        """Seconds of writing a new run."""
        chunks = list(chunks_of(self._shape, next(self._numbers)))
        header = chunks[0]
        assert isinstance(header, Header)
        self._key = migration_key(header.run)
        target = open_target({"offline-dir": str(self._folder / "archives")}, LoadOptions(step_multiplier=1))
        started = time.perf_counter()
        target.write_run(self._key, "d" * 32, iter(chunks), self._files, None)
        return time.perf_counter() - started

    def read(self) -> float:
        """Seconds of reading it back, as verify does."""
        target = open_target({"offline-dir": str(self._folder / "archives")}, LoadOptions(step_multiplier=1))
        held = target.find_run(self._key)
        assert held is not None
        started = time.perf_counter()
        pieces = target.read_run(held, Want(), DigestSink())
        points = sum(int(piece.chunk.lengths.sum()) for piece in pieces if isinstance(piece.chunk, FloatPoints))
        assert points == self._shape.total
        return time.perf_counter() - started


class Vendors:
    """The vendor's client writes an archive; our source reads it."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._folder = folder / "vendor"
        self._series = shape.series
        self.points = min(shape.total, VENDORS_MOST)

    def write(self) -> float:
        """Seconds of logging, without the start of the client."""
        from comet_ml import OfflineExperiment

        shutil.rmtree(self._folder, ignore_errors=True)
        experiment = OfflineExperiment(
            workspace="ws",
            project_name="bench",
            offline_directory=str(self._folder),
            log_code=False,
            log_env_details=False,
            log_git_metadata=False,
            parse_args=False,
            auto_output_logging=False,
            display_summary_level=0,
        )
        started = time.perf_counter()
        for step in range(self.points // self._series):
            for number in range(self._series):
                experiment.log_metric(f"m{number}", 1 / (step + 1), step=step)
        experiment.end()
        return time.perf_counter() - started

    def read(self) -> float:
        """Seconds of reading that archive as a source."""
        source = open_source({"path": str(self._folder)})
        [project] = source.list_projects(Selection())
        runs = list(source.list_runs(project, Selection()))
        started = time.perf_counter()
        pieces = source.read_runs(runs, Want(), DigestSink())
        points = sum(int(piece.chunk.lengths.sum()) for piece in pieces if isinstance(piece.chunk, FloatPoints))
        assert points >= self.points
        return time.perf_counter() - started


def main() -> None:
    os.environ |= {"COMET_ERROR_TRACKING_ENABLE": "false", "COMET_INTERNAL_REPORTING": "false"}
    arguments = parse_arguments(__doc__ or "")
    shape = SHAPES[arguments.full]
    rates = Rates(arguments.repeats)
    with TemporaryDirectory() as folder:
        ours, vendors = Ours(shape, Path(folder)), Vendors(shape, Path(folder))
        rates.measure(
            {"vendor": vendors.write, "ours": ours.write, "read ours": ours.read, "read vendor": vendors.read}
        )
    rows = [
        [what, f"{rates.seconds(way):.2f} s", thousands(points, rates.seconds(way))]
        for what, way, points in (
            ("the vendor's client writes an archive", "vendor", vendors.points),
            ("shardmig writes an archive", "ours", shape.total),
            ("shardmig reads its archive back", "read ours", shape.total),
            ("shardmig reads the vendor's archive as a source", "read vendor", vendors.points),
        )
    ]
    show(f"Comet, {shape} points", ("what", "time", "rate"), rows)


if __name__ == "__main__":
    main()
