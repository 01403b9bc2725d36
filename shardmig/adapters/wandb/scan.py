"""Rows of history, from a log or a server, turned into columns of numbers and single other values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.history import RUNTIME, STEP, TIME
from shardmig.records import NO_TIME

ENOUGH_POINTS: Final = 200_000
_NUMBER: Final = frozenset("-0123456789NI")
_EXACT_DIGITS: Final = 15
_MOST_DIGITS: Final = 300
"""Longer whole numbers are beyond all doubles, and beyond what Python makes an int of."""
_SAME_MS: Final = 1e-3


class Row(NamedTuple):
    """One row of history: JSON texts by key."""

    step: int
    items: list[tuple[str, str]]


Other = Callable[[int, int, str, str], None]
"""Takes what is no number: step, time, key, JSON text."""
Inexact = Callable[[str, int], None]
"""Takes the key of whole numbers that no double holds, or that of the time of rows that lie between two milliseconds, and
how many there were."""


def scanned(rows: Iterable[Row], numbers: dict[str, int], other: Other, inexact: Inexact) -> Iterator[Points]:
    """The numbers of the rows, whole rows at a time, with the times of their rows. `numbers` gives each key its own
    number and grows. W&B's own keys are left out; numbers below nested keys have theirs joined with dots, as W&B shows
    them."""
    steps: list[int] = []
    times: list[int] = []
    sizes: list[int] = []
    keys: list[int] = []
    texts: list[str] = []
    fine_times = 0
    for row in rows:
        time_ms = NO_TIME
        before = len(keys)
        others = []
        for key, text in row.items:
            if key in (STEP, RUNTIME):
                continue
            if key == TIME:
                exact_ms = float(text) * 1000
                time_ms = round(exact_ms)
                fine_times += abs(exact_ms - time_ms) > _SAME_MS
            elif text[0] in _NUMBER:
                keys.append(numbers.setdefault(key, len(numbers)))
                texts.append(text)
            elif text[0] == "{":
                for leaf, leaf_text in leaves(key, text):
                    if leaf_text[0] in _NUMBER:
                        keys.append(numbers.setdefault(leaf, len(numbers)))
                        texts.append(leaf_text)
                    else:
                        others.append((leaf, leaf_text))
            else:
                others.append((key, text))
        for key, text in others:
            other(row.step, time_ms, key, text)
        steps.append(row.step)
        times.append(time_ms)
        sizes.append(len(keys) - before)
        if len(keys) >= ENOUGH_POINTS or len(steps) >= ENOUGH_POINTS:
            if keys:
                yield _points(steps, times, sizes, keys, texts)
                _tell_inexact(keys, texts, numbers, inexact)
            steps, times, sizes, keys, texts = [], [], [], [], []
    if keys:
        yield _points(steps, times, sizes, keys, texts)
        _tell_inexact(keys, texts, numbers, inexact)
    if fine_times:
        inexact(TIME, fine_times)


def leaves(key: str, text: str) -> Iterator[tuple[str, str]]:
    """A nested value as its leaves; one that W&B knows (it has a `_type`) as it is."""
    value = json.loads(text)
    if not isinstance(value, dict) or not value or "_type" in value:
        yield key, text
        return
    for name, below in value.items():
        yield from leaves(f"{key}.{name}", json.dumps(below))


def _points(steps: list[int], times: list[int], sizes: list[int], keys: list[int], texts: list[str]) -> Points:
    values = pc.cast(pa.array(texts, pa.string()), pa.float64()).to_numpy(zero_copy_only=False)
    return Points(
        np.repeat(np.array(steps, dtype=np.int64), sizes),
        np.array(keys, dtype=np.int64),
        np.repeat(np.array(times, dtype=np.int64), sizes),
        values,
    )


def _tell_inexact(keys: list[int], texts: list[str], numbers: dict[str, int], inexact: Inexact) -> None:
    long = pc.greater(pc.binary_length(pa.array(texts, pa.string())), _EXACT_DIGITS).to_numpy(zero_copy_only=False)
    suspects = [place for place in np.flatnonzero(long).tolist() if texts[place].lstrip("-").isdigit()]
    found = Counter(keys[place] for place in suspects if not _is_double(texts[place]))
    if found:
        names = {number: key for key, number in numbers.items()}
        for number, count in found.items():
            inexact(names[number], count)


def _is_double(digits: str) -> bool:
    return len(digits) <= _MOST_DIGITS and int(float(digits)) == int(digits)
