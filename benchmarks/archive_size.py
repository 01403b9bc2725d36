"""How many bytes a point takes in an archive, by the kind of curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.workload import START_MS, parse_arguments, publish, scratch, show
from shardmig.records import Chunk, End, Float64s, FloatPoints, Header, Int64s, ProjectId, RunId, RunRef, Steps

POINTS = {False: 5_000, True: 50_000}
SERIES = 20


def loss(steps: Int64s, random: np.random.Generator) -> Float64s:
    """A loss as a trainer in 32 bits reports it."""
    noise = 0.02 * random.normal(size=len(steps))
    return (np.exp(-3 * steps / len(steps)) * (1 + noise)).astype(np.float32).astype(np.float64)


def rounded(steps: Int64s, random: np.random.Generator) -> Float64s:
    """A percentage that is rounded before it is logged."""
    exact = 100 * (1 - np.exp(-3 * steps / len(steps))) + random.normal(size=len(steps))
    return np.round(exact, 2).astype(np.float64)


def schedule(steps: Int64s, _: np.random.Generator) -> Float64s:
    """A learning rate that falls a hundred times."""
    return np.float_power(0.95, steps * 100 // len(steps)) / 1000


def noise(steps: Int64s, random: np.random.Generator) -> Float64s:
    """64 random bits: the worst case, of which 8 bytes cannot be saved."""
    return random.normal(size=len(steps))


CURVES: dict[str, Callable[[Int64s, np.random.Generator], Float64s]] = {
    "loss, float32": loss,
    "percentage, 2 digits": rounded,
    "learning rate": schedule,
    "noise, float64": noise,
}


def chunks_of(curve: Callable[[Int64s, np.random.Generator], Float64s], points: int) -> Iterator[Chunk]:
    """One run of such curves; points come about every 1.3 seconds."""
    random = np.random.default_rng(1)
    yield Header(RunRef(project=ProjectId("bench/project"), id=RunId("RUN-1")), "benchmark", "1")
    steps = np.arange(points)
    for number in range(SERIES):
        times_ms = START_MS + np.cumsum(1300 + random.integers(-20, 20, points))
        values = curve(steps, random)
        yield FloatPoints([f"metrics/curve_{number}"], np.array([points]), Steps(steps), times_ms, values)
    yield End()


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    points = POINTS[arguments.full]
    rows = []
    for name, curve in CURVES.items():
        with scratch() as folder:
            archive = publish(folder, chunks_of(curve, points))
            size_bytes = sum(part.stat().st_size for part in Path(archive.data).rglob("*.parquet"))
        rows.append([name, f"{SERIES} x {points}", f"{size_bytes / 1e6:.2f} MB", f"{size_bytes / SERIES / points:.2f}"])
    show(
        "Size of an archive (step, time and value of every point)",
        ("curves", "series x points", "size", "bytes/point"),
        rows,
    )


if __name__ == "__main__":
    main()
