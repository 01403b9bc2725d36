"""A run in W&B as what is read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.reading import RunReader
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.staging import staging_folder
from shardmig.adapters.wandb.columns import Points, joined
from shardmig.adapters.wandb.fit import WandbRules
from shardmig.adapters.wandb.naming import BLOCK, WandbNaming
from shardmig.adapters.wandb.scan import scanned
from shardmig.adapters.wandb.spools import SeriesSpool
from shardmig.adapters.wandb.stored import StoredRun
from shardmig.adapters.wandb.times import TIMES, Times
from shardmig.errors import NotFound
from shardmig.records import Field, LoadOptions, Piece

RULES: Final = WandbRules(LoadOptions(), WandbNaming())
"""For reading: neither names nor steps are fitted."""
OWN_KEYS: Final = frozenset({BLOCK, "_wandb"})
"""Of the config, that are no field."""


def read_back(stored: StoredRun, want: Want, files: FileSink) -> Iterator[Piece]:
    """The pieces of a run that shardmig wrote, in canonical order, and all else that its config and history hold. Raises
    NotFound when its manifest is gone."""
    with staging_folder() as staging:
        yield from _reader(Held(stored, staging), stored, want, staging).pieces(files)


@contextmanager
def run_reader(stored: StoredRun, want: Want, beside: Beside) -> Iterator[tuple[RunReader, Held]]:
    """Of a run that shardmig wrote; what its config has beyond that is left out. `beside`: takes what the history has
    beside numbers. Raises NotFound when the manifest is gone."""
    with staging_folder() as staging:
        held = Held(stored, staging, beside)
        reader = _reader(held, stored, want, staging)
        held.keys = frozenset(entry.key for entry in reader.manifest.params)
        yield reader, held


def _reader(held: Held, stored: StoredRun, want: Want, staging: Path) -> RunReader:
    folder = staging / "files"
    folder.mkdir()
    return RunReader(held, _Files(stored), want, folder, RULES)


class Beside(Protocol):
    """Takes what a history has beside numbers."""

    def take(self, step: int, time_ms: int, key: str, text: str) -> None:
        """A JSON text that is no number."""
        ...

    def take_inexact(self, key: str, number: int) -> None:
        """Numbers, or times of rows, that are not held exactly."""
        ...


class _Files:
    """`Artifacts` of a stored run, for reading only."""

    def __init__(self, stored: StoredRun) -> None:
        self._stored = stored

    def put(self, file: Path, path: str) -> None:
        raise NotImplementedError

    def get(self, path: str, file: Path) -> None:
        self._stored.get(path, file)


class _History(NamedTuple):
    """A history put in order of its series, and the last value of those that have points, by their numbers."""

    spool: SeriesSpool
    last: dict[int, float]


class Held:
    """`HeldRun` of a stored run. Its history is read once, when it is first asked for. `beside`: takes what is no number;
    None: nobody wants it."""

    keys: frozenset[str] | None = None
    """Of the config, whose values are given; None: all."""

    def __init__(self, stored: StoredRun, scratch: Path, beside: Beside | None = None) -> None:
        self._stored = stored
        self._scratch = scratch
        self._beside = beside
        self._numbers: dict[str, int] = {}
        self.id = str(stored.id)

    def values(self) -> Mapping[str, Value]:
        """As HeldRun."""
        config = self._stored.config()
        given = config if self.keys is None else {key: value for key, value in config.items() if key in self.keys}
        return {key: value for key, value in _values(given) if key not in OWN_KEYS}

    def series_keys(self) -> Iterable[str]:
        """As HeldRun."""
        return list(self.last_values)

    @cached_property
    def last_values(self) -> dict[str, float]:
        """The last value of each float series, by its key."""
        last = self._history.last
        return {key: last[number] for key, number in self._numbers.items() if number in last}

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As HeldRun: small series together, long ones in parts."""
        waiting: list[tuple[str, Points]] = []
        size = 0
        for key in keys:
            for part in self._history.spool.series(self._numbers[key], rows):
                if waiting and (size + len(part) > rows or waiting[-1][0] == key):
                    yield _metrics(waiting)
                    waiting, size = [], 0
                waiting.append((key, part))
                size += len(part)
        if waiting:
            yield _metrics(waiting)

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:  # noqa: ARG002 (every scalar is in the config)
        """As HeldRun."""
        return ()

    @cached_property
    def _history(self) -> _History:
        spool = SeriesSpool(self._scratch)
        last: dict[int, float] = {}
        times = Times(self._times_file(), self._numbers)
        takes = (_ignore, _ignore) if self._beside is None else (self._beside.take, self._beside.take_inexact)
        for points in scanned(self._stored.rows(), self._numbers, *takes):
            keys, places = np.unique(points.keys[::-1], return_index=True)
            last.update(zip(keys.tolist(), points.values[::-1][places].tolist(), strict=True))
            spool.add(times.restored(points))
        spool.finish()
        return _History(spool, last)

    def _times_file(self) -> Path | None:
        file = self._scratch / "times"
        try:
            self._stored.get(TIMES, file)
        except NotFound:
            return None
        return file


def _values(tree: Mapping[str, Any], folder: str = "") -> Iterator[tuple[str, Value]]:
    """Scalars by key. What no manifest knows may be nested: by its path then."""
    for key, value in tree.items():
        if isinstance(value, dict) and key not in OWN_KEYS:
            yield from _values(value, f"{folder}{key}/")
        elif isinstance(value, list) and not all(isinstance(text, str) for text in value):
            yield folder + key, msgspec.json.encode(value).decode()
        elif value is not None:
            yield folder + key, value


def _ignore(*_: object) -> None:
    """What is no number, or no double, is none of ours."""


def _metrics(parts: list[tuple[str, Points]]) -> Metrics:
    lengths = np.array([len(points) for _, points in parts], dtype=np.int64)
    points = joined([points for _, points in parts])
    return Metrics([key for key, _ in parts], lengths, points.steps, points.times_ms, points.values)
