"""An experiment in offline archives, as it is held there; and a folder of them as the place where runs are kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from shardmig.adapters.base import migration_key
from shardmig.adapters.comet.experiment import About, Experiment, Mark, batched, whole_steps
from shardmig.adapters.comet.lines import HISTOGRAM, Asset
from shardmig.adapters.comet.messages import (
    ExperimentFile,
    FileMessage,
    FilePayload,
    MetricMessage,
    MetricPayload,
    OtherMessage,
    ParamMessage,
)
from shardmig.adapters.comet.reader import (
    all_messages,
    copy_member,
    member_sizes,
    opened_member,
    read_experiment,
    read_messages,
)
from shardmig.adapters.comet.writer import ArchiveWriter
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.reading import HeldRun
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.staging import emptied
from shardmig.archive.layout import disk_errors, sync_file, sync_folder
from shardmig.errors import BadInput, NotFound
from shardmig.records import Field, Finding

STAGING: Final = ".shardmig-"
_NUMBERED: Final = "-[0-9][0-9][0-9][0-9].zip"
_LINK: Final = "-link.zip"


class _Contents(NamedTuple):
    """Everything of some archives but the points."""

    params: dict[str, Value]
    others: dict[str, str]
    metrics: list[str]
    assets: dict[str, _Stored]


class _Stored(NamedTuple):
    """An asset, and where its content lies."""

    archive: Path
    member: str
    asset: Asset


class ArchivedExperiment:
    """`Experiment` in the archives `paths`, which come in the order in which they were written."""

    def __init__(self, key: str, paths: Sequence[Path], main: Path) -> None:
        self.id = key
        self._paths = paths
        self._main = main
        self._stream = _Stream(paths)

    def about(self) -> About:
        """As Experiment."""
        file = self.file
        return About(
            workspace=file.workspace or "",
            project=file.project_name or "",
            start_ms=file.start_time,
            end_ms=file.stop_time,
            tags=file.tags,
            others=self._contents.others,
        )

    @cached_property
    def file(self) -> ExperimentFile:
        """The main archive's experiment.json."""
        return read_experiment(self._main)

    def values(self) -> Mapping[str, Value]:
        """As Experiment."""
        return self._contents.params

    def series_keys(self) -> Iterable[str]:
        """As Experiment."""
        return self._contents.metrics

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As HeldRun. Quick when the keys come in the order in which the series were written."""
        series = ((key, part) for key in keys for part in whole_steps(key, self._stream.take(key)))
        return batched(series, rows)

    def held_fields(self, _: Manifest) -> Iterable[Field]:
        """None: every scalar is a param."""
        return ()

    def get(self, path: str, file: Path) -> None:
        """As Experiment."""
        stored = self._stored(path)
        copy_member(stored.archive, stored.member, file)

    @contextmanager
    def opened(self, path: str) -> Iterator[tuple[Asset, BinaryIO]]:
        """An asset and its content. Raises NotFound."""
        stored = self._stored(path)
        with opened_member(stored.archive, stored.member) as content:
            yield stored.asset, content

    def asset_sizes(self) -> dict[str, int]:
        """The size of each asset in bytes, by its name."""
        sizes = {path: member_sizes(path) for path in self._paths}
        return {name: sizes[one.archive].get(one.member, -1) for name, one in self._contents.assets.items()}

    def close(self) -> None:
        """As Experiment."""
        self._stream.close()

    def _stored(self, path: str) -> _Stored:
        if path not in self._contents.assets:
            raise NotFound(f"experiment {self.id} has no asset {path}")
        return self._contents.assets[path]

    @cached_property
    def _contents(self) -> _Contents:
        found = _Contents({}, {}, [], {})
        metrics: dict[str, None] = {}
        for path, message in all_messages(self._paths):
            match message:
                case MetricMessage(payload=payload) if payload.metric is not None:
                    metrics[payload.metric.metricName] = None
                case ParamMessage(payload=payload) if payload.param is not None:
                    found.params[payload.param.paramName] = plain(payload.param.paramValue)
                case OtherMessage(payload=payload):
                    found.others[payload.key] = str(payload.value)
                case FileMessage(payload=payload) if payload.upload_type == HISTOGRAM:
                    pass  # drawn; the exact ones are files
                case FileMessage(payload=payload):
                    asset = _asset_of(payload)
                    found.assets[asset.name] = _Stored(path, payload.file_path, asset)
                case None:
                    raise BadInput(f"{path.name}: a line of its messages is damaged")
                case _:
                    raise BadInput(f"{path.name}: something else wrote into it")
        found.metrics.extend(metrics)
        return found


class _Stream:
    """The points of some archives in the order in which they were written, taken series after series."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._spans: Iterator[tuple[str, NativePoints]] = iter(())
        self._next: tuple[str, NativePoints] | None = None

    def take(self, key: str) -> Iterator[NativePoints]:
        """The points of one series, from where the last one ended, or else from the beginning."""
        was_restarted = False
        while self._next is None or self._next[0] != key:
            if self._next is None:
                if was_restarted:
                    return
                was_restarted = True
                self._spans = _spans(self._paths)
            self._next = next(self._spans, None)
        while self._next is not None and self._next[0] == key:
            part = self._next[1]
            self._next = next(self._spans, None)
            yield part

    def close(self) -> None:
        """Close the archive at hand."""
        self._spans, self._next = iter(()), None


def _spans(paths: Sequence[Path]) -> Iterator[tuple[str, NativePoints]]:
    for path in paths:
        for block in read_messages(path):
            payloads = (message.payload for message in block.messages if isinstance(message, MetricMessage))
            for key, group in itertools.groupby(payloads, key=_metric_name):
                yield key, _as_points(key, list(group), path)


def _metric_name(payload: MetricPayload) -> str:
    return payload.metric.metricName if payload.metric is not None else ""


def _as_points(key: str, rows: list[MetricPayload], path: Path) -> NativePoints:
    try:
        metrics = [row.metric for row in rows if row.metric is not None]
        steps = np.array([metric.step for metric in metrics], dtype=np.int64)
        values = np.array([float(metric.metricValue) for metric in metrics], dtype=np.float64)  # type: ignore[arg-type]
        return NativePoints(steps, np.array([row.local_timestamp for row in rows], dtype=np.int64), values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path.name}: a point of {key} is none that shardmig wrote", field=key) from error


def _asset_of(payload: FilePayload) -> Asset:
    named = payload.additional_params or {}
    name = named.get("fileName") or named.get("figName") or payload.file_path
    identity = named.get("assetId") or named.get("imageId") or ""
    return Asset(str(name), str(identity), named.get("step"), payload.local_timestamp or 0)


def plain(value: object) -> Value:
    """The value of a parameter, which may be any JSON."""
    return value if isinstance(value, bool | int | float | str) else str(value)


class OfflineFolder:
    """Runs as offline archives in one folder. A run is there when `<key>.zip` is, which comes last and goes first."""

    marks_afterwards = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def staging(self, key: str) -> AbstractContextManager[Path]:
        """As Place: on the same disk, and without what an earlier attempt left."""
        return emptied(self._folder / f"{STAGING}{key}", "the folder of offline archives")

    def find(self, key: str) -> Mark | None:
        """As Place."""
        try:
            brought = read_experiment(self._folder / f"{key}.zip").shardmig
        except NotFound:
            return None
        if not brought:
            return None
        is_complete = brought.is_whole and brought.numbered == len(self._numbered(key))
        return Mark(migration_key(brought.run), brought.digest, is_complete)

    def open(self, key: str) -> ArchivedExperiment:
        """As Place."""
        main = self._folder / f"{key}.zip"
        if not main.is_file():
            raise NotFound(f"there is no {main}")
        return ArchivedExperiment(key, [*self._numbered(key), main, *self._folder.glob(key + _LINK)], main)

    def whole(self, experiment: Experiment, _: Path) -> HeldRun:
        """As Place: archives have all points."""
        return experiment

    def keep(self, key: str, archives: Sequence[Path], *, replaces: bool) -> list[Finding]:  # noqa: ARG002 (a server tells it)
        """Take over finished archives, in the place of older ones. Raises DiskFull."""
        self.discard(key)
        with disk_errors("the folder of offline archives"):
            for archive in archives:
                sync_file(archive)
                archive.replace(self._folder / archive.name)
            sync_folder(self._folder)
        return []

    def add_others(self, key: str, others: Mapping[str, str]) -> None:
        """As Place: in an archive of their own, which the uploader takes too."""
        with self.staging(key) as staging, closing(self._addition(key, staging)) as addition:
            addition.add_others(others)
            for archive in addition.finish():
                with disk_errors("the folder of offline archives"):
                    sync_file(archive)
                    archive.replace(self._folder / f"{key}{_LINK}")
                    sync_folder(self._folder)

    def discard(self, key: str) -> None:
        """Remove an experiment; idempotent."""
        with disk_errors("the folder of offline archives"):
            (self._folder / f"{key}.zip").unlink(missing_ok=True)
            for archive in [*self._numbered(key), *self._folder.glob(key + _LINK)]:
                archive.unlink(missing_ok=True)

    def url(self, key: str) -> str:
        """Where the run's archive lies."""
        return (self._folder / f"{key}.zip").absolute().as_uri()

    def close(self) -> None:
        """Nothing is open."""

    def _addition(self, key: str, staging: Path) -> ArchiveWriter:
        return ArchiveWriter(staging, read_experiment(self._folder / f"{key}.zip"), points_per_archive=1)

    def _numbered(self, key: str) -> list[Path]:
        return sorted(self._folder.glob(key + _NUMBERED))
