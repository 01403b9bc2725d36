"""Chunks of one series each, from what was read of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.source.spools import Entry
from shardmig.records import Float64s, FloatPoints, HistogramPoints, Histograms, Int64s, Steps, StringPoints, Texts

_MOST_CHARACTERS: Final = 16 * 2**20


def float_points(path: str, points: Points) -> FloatPoints:
    """Numbers."""
    return FloatPoints([path], _length(len(points)), Steps(points.steps), points.times_ms, points.values)


def text_points(path: str, entries: Sequence[Entry]) -> StringPoints:
    """Texts."""
    texts = Texts.from_list([entry.text for entry in entries])
    return StringPoints([path], _length(len(entries)), *_places(entries), texts)


def histogram_points(path: str, entries: Sequence[Entry]) -> HistogramPoints:
    """Histograms, each of the form that `is_histogram` knows."""
    values = [json.loads(entry.text) for entry in entries]
    edges = [_edges(value) for value in values]
    counts = [np.array(value["values"], dtype=np.float64) for value in values]
    histograms = Histograms(
        ["COUNTING"] * len(values),
        np.fromiter(map(len, edges), np.int64, len(edges)),
        np.concatenate(edges),
        np.fromiter(map(len, counts), np.int64, len(counts)),
        np.concatenate(counts),
    )
    return HistogramPoints([path], _length(len(entries)), *_places(entries), histograms)


def is_histogram(value: Mapping[str, Any]) -> bool:
    """Has it counts, and edges or (in runs of old) evenly spaced ones in short?"""
    packed = value.get("packedBins")
    numbers = [*value["values"]] if isinstance(value.get("values"), list) else [None]
    numbers += value.get("bins") or ([packed.get(name) for name in ("min", "size", "count")] if packed else [None])
    return all(isinstance(number, int | float) for number in numbers)


def batches(entries: Iterable[Entry], most: int) -> Iterator[list[Entry]]:
    """The entries, at most so many at a time and not much more than 16 MiB of them."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        some.append(entry)
        size += len(entry.text)
        if len(some) == most or size > _MOST_CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some


def last_of_each_step(entries: Iterable[Entry]) -> list[Entry]:
    """One entry a step, in order of steps."""
    by_step = {entry.step: entry for entry in entries}
    return [by_step[step] for step in sorted(by_step)]


def _places(entries: Sequence[Entry]) -> tuple[Steps, Int64s]:
    steps = np.array([entry.step for entry in entries], dtype=np.int64)
    return Steps(steps), np.array([entry.time_ms for entry in entries], dtype=np.int64)


def _edges(value: Mapping[str, Any]) -> Float64s:
    if value.get("bins"):
        return np.array(value["bins"], dtype=np.float64)
    packed = value["packedBins"]
    places: Float64s = np.arange(packed["count"] + 1, dtype=np.float64)
    edges: Float64s = places * packed["size"] + packed["min"]
    return edges


def _length(count: int) -> Int64s:
    return np.array([count], dtype=np.int64)
