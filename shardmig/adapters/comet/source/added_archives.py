"""An experiment in offline archives that shardmig brought, and what people added to it in archives of their own: those of
the client that went on with it."""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shardmig.adapters.base import Want
from shardmig.adapters.comet import messages as m
from shardmig.adapters.comet.experiment import batched, with_more
from shardmig.adapters.comet.offline import ArchivedExperiment, plain
from shardmig.adapters.comet.reader import read_experiment, read_messages
from shardmig.adapters.comet.source import native
from shardmig.adapters.comet.source.added import ADDED_TAGS, new_others, no_fact, paths_of, point_of_series, shown_error
from shardmig.adapters.comet.source.archives import ArchiveReading, param_name, rows_of
from shardmig.adapters.comet.source.points import Row
from shardmig.adapters.names import unlike
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.rules import Value
from shardmig.records import Chunk, Field, RunRef


def own_and_added(paths: Iterable[Path]) -> tuple[dict[Path, m.ExperimentFile], list[Path]]:
    """The archives of an experiment that shardmig wrote, with what they say of it, and those of others."""
    files = {path: read_experiment(path) for path in paths}
    starts = {file.start_time for file in files.values() if file.shardmig}
    own = {path: file for path, file in files.items() if _is_own(file, starts)}
    return own, [path for path in files if path not in own]


def _is_own(file: m.ExperimentFile, starts: Container[int]) -> bool:
    """Those of points alone have no note of shardmig's. They begin and end when the run began; a client's, when it did."""
    has_no_time = file.start_time == file.stop_time and file.start_time in starts
    return bool(file.shardmig) or (has_no_time and file.resume_strategy == "get_or_create")


class _Points(NamedTuple):
    """Those of one metric."""

    steps: array[int]
    times_ms: array[int]
    values: array[float]

    def append(self, step: int, time_ms: int, value: float) -> None:
        self.steps.append(step)
        self.times_ms.append(time_ms)
        self.values.append(value)

    def native(self) -> NativePoints:
        steps, times_ms = (np.array(column, dtype=np.int64) for column in (self.steps, self.times_ms))
        return NativePoints(steps, times_ms, np.array(self.values, dtype=np.float64))


class _Later(NamedTuple):
    """The last values of the run's own parameters, and points by metric."""

    params: dict[str, Value]
    points: dict[str, _Points]


class ContinuedExperiment:
    """`HeldRun` of an experiment that people went on with in the archives `added`: the run's parameters have their last
    values, and every metric has the points that a float series can take. Memory: those points."""

    def __init__(self, brought: ArchivedExperiment, added: list[Path]) -> None:
        self.brought = brought
        self.added = added
        self.id = brought.id

    def values(self) -> Mapping[str, Value]:
        """As HeldRun, but parameters that the run did not come with."""
        return {**self.brought.values(), **self._later.params}

    def series_keys(self) -> Iterable[str]:
        """As HeldRun."""
        return dict.fromkeys([*self.brought.series_keys(), *self._later.points])

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As HeldRun."""
        own = frozenset(self.brought.series_keys())
        return batched(((key, part) for key in keys for part in self._parts(key, rows, is_own=key in own)), rows)

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:
        """As HeldRun."""
        return self.brought.held_fields(manifest)

    def _parts(self, key: str, rows: int, *, is_own: bool) -> Iterator[NativePoints]:
        parts = (metrics.points() for metrics in self.brought.points([key], rows)) if is_own else iter(())
        later = self._later.points.get(key)
        return parts if later is None else with_more(parts, later.native())

    @cached_property
    def _later(self) -> _Later:
        found = _Later({}, {})
        own = self.brought.values()
        for messages in (block.messages for path in self.added for block in read_messages(path)):
            found.params.update((name, value) for name, value in _params(messages) if name in own)
            for row in rows_of(messages):
                if (point := point_of_series(row)) is not None:
                    points = found.points.setdefault(row.name, _Points(array("q"), array("q"), array("d")))
                    points.append(*point)
        return found


class AddedInArchives(ArchiveReading):
    """Reads what was added alone: all of the archives that were added but what `held` gives of it with the run."""

    def __init__(
        self, run: RunRef, held: ContinuedExperiment, manifest: Manifest, want: Want, *, system_metrics: bool
    ) -> None:
        file, multiplier = held.brought.file, manifest.step_multiplier
        super().__init__(run, held.added, file, want, system_metrics=system_metrics, step_multiplier=multiplier)
        self._scalars = native.Scalars(lambda path: self.named(no_fact(path)))
        self._brought = held.brought
        self._manifest = manifest
        self._taken = paths_of(manifest, held)
        self._params: set[str] = set()
        self._others: set[str] = set()

    def named(self, path: str) -> str:
        """As ArchiveReading: unlike any field of the run. Parameters keep their names, as they do on a server."""
        return path if path in self._params else unlike(path, self._taken)

    def points_of(self, rows: Iterator[Row]) -> Iterator[Chunk]:
        """As ArchiveReading."""
        found = list(rows)
        yield from self._points.add_epochs(row for row in found if point_of_series(row) is not None)
        yield from self._points.add(row for row in found if point_of_series(row) is None)

    def add_facts(self) -> None:
        """As ArchiveReading."""
        files = [read_experiment(path) for path in self._paths]
        if tags := {tag for file in files for tag in file.tags} - set(self._file.tags):
            self._scalars.add_typed(ADDED_TAGS, "string_set", sorted(tags))
        for file in files:
            self._losses += shown_error(file.customer_error_message, self._manifest.source)

    def add_param(self, param: m.Param, context: str | None) -> None:
        """As ArchiveReading: the run's own are given with it."""
        name = param_name(param, context)
        if name not in self._brought.values():
            self._params.add(name)
            self._scalars.add(name, param.paramValue)

    def add_other(self, key: str, value: Any) -> None:
        """As ArchiveReading. One that was set to what it was before was changed too, if it was anything else meanwhile."""
        if key in self._others or new_others({key: str(value)}, self._brought.about().others):
            self._others.add(key)
            self._scalars.add(native.OTHERS + key, value)


def _params(messages: Iterable[m.Message | None]) -> Iterator[tuple[str, Value]]:
    for message in messages:
        if isinstance(message, m.ParamMessage | m.WsMessage):
            payload = message.payload
            if (param := payload.param or payload.params) is not None:
                yield param_name(param, payload.context), plain(param.paramValue)
