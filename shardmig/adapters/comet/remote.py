"""An experiment on a server, as it is held there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from shardmig.adapters.comet.experiment import About, batched, in_order
from shardmig.adapters.comet.lines import HISTOGRAM, identity_of
from shardmig.adapters.comet.rest import RestClient
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.rules import Value
from shardmig.errors import BadInput, Denied, NotFound
from shardmig.records import Field

NOT_THERE: Final = (NotFound, BadInput, Denied)
"""How a server may answer when it is asked for an experiment that does not exist."""

Number = int | float
T = TypeVar("T")


class Metadata(msgspec.Struct, rename="camel"):
    """What `experiment/metadata` tells."""

    experiment_key: str = ""
    experiment_name: str | None = None
    workspace_name: str | None = None
    project_name: str | None = None
    project_id: str | None = None
    file_name: str | None = None
    start_time_millis: int | None = None
    end_time_millis: int | None = None
    running: bool = False
    archived: bool = False
    has_crashed: bool = False
    error: Any = None


class Summary(msgspec.Struct, rename="camel"):
    """The last value of a parameter, a metric or an "other"."""

    name: str
    value_current: str | Number | bool | None = None


class Summaries(msgspec.Struct):
    """An answer of them."""

    values: list[Summary] = []


class Point(msgspec.Struct, rename="camel", gc=False):
    """One value of a metric. Comet gives values as texts."""

    metric_value: str | Number | None
    timestamp: int | None = None
    step: Number | None = None
    epoch: Number | None = None
    metric_name: str = ""
    run_context: str | None = None


class _Points(msgspec.Struct):
    metrics: list[Point] = []


class Asset(msgspec.Struct, rename="camel"):
    """A file."""

    asset_id: str
    file_name: str | None = None
    file_size: int | None = None
    type: str | None = None
    step: Number | None = None
    created_at: int | None = None
    remote: bool = False
    link: str | None = None
    metadata: Any = None
    run_context: str | None = None
    grouping_name: str | None = None


class _Assets(msgspec.Struct):
    assets: list[Asset] = []


class _Texts(msgspec.Struct):
    graph: str | None = None
    html: str | None = None
    output: str | None = None


class _Tags(msgspec.Struct):
    tags: list[str] = []


class RemoteExperiment:
    """`Experiment` on a server. Memory: one metric."""

    def __init__(self, client: RestClient, key: str) -> None:
        self.id = key
        self._client = client

    def look_up(self) -> None:
        """Raises NotFound when it is not there."""
        try:
            self.__dict__["metadata"] = self._get("experiment/metadata", Metadata)
        except NOT_THERE as error:
            raise NotFound(error.message) from error

    def about(self) -> About:
        """As Experiment."""
        metadata = self.metadata
        return About(
            workspace=metadata.workspace_name or "",
            project=metadata.project_name or "",
            start_ms=metadata.start_time_millis or 0,
            end_ms=metadata.end_time_millis,
            tags=self.tags,
            others=self.others,
        )

    @cached_property
    def metadata(self) -> Metadata:
        """Raises NotFound."""
        return self._get("experiment/metadata", Metadata)

    @cached_property
    def others(self) -> dict[str, str]:
        """Its facts."""
        return {one.name: str(one.value_current) for one in self._get("experiment/log-other", Summaries).values}

    @cached_property
    def tags(self) -> list[str]:
        """Its tags."""
        return self._get("experiment/tags", _Tags).tags

    def values(self) -> Mapping[str, Value]:
        """As Experiment."""
        found = self._get("experiment/parameters", Summaries).values
        return {one.name: "" if one.value_current is None else str(one.value_current) for one in found}

    def series_keys(self) -> Iterable[str]:
        """As Experiment."""
        return [one.name for one in self._get("experiment/metrics/summary", Summaries).values]

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As HeldRun."""
        return batched(((key, in_order(_as_columns(key, self.points_of_series(key)))) for key in keys), rows)

    def points_of_series(self, key: str) -> list[Point]:
        """Those values of a metric that are points of a float series: all, if nobody else wrote some."""
        return self.metric(key)

    def metric(self, key: str) -> list[Point]:
        """Every value of one metric that Comet kept."""
        return self._get("experiment/metrics/get-metric", _Points, metricName=key).metrics

    def held_fields(self, _: Manifest) -> Iterable[Field]:
        """None: every scalar is a parameter."""
        return ()

    @cached_property
    def assets(self) -> list[Asset]:
        """All its files."""
        return self._get("experiment/asset/list", _Assets, type="all").assets

    def find_asset(self, name: str) -> Asset | None:
        """The asset that shardmig sent under this name: told by its id, else by its name."""
        found = self._assets_by_id.get(identity_of(self.id, name))
        return found or next((one for one in self.assets if one.file_name == name and one.type != HISTOGRAM), None)

    @cached_property
    def _assets_by_id(self) -> dict[str, Asset]:
        return {asset.asset_id: asset for asset in self.assets}

    def get(self, path: str, file: Path) -> None:
        """As Experiment."""
        found = self.find_asset(path)
        if found is None:
            raise NotFound(f"experiment {self.id} has no asset {path}")
        self.download(found, file)

    def details(self) -> dict[str, Any]:
        """What Comet knows of the machine."""
        return self._get("experiment/system-details", dict[str, Any])

    def git(self) -> dict[str, Any]:
        """What Comet knows of the git repository."""
        return self._get("experiment/git/metadata", dict[str, Any])

    def graph(self) -> str:
        """The model's graph."""
        return self._get("experiment/graph", _Texts).graph or ""

    def html(self) -> str:
        """The HTML that was logged."""
        return self._get("experiment/html", _Texts).html or ""

    def output(self) -> str:
        """The console output."""
        return self._get("experiment/output", _Texts).output or ""

    def download(self, asset: Asset, file: Path) -> None:
        """Copy an asset to a new local file."""
        self._client.download("experiment/asset/get-asset", file, experimentKey=self.id, assetId=asset.asset_id)

    def close(self) -> None:
        """The client belongs to someone else."""

    def _get(self, endpoint: str, answer: type[T], **params: Any) -> T:
        return self._client.get(endpoint, answer, experimentKey=self.id, **params)


def _as_columns(key: str, points: list[Point]) -> NativePoints:
    try:
        return NativePoints(
            np.array([point.step for point in points], dtype=np.int64),
            np.array([point.timestamp for point in points], dtype=np.int64),
            np.array([float(point.metric_value) for point in points], dtype=np.float64),  # type: ignore[arg-type]
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"a point of {key} is none that shardmig wrote: {error}", field=key) from error
