"""An experiment, whether it lies in offline archives or on a server, and the order in which its points are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.reading import HeldRun
from shardmig.errors import BadInput

KEY_PREFIX: Final = "shardmig"
"""How the keys of experiments begin that shardmig made. Those of the vendor's client are 32 hexadecimal digits."""


class Mark(NamedTuple):
    """What shardmig noted with an experiment that it wrote."""

    key: str
    digest: str
    is_complete: bool


class About(NamedTuple):
    """What Comet knows of an experiment itself. `others` are its facts, by key; the name is one of them."""

    workspace: str
    project: str
    start_ms: int
    end_ms: int | None
    tags: Sequence[str]
    others: Mapping[str, str]


class Experiment(HeldRun, Protocol):
    """One experiment as it is held now: what `RunReader` reads, its assets, and its facts. Values are typed in archives,
    texts on servers."""

    def about(self) -> About:
        """Its facts."""
        ...

    def get(self, path: str, file: Path) -> None:
        """Copy the asset of that name to a new local file. Raises NotFound."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...


def in_order(points: NativePoints) -> NativePoints:
    """Sorted by (step, time, value), NaN last."""
    order = np.lexsort((points.values, points.times_ms, points.steps))
    return NativePoints(points.steps[order], points.times_ms[order], points.values[order])


def whole_steps(key: str, parts: Iterator[NativePoints]) -> Iterator[NativePoints]:
    """The points of a series that come by ascending step, in order, and no step in two parts. Raises BadInput when a
    step comes after a greater one."""
    held: NativePoints | None = None
    for part in parts:
        if held is not None:
            part = _joined(held, part)
        if np.any(np.diff(part.steps) < 0):
            raise BadInput(f"the points of {key} are not in step order: something else wrote them", field=key)
        last = int(np.searchsorted(part.steps, part.steps[-1]))
        if last:
            yield in_order(part.part(slice(0, last)))
        held = part.part(slice(last, None))
    if held is not None:
        yield in_order(held)


def with_more(parts: Iterable[NativePoints], more: NativePoints) -> Iterator[NativePoints]:
    """The points of a series that come in order, and others of it among them. No step is in two parts of either."""
    more = in_order(more)
    for part in parts:
        end = int(np.searchsorted(more.steps, part.steps[-1], side="right"))
        yield in_order(_joined(part, more.part(slice(0, end)))) if end else part
        more = more.part(slice(end, None))
    if len(more.steps):
        yield more


def batched(series: Iterable[tuple[str, NativePoints]], rows: int) -> Iterator[Metrics]:
    """About `rows` points at a time of parts that end with a step; only a step of more points is given whole."""
    batch: list[tuple[str, NativePoints]] = []
    room = rows
    for key, part in series:
        while len(part.steps):
            end = _last_step_end(part.steps, room)
            if not end and not batch:
                end = int(np.searchsorted(part.steps, part.steps[0], side="right"))
            if end:
                batch.append((key, part.part(slice(0, end))))
            part, room = part.part(slice(end, None)), room - end
            if len(part.steps) or room <= 0:
                yield _as_metrics(batch)
                batch, room = [], rows
    if batch:
        yield _as_metrics(batch)


def _joined(*parts: NativePoints) -> NativePoints:
    return NativePoints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _last_step_end(steps: np.ndarray[tuple[int], np.dtype[np.int64]], most: int) -> int:
    """The greatest number of rows up to `most` that ends with a step."""
    if len(steps) <= most:
        return len(steps)
    return int(np.searchsorted(steps, steps[most])) if most > 0 else 0


def _as_metrics(batch: list[tuple[str, NativePoints]]) -> Metrics:
    keys: list[str] = []
    lengths: list[int] = []
    for key, part in batch:
        if keys and keys[-1] == key:
            lengths[-1] += len(part.steps)
        else:
            keys.append(key)
            lengths.append(len(part.steps))
    columns = [np.concatenate(column) for column in zip(*(part for _, part in batch), strict=True)]
    return Metrics(keys, np.array(lengths, dtype=np.int64), *columns)
