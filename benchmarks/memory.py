"""How much memory the processes of a migration take when one run has very many points."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.workload import Databases, Shape, environment, parse_arguments, scratch, show, thousands, write_archive

SHAPES = {False: Shape(1, 4, 100_000), True: Shape(1, 10, 5_000_000)}
LIMIT_MB = 400


class Peak(threading.Thread):
    """The greatest memory of any process below this one, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mb = 0.0
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.1):
            self.mb = max([self.mb, *map(peak_mb, _descendants(os.getpid()))])

    def stop(self) -> float:
        self._is_over.set()
        self.join()
        return self.mb


def _descendants(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if above == parent:
            found += [int(folder.name), *_descendants(int(folder.name))]
    return found


def peak_mb(process: int) -> float:
    """The greatest memory of a process so far; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def measured(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds and peak MB of a command, which must succeed."""
    peak = Peak()
    peak.start()
    started = time.perf_counter()
    command = [sys.executable, "-m", "shardmig", *words, "--no-progress", "--workers", "1"]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    took_s = time.perf_counter() - started
    mb = peak.stop()
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}{done.stdout}")
    return took_s, mb


def _more(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--points", type=int, default=0, help="points of the run; default: 400,000, with --full 50 million"
    )


def main() -> None:
    arguments = parse_arguments(__doc__ or "", _more)
    shape = Shape(1, 10, arguments.points // 10) if arguments.points else SHAPES[arguments.full]
    rows = []
    with scratch() as folder:
        archive = write_archive(folder, shape)
        again = ("-d", str(folder / "again" / "data"), "-f", str(folder / "again" / "files"))
        database = Databases(folder).fresh()
        target = ("--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{database}")
        export = ("export", "--source", "archive", archive.data, archive.files)
        for command in ((*export, *again), ("load", *target, *again), ("verify", *target, *again)):
            took_s, mb = measured(folder, *command)
            rows.append([command[0], str(shape), f"{took_s:.1f} s", thousands(shape.total, took_s), f"{mb:.0f} MB"])
    show(
        f"Peak memory of any process (limit {LIMIT_MB} MB)",
        ("command", "runs x series x points", "time", "rate", "peak"),
        rows,
    )
    if max(float(row[-1].split()[0]) for row in rows) > LIMIT_MB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
