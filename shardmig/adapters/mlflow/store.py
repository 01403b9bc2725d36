"""What the life of a run asks of an MLflow tracking store. Knows neither HTTP nor SQL.

Two stores exist and give results that MLflow's API cannot tell apart: `rest` (or `client` for databases without the
bulk path) through MLflow's API, `database` through SQL. `write` and `read` are the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.records import MigrationKey, TargetRunId

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is created with; its status is RUNNING.

    `name` is also stored as the tag `mlflow.runName`, as MLflow does. `tags` hold shardmig's key and intent, so that
    a run whose creation was answered too late is found by `find_runs`.
    """

    experiment_id: str
    name: str
    start_ms: int
    user: str
    tags: dict[str, str]


class Dataset(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dataset that a run was given. (name, digest) is unique within an experiment; `tags` are of this use of it."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str = ""
    profile: str = ""
    tags: dict[str, str] = {}

    @classmethod
    def told(cls, dataset: Any, tags: dict[str, str]) -> Dataset:
        """By an object of MLflow's, or a row with its names."""
        return cls(
            name=dataset.name,
            digest=dataset.digest,
            source_type=dataset.source_type or "",
            source=dataset.source or "",
            schema=dataset.schema or "",
            profile=dataset.profile or "",
            tags=tags,
        )


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow tells of an experiment."""

    id: str
    name: str
    is_deleted: bool = False
    artifact_location: str = ""
    created_ms: int | None = None
    tags: dict[str, str] = {}

    @classmethod
    def told(cls, experiment: Any, tags: dict[str, str]) -> Experiment:
        """By an object of MLflow's, or a row of its table."""
        return cls(
            id=str(experiment.experiment_id),
            name=experiment.name,
            is_deleted=experiment.lifecycle_stage == "deleted",
            artifact_location=experiment.artifact_location or "",
            created_ms=experiment.creation_time,
            tags=tags,
        )


class LatestPoint(msgspec.Struct, frozen=True):
    """The last point of one metric. `value`: None = it was not told."""

    key: str
    step: int = 0
    time_ms: int = 0
    value: float | None = None


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow tells of a run without its histories. `metric_keys` and `latest` in no order; `latest` is filled by
    `search_runs`. `model_outputs`: model id and step. `points`: how many there are; None = nobody counted."""

    id: TargetRunId
    experiment_id: str
    name: str
    user: str
    status: str
    start_ms: int | None
    end_ms: int | None
    artifact_uri: str
    tags: dict[str, str]
    params: dict[str, str] = {}
    metric_keys: list[str] = []
    is_deleted: bool = False
    datasets: list[Dataset] = []
    model_inputs: list[str] = []
    model_outputs: list[tuple[str, int]] = []
    latest: list[LatestPoint] = []
    points: int | None = None

    @classmethod
    def unread(cls, run_id: str, experiment_id: str) -> StoredRun:
        """A run of a listing that cannot be read: it is listed all the same, and fails alone once it is read."""
        return cls(
            id=TargetRunId(run_id),
            experiment_id=experiment_id,
            name="",
            user="",
            status="",
            start_ms=None,
            end_ms=None,
            artifact_uri="",
            tags={},
        )


class Histories(Protocol):
    """Where points are read from."""

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """All points of these keys, in the order of `keys`, about `rows` points at a time; each series ordered by
        (step, time, value), NaN last. A series is split between two Metrics at the end of a step only."""
        ...


class ReadStore(Histories, Protocol):
    """What reading asks of a store."""

    def experiments(self) -> Iterator[Experiment]:
        """Every experiment, deleted ones too, in a stable order."""
        ...

    def search_runs(self, experiments: Sequence[str], *, only_migrated: bool) -> Iterator[StoredRun]:
        """Every run of these experiments, deleted ones too, the earliest first, page by page; `latest` filled, inputs and
        outputs as far as one request for many runs tells them. `only_migrated`: those that have a tag `shardmig.key`."""
        ...

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """One run with tags, params, metric keys, inputs and outputs. Raises NotFound."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...


class RunStore(ReadStore, Protocol):
    """The operations on runs. Each is idempotent unless said otherwise; none retries longer than its own lock wait.

    Raises AdapterError classes, never a vendor's exception. Safe to use from one thread.
    """

    is_flushed_by_end: bool
    """Does `finish_run` write in one transaction what is still buffered? To flush before it is then one more."""

    def experiment_id(self, name: str) -> str:
        """The active experiment of that name, created if need be (another worker may create it at the same time).
        Raises TargetConflict when a deleted experiment holds the name."""
        ...

    def experiment(self, experiment_id: str) -> Experiment:
        """One experiment. Raises NotFound."""
        ...

    def find_runs(self, key: MigrationKey) -> list[StoredRun]:
        """Every run of any experiment whose tag `shardmig.key` is `key`, in a stable order; tags filled. Of the
        deleted ones only those that were copied as such (their tag `shardmig.lifecycle` is `deleted`)."""
        ...

    def create_run(self, run: NewRun) -> StoredRun:
        """A new run. Not idempotent: twice makes two."""
        ...

    def log_params(self, run: StoredRun, params: Mapping[str, str]) -> None:
        """Params with new or equal values; may be buffered until `flush`. Raises TargetConflict for another value."""
        ...

    def log_metrics(self, run: StoredRun, metrics: Metrics) -> None:
        """Points; those that are there already stay as they are. May be buffered until `flush`. The latest value of each
        key (greatest step, then time, then value) is kept as MLflow keeps it."""
        ...

    def set_tags(self, run: StoredRun, tags: Mapping[str, str]) -> None:
        """Tags; a value that is there is replaced. Unbuffered, after everything buffered."""
        ...

    def log_datasets(self, run: StoredRun, datasets: Sequence[Dataset]) -> None:
        """Datasets as inputs of the run. Unbuffered."""
        ...

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Tags of an active experiment; a value that is there is replaced."""
        ...

    def flush(self, run: StoredRun) -> None:
        """Make everything logged durable."""
        ...

    def finish_run(self, run: StoredRun, status: Status, end_ms: int | None, tags: Mapping[str, str]) -> None:
        """Flush, set status and end time, and last of all the tags."""
        ...

    def delete_run(self, run_id: TargetRunId) -> None:
        """Mark deleted, as MLflow does: `find_runs` no longer finds it. A run that is not there is no error."""
        ...

    def restore_run(self, run_id: TargetRunId) -> None:
        """Undo `delete_run`."""
        ...
