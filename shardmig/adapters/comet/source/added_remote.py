"""An experiment on a server that shardmig brought, and what people added to it there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Final

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.comet.facts import RunFacts
from shardmig.adapters.comet.histograms import rows_drawn
from shardmig.adapters.comet.lines import HISTOGRAM, identity_of
from shardmig.adapters.comet.naming import Naming
from shardmig.adapters.comet.options import CometOptions
from shardmig.adapters.comet.remote import Asset, Point, RemoteExperiment
from shardmig.adapters.comet.rest import RestClient
from shardmig.adapters.comet.sampled import WholeExperiment
from shardmig.adapters.comet.source import native
from shardmig.adapters.comet.source.added import ADDED_TAGS, new_others, no_fact, paths_of, point_of_series, shown_error
from shardmig.adapters.comet.source.reader import RULES
from shardmig.adapters.comet.source.remote import RemoteReading, row_of, sampled
from shardmig.adapters.names import unlike
from shardmig.adapters.sidecar.manifest import MANIFEST, SIDECAR, Manifest
from shardmig.adapters.sidecar.reading import RunReader
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.staging import staging_folder
from shardmig.records import Chunk, End, Fields, Finding, RunRef, Selection

_FACTS: Final = Selection(attributes=("^(sys|source_code)/",), classes=("parameters",))
"""The fields that say what the facts of an experiment were when it was brought."""

_NO_METADATA: Final[tuple[object, ...]] = (None, "", {}, "{}")
"""How a server may tell that an asset has none."""


class BroughtExperiment(RemoteExperiment):
    """One that shardmig wrote, and others may have written to: of its metrics the points that float series can take. `staging`:
    a folder. `whole`: with all points of long metrics. `wholly_given`: the metrics that had nothing else, of those read."""

    def __init__(self, client: RestClient, key: str, staging: Path) -> None:
        super().__init__(client, key)
        self.whole = WholeExperiment(self, staging)
        self.wholly_given: set[str] = set()

    def values(self) -> Mapping[str, Value]:
        """As RemoteExperiment; asked for once."""
        return self._values

    def series_keys(self) -> Collection[str]:
        """As RemoteExperiment; asked for once."""
        return self._series_keys

    def points_of_series(self, key: str) -> list[Point]:
        """As RemoteExperiment."""
        points = self.metric(key)
        fitting = [point for point in points if point_of_series(row_of(key, point)) is not None]
        if len(fitting) == len(points) and all(point.epoch is None for point in points):
            self.wholly_given.add(key)
        return fitting

    @cached_property
    def _values(self) -> Mapping[str, Value]:
        return super().values()

    @cached_property
    def _series_keys(self) -> Collection[str]:
        return dict.fromkeys(super().series_keys())


class AddedOnServer(RemoteReading):
    """Reads what was added alone, once the run itself was read. `staging`: a folder."""

    def __init__(
        self,
        run: RunRef,
        experiment: BroughtExperiment,
        manifest: Manifest,
        want: Want,
        staging: Path,
        *,
        system_metrics: bool,
    ) -> None:
        multiplier = manifest.step_multiplier
        super().__init__(run, experiment, want, staging, system_metrics=system_metrics, step_multiplier=multiplier)
        self._scalars = native.Scalars(lambda path: self.named(no_fact(path)))
        self._brought = experiment
        self._manifest = manifest
        self._known = RunFacts(manifest.run, CometOptions())
        self._taken = paths_of(manifest, experiment)
        self._is_changed = False

    def learn(self, chunk: Chunk) -> None:
        """Some of the run itself: what its facts were, and whether something else is among its points."""
        if isinstance(chunk, Fields):
            self._known.learn(chunk.fields)
        elif isinstance(chunk, End):
            self._is_changed = any(finding.code == "content-changed" for finding in chunk.findings)

    def content(self, sink: FileSink) -> Iterator[Chunk]:
        """As RemoteReading."""
        if not self._matcher.takes_every_field:
            self._read_facts(sink)
        yield from super().content(sink)

    def findings(self) -> list[Finding]:
        """As RemoteReading."""
        foreign = self._brought.whole.foreign.items() if self._is_changed else ()
        names = self._manifest.metrics
        return [*super().findings(), *(sampled(names.get(key, key), shown) for key, shown in foreign)]

    def named(self, path: str) -> str:
        """As RemoteReading: unlike any field of the run."""
        return unlike(path, self._taken)

    def assets(self) -> Iterable[Asset]:
        """As RemoteReading."""
        return [asset for asset in self._experiment.assets if asset.asset_id not in self._own_assets]

    def metrics(self, details: dict[str, Any]) -> Iterable[str]:
        """As RemoteReading: those that have more than what was given with the run."""
        return [name for name in super().metrics(details) if name not in self._brought.wholly_given]

    def points_of(self, name: str, points: list[Point]) -> Iterator[Chunk]:
        """As RemoteReading."""
        series = self._brought.series_keys()
        rows = [row_of(name, point) for point in points]
        is_given = [name in series and point_of_series(row) is not None for row in rows]
        yield from self._points.add_epochs(compress(rows, is_given))
        yield from self._points.add(row for row, given in zip(rows, is_given, strict=True) if not given)

    def add_facts(self, details: dict[str, Any]) -> None:
        """As RemoteReading: parameters are read with the run's own."""
        tags, brought_tags = set(self._experiment.tags), set(self._known.tags)
        if added := sorted(tags - brought_tags):
            self._scalars.add_typed(ADDED_TAGS, "string_set", added)
        if (gone := sorted(brought_tags - tags)) and self._matcher.wants_field("sys/tags", "string_set"):
            detail = f"tags that were removed in Comet, one of them {gone[0]!r}"
            self._findings.append(Finding("gap", "content-changed", "sys/tags", len(gone), detail))
        for name, text in new_others(self._experiment.others, self._known.others(None)).items():
            self._scalars.add(native.OTHERS + name, text)
        for asset in self._experiment.assets:
            if asset.asset_id in self._own_assets and asset.metadata not in _NO_METADATA:
                self._scalars.add(f"asset_metadata/{asset.file_name}", asset.metadata)
        self._findings += shown_error(self._experiment.metadata.error, self._manifest.source)
        self._add_surroundings({name: value for name, value in details.items() if value not in ([], {})})

    def _read_facts(self, sink: FileSink) -> None:
        with staging_folder() as staging:
            reader = RunReader(self._experiment, self._experiment, Want(selection=_FACTS), staging, RULES)
            for piece in reader.pieces(sink):
                self.learn(piece.chunk)

    @cached_property
    def _own_assets(self) -> set[str]:
        """The ids of those that the run came with, and of what shardmig added."""
        experiment = self._experiment
        names = {*self._manifest.artifacts, MANIFEST, SIDECAR}
        own = {found.asset_id for name in names if (found := experiment.find_asset(name)) is not None}
        drawn = {Naming().key(one.path) for one in self._manifest.series if one.type == "histogram_series"}
        if identity_of(experiment.id, MANIFEST) in own:
            return own | {identity_of(experiment.id, f"{name}\0{row}") for name in drawn for row in rows_drawn()}
        drawings = (one for one in experiment.assets if one.type == HISTOGRAM)  # of a server that gives ids of its own
        return own | {one.asset_id for one in drawings if one.file_name in drawn}
