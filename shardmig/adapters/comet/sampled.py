"""A server's experiment whose long metrics Comet shows a sample of: the sidecar has all of their points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shardmig.adapters.comet.experiment import Experiment, batched, whole_steps, with_more
from shardmig.adapters.comet.fit import LEAST_SHOWN, MAX_POINTS
from shardmig.adapters.sidecar.exact import Sidecar
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints, value_bits
from shardmig.adapters.sidecar.manifest import MANIFEST, SIDECAR, Manifest, decode_manifest
from shardmig.adapters.sidecar.rules import Value
from shardmig.records import Field, Int64s

_ALL: Final = 10**9


class WholeExperiment:
    """`HeldRun` that gives of a long metric all points, from the sidecar, when the server shows a sample of them; any other
    point that it shows is given among them, so that a change there is seen. `staging`: a folder. `foreign`: how many points are
    shown of the metrics that may have had more of others, noted as they are read."""

    def __init__(self, held: Experiment, staging: Path) -> None:
        self._held = held
        self._staging = staging
        self.foreign: dict[str, int] = {}
        self.id = held.id

    def values(self) -> Mapping[str, Value]:
        """As HeldRun."""
        return self._held.values()

    def series_keys(self) -> Iterable[str]:
        """As HeldRun."""
        return self._held.series_keys()

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:
        """As HeldRun."""
        return self._held.held_fields(manifest)

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As HeldRun."""
        return batched(((key, part) for key in keys for part in self._parts(key)), rows)

    def _parts(self, key: str) -> Iterator[NativePoints]:
        for held in (metrics.points() for metrics in self._held.points([key], _ALL)):
            shown = len(held.steps)
            given, others = self._beside_given(key, held) if shown >= LEAST_SHOWN else (0, held)
            if shown >= MAX_POINTS and len(others.steps):
                self.foreign[key] = shown
            if given > MAX_POINTS and (shown < given or not len(others.steps)):
                yield from with_more(whole_steps(key, self._given(key)), others)
            else:
                yield held

    def _given(self, key: str) -> Iterator[NativePoints]:
        """What the server was given of a metric."""
        path = self._manifest.metrics.get(key, key)
        return (part.native for part in self._sidecar.points(path))

    def _beside_given(self, key: str, held: NativePoints) -> tuple[int, NativePoints]:
        """How many points the server was given of a metric, and those that it shows and was not given."""
        marks = _marks(held)
        found = np.zeros(len(marks), dtype=np.bool_)
        given = 0
        for part in self._given(key):
            found |= np.isin(marks, _marks(part))
            given += len(part.steps)
        return given, held.part(~found)

    @cached_property
    def _manifest(self) -> Manifest:
        local = self._staging / "manifest"
        self._held.get(MANIFEST, local)
        return decode_manifest(local.read_bytes(), self.id)

    @cached_property
    def _sidecar(self) -> Sidecar:
        if not self._manifest.has_sidecar:
            return Sidecar(None)
        local = self._staging / "exact"
        self._held.get(SIDECAR, local)
        return Sidecar(local)


def _marks(points: NativePoints) -> NDArray[np.void]:
    """Each point as one value that can be looked up."""
    columns: list[Int64s] = [points.steps, points.times_ms, value_bits(points.values)]
    return np.ascontiguousarray(np.stack(columns, axis=1)).view(np.dtype((np.void, 24))).ravel()
