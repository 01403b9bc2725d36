"""A run in W&B as what is read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

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
from shardmig.records import Field, LoadOptions, Piece, RunRef

_RULES: Final = WandbRules(LoadOptions(), WandbNaming())
"""For reading: neither names nor steps are fitted."""
_OWN: Final = frozenset({BLOCK, "_wandb"})


def read_back(stored: StoredRun, want: Want, files: FileSink, run: RunRef | None = None) -> Iterator[Piece]:
    """The pieces of a run that shardmig wrote, in canonical order. `run`: as a source lists it. Raises NotFound when its
    manifest is gone."""
    with staging_folder() as staging:
        held = _Held(stored, staging)
        folder = staging / "files"
        folder.mkdir()
        yield from RunReader(held, _Files(stored), want, folder, _RULES).pieces(files, run)


class _Files:
    """`Artifacts` of a stored run, for reading only."""

    def __init__(self, stored: StoredRun) -> None:
        self._stored = stored

    def put(self, file: Path, path: str) -> None:
        raise NotImplementedError

    def get(self, path: str, file: Path) -> None:
        self._stored.get(path, file)


class _History(NamedTuple):
    """A history put in order of its series, and the numbers of those that have points."""

    spool: SeriesSpool
    seen: set[int]


class _Held:
    """`HeldRun` of a stored run. Its history is read once, when it is first asked for."""

    def __init__(self, stored: StoredRun, scratch: Path) -> None:
        self._stored = stored
        self._scratch = scratch
        self._numbers: dict[str, int] = {}
        self.id = str(stored.id)

    def values(self) -> Mapping[str, Value]:
        return {key: value for key, value in _values(self._stored.config()) if key not in _OWN}

    def series_keys(self) -> Iterable[str]:
        seen = self._history.seen
        return [key for key, number in self._numbers.items() if number in seen]

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """Small series together, long ones in parts."""
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
        return ()

    @cached_property
    def _history(self) -> _History:
        spool = SeriesSpool(self._scratch)
        seen: set[int] = set()
        times = Times(self._times_file(), self._numbers)
        for points in scanned(self._stored.rows(), self._numbers, _ignore, _ignore):
            seen.update(np.unique(points.keys).tolist())
            spool.add(times.restored(points))
        spool.finish()
        return _History(spool, seen)

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
        if isinstance(value, dict) and key not in _OWN:
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
