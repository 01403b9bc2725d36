"""One experiment of Comet's own, from a server, as chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.comet.fit import MAX_POINTS
from shardmig.adapters.comet.remote import Asset, Point, RemoteExperiment
from shardmig.adapters.comet.source import native
from shardmig.adapters.comet.source.points import PointChunks, Row, exact_step
from shardmig.errors import Permanent
from shardmig.records import Chunk, End, Fields, FieldType, FileRef, Files, Finding, Header, RunRef
from shardmig.selection import Matcher

_FIELDS_IN_CHUNK: Final = 5_000
_FILES_IN_CHUNK: Final = 50


class RemoteReading:
    """One experiment as chunks. `staging`: an empty folder. Memory: its scalars, one metric, one chunk."""

    def __init__(
        self,
        run: RunRef,
        experiment: RemoteExperiment,
        want: Want,
        staging: Path,
        *,
        system_metrics: bool,
        step_multiplier: int = 1,
    ) -> None:
        self._run = run
        self._experiment = experiment
        self._matcher = Matcher(want.selection)
        self._staging = staging
        self._points = PointChunks(
            self._matcher,
            want.chunk_points,
            system_metrics=system_metrics,
            named=self.named,
            step_multiplier=step_multiplier,
        )
        self._step_multiplier = step_multiplier
        self._scalars = native.Scalars(self.named)
        self._findings: list[Finding] = []

    def chunks(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted."""
        yield Header(self._run, native.SOURCE)
        yield from self.content(sink)
        yield End(self.findings())

    def content(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted but header and end."""
        details = self._experiment.details()
        self.add_facts(details)
        assets = list(self._placed_assets())
        fields = [field for field in self._scalars.fields if self._matcher.wants_field(field.path, field.type)]
        for start in range(0, len(fields), _FIELDS_IN_CHUNK):
            yield Fields(fields[start : start + _FIELDS_IN_CHUNK])
        yield from self._files(sink, assets)
        for name in self.metrics(details):
            yield from self._metric(name)
        if self._matcher.wants_field(self.named(native.OUTPUT[False]), "string_series"):
            for line in self._experiment.output().splitlines(keepends=True):
                yield from self._points.add_text(native.OUTPUT[False], line, None)
        yield from self._points.rest()

    def findings(self) -> list[Finding]:
        """What could not be kept as it was."""
        scalars = [one for one in self._scalars.findings() if self._matcher.wants_field(one.field, "string")]
        return [*scalars, *self._points.findings(), *self._findings]

    def named(self, path: str) -> str:
        """What a field is called that is to be called so."""
        return path

    def assets(self) -> Iterable[Asset]:
        """The assets to read."""
        return self._experiment.assets

    def metrics(self, details: dict[str, Any]) -> Iterable[str]:
        """The names of the metrics to read."""
        return sorted({*self._experiment.series_keys(), *_names_of(details.get("systemMetricNames"))})

    def points_of(self, name: str, points: list[Point]) -> Iterator[Chunk]:
        """Those of a metric that are to be read."""
        return self._points.add(row_of(name, point) for point in points)

    def add_facts(self, details: dict[str, Any]) -> None:
        """Everything that is a scalar."""
        self._add_own_facts()
        for name, value in self._experiment.values().items():
            self._scalars.add(native.PARAMS + name, value)
        for name, text in self._experiment.others.items():
            self._scalars.add(native.OTHERS + name, text)
        self._add_surroundings(details)

    def _add_own_facts(self) -> None:
        experiment, scalars = self._experiment, self._scalars
        metadata = experiment.metadata
        scalars.add_typed("sys/id", "string", self._run.id)
        scalars.add_typed("sys/trashed", "bool", metadata.archived)
        scalars.add_typed("sys/failed", "bool", metadata.has_crashed or bool(metadata.error))
        scalars.add_typed("sys/state", "string", "running" if metadata.running else "finished")
        scalars.add_typed("sys/tags", "string_set", sorted(set(experiment.tags)))
        if metadata.start_time_millis is not None:
            scalars.add_typed("sys/creation_time", "datetime", metadata.start_time_millis)
            if metadata.end_time_millis is not None:
                running_s = max(0, metadata.end_time_millis - metadata.start_time_millis) / 1000
                scalars.add_typed("sys/running_time", "float", running_s)
        for path, value in {"sys/name": metadata.experiment_name, "sys/error": metadata.error}.items():
            if value:
                scalars.add(path, value)

    def _add_surroundings(self, details: dict[str, Any]) -> None:
        """What Comet's client notes of machine and code, and what is shown on pages of their own."""
        experiment, scalars = self._experiment, self._scalars
        scalars.add_details({name: value for name, value in details.items() if name not in _NO_DETAILS})
        scalars.add_git(experiment.git())
        texts = {
            "source_code/entrypoint": experiment.metadata.file_name,
            "graph": experiment.graph(),
            "html/0": experiment.html(),
        }
        for path, text in texts.items():
            if text:
                scalars.add(path, text)

    def _placed_assets(self) -> Iterator[tuple[Asset, str, Decimal | None]]:
        """Each asset that is a file on the server, with its field and step. The others are scalars, as is all metadata."""
        seen: set[tuple[str, Decimal | None]] = set()
        for asset in sorted(self.assets(), key=lambda one: (one.type or "", one.file_name or "", one.asset_id)):
            name = asset.file_name or asset.asset_id
            step = None if asset.step is None else exact_step(asset.step, self._step_multiplier)
            path = f"remote_assets/{name}" if asset.remote else native.asset_path(asset.type or "", name, "")
            path = self.named(path)
            if (path, step) in seen:
                path = f"{path}~{asset.asset_id}"
            seen.add((path, step))
            if asset.metadata:
                where = path if step is None else f"{path}/{step}"
                text = asset.metadata if isinstance(asset.metadata, str) else native.json_text(asset.metadata)
                self._scalars.add(f"asset_metadata/{where}", text)
            if asset.remote:
                self._scalars.add(path, asset.link)
            else:
                yield asset, path, step

    def _files(self, sink: FileSink, assets: list[tuple[Asset, str, Decimal | None]]) -> Iterator[Files]:
        refs: list[FileRef] = []
        for asset, path, step in assets:
            field_type: FieldType = "file" if step is None else "file_series"
            if not self._matcher.wants_field(path, field_type):
                continue
            local = self._staging / "asset"
            try:
                self._experiment.download(asset, local)
            except Permanent as error:
                self._findings.append(Finding("loss", "asset-unreadable", path, detail=error.message))
                continue
            shown = path.rpartition("/")[2]
            refs.append(sink.put(self._run, path, field_type, local, name=shown, step=step, time_ms=asset.created_at))
            local.unlink(missing_ok=True)
            if len(refs) == _FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def _metric(self, name: str) -> Iterator[Chunk]:
        if not self._points.wants(name):
            return
        try:
            points = self._experiment.metric(name)
        except Permanent as error:
            field = self.named(native.METRICS + name)
            self._findings.append(Finding("loss", "metric-unreadable", field, detail=error.message))
            return
        if len(points) >= MAX_POINTS:
            self._findings.append(sampled(self.named(native.METRICS + name), len(points)))
        yield from self.points_of(name, points)


def sampled(path: str, shown: int) -> Finding:
    """Of a metric of which Comet shows as many values as it keeps."""
    detail = "Comet keeps about 15,000 values of a metric; whether it had more cannot be told"
    return Finding("note", "series-sampled", path, shown, detail)


def row_of(name: str, point: Point) -> Row:
    """A point as a row."""
    return Row(name, point.metric_value, point.step, point.epoch, point.timestamp)


_NO_DETAILS: Final = frozenset({"experimentKey", "systemMetricNames"})


def _names_of(names: Any) -> list[str]:
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
