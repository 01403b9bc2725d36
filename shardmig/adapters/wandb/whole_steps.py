"""Chunks cut anew, so that the points of a series with one step in W&B come together: one of them stands for all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shardmig import steps as step_arithmetic
from shardmig.errors import StepConflict
from shardmig.records import Chunk, FloatPoints, Int64s, Steps


def whole_steps(chunks: Iterator[Chunk], multiplier: int) -> Iterator[Chunk]:
    """The same points in the same order; the last step of a chunk waits for the next one."""
    held: FloatPoints | None = None
    for chunk in chunks:
        if not isinstance(chunk, FloatPoints) or not len(chunk.values):
            yield from () if held is None else (held,)
            held = None
            yield chunk
            continue
        together = None if held is None else _joined(held, chunk)
        if held is not None and together is None:
            yield held
        chunk, held = _cut(chunk if together is None else together, multiplier)
        if len(chunk.values):
            yield chunk
    if held is not None:
        yield held


def _cut(points: FloatPoints, multiplier: int) -> tuple[FloatPoints, FloatPoints]:
    """All but the last step of the last series, and that."""
    count = len(points.values)
    first = count - int(points.lengths[-1])
    try:
        numbers, _ = step_arithmetic.multiply(points.steps[first:], multiplier)
    except StepConflict:  # whoever fits them says so better
        numbers = points.steps.units[first:]
    numbers = np.maximum(numbers, 0)
    other = np.flatnonzero(numbers != numbers[-1])
    at = first + (int(other[-1]) + 1 if len(other) else 0)
    lengths = points.lengths.copy()
    lengths[-1] = at - first
    kept = len(lengths) if lengths[-1] else len(lengths) - 1
    return _part(points, points.paths[:kept], lengths[:kept], slice(0, at)), _part(
        points, points.paths[-1:], np.array([count - at], dtype=np.int64), slice(at, count)
    )


def _joined(held: FloatPoints, points: FloatPoints) -> FloatPoints | None:
    """Both, where the first goes on in the second; None: it does not."""
    if points.paths[0] != held.paths[0]:
        return None
    scale = max(held.steps.scale, points.steps.scale)
    units = [_scaled(part.steps, scale) for part in (held, points)]
    if any(column is None for column in units):
        return None
    lengths = points.lengths.copy()
    lengths[0] += len(held.values)
    return FloatPoints(
        points.paths,
        lengths,
        Steps(np.concatenate([column for column in units if column is not None]), scale),
        np.concatenate([held.times_ms, points.times_ms]),
        np.concatenate([held.values, points.values]),
    )


def _scaled(steps: Steps, scale: int) -> Int64s | None:
    factor = 10 ** (scale - steps.scale)
    if max(abs(int(steps.units.min())), abs(int(steps.units.max()))) * factor >= 2**63:
        return None
    return steps.units * np.int64(factor)


def _part(points: FloatPoints, paths: list[str], lengths: Int64s, rows: slice) -> FloatPoints:
    return FloatPoints(paths, lengths, points.steps[rows], points.times_ms[rows], points.values[rows])
