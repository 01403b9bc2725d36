"""What MLflow's REST API answers: only what is read of it."""

from __future__ import annotations

import msgspec

from shardmig.adapters.mlflow.store import Dataset, Experiment, LatestPoint, StoredRun
from shardmig.records import TargetRunId


class Pair(msgspec.Struct):
    """A tag or param."""

    key: str
    value: str = ""


class Info(msgspec.Struct):
    """A run's own facts."""

    run_id: TargetRunId
    experiment_id: str
    status: str = ""
    run_name: str = ""
    user_id: str = ""
    start_time: int | None = None
    end_time: int | None = None
    artifact_uri: str = ""
    lifecycle_stage: str = "active"


class Latest(msgspec.Struct):
    """The last point of a metric. `value`: as text where JSON has no such number."""

    key: str
    value: float | str = 0.0
    step: int = 0
    timestamp: int = 0


class DatasetAnswer(msgspec.Struct):
    """A dataset."""

    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str = ""
    profile: str = ""


class DatasetInput(msgspec.Struct):
    """A dataset that a run was given."""

    dataset: DatasetAnswer
    tags: list[Pair] = []


class Model(msgspec.Struct):
    """A logged model that a run was given or made."""

    model_id: str
    step: int = 0


class Inputs(msgspec.Struct):
    """What a run was given."""

    dataset_inputs: list[DatasetInput] = []
    model_inputs: list[Model] = []


class Outputs(msgspec.Struct):
    """What a run made."""

    model_outputs: list[Model] = []


class RunContent(msgspec.Struct):
    """What a run holds."""

    metrics: list[Latest] = []
    params: list[Pair] = []
    tags: list[Pair] = []


class RunEntry(msgspec.Struct):
    """A run."""

    info: Info
    data: RunContent = msgspec.field(default_factory=RunContent)
    inputs: Inputs = msgspec.field(default_factory=Inputs)
    outputs: Outputs = msgspec.field(default_factory=Outputs)

    def stored(self) -> StoredRun:
        """As RunStore tells of it."""
        info = self.info
        return StoredRun(
            id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name,
            user=info.user_id,
            status=info.status,
            start_ms=info.start_time,
            end_ms=info.end_time,
            artifact_uri=info.artifact_uri,
            tags={tag.key: tag.value for tag in self.data.tags},
            params={param.key: param.value for param in self.data.params},
            metric_keys=[metric.key for metric in self.data.metrics],
            is_deleted=info.lifecycle_stage == "deleted",
            datasets=[
                Dataset(**msgspec.structs.asdict(one.dataset), tags={tag.key: tag.value for tag in one.tags})
                for one in self.inputs.dataset_inputs
            ],
            model_inputs=[model.model_id for model in self.inputs.model_inputs],
            model_outputs=[(model.model_id, model.step) for model in self.outputs.model_outputs],
            latest=[LatestPoint(one.key, one.step, one.timestamp, float(one.value)) for one in self.data.metrics],
        )


class RunAnswer(msgspec.Struct):
    """The answer of runs/get and runs/create."""

    run: RunEntry


class RunsAnswer(msgspec.Struct):
    """One page of runs/search."""

    runs: list[RunEntry] = []
    next_page_token: str = ""


class ExperimentEntry(msgspec.Struct):
    """An experiment."""

    experiment_id: str
    name: str = ""
    lifecycle_stage: str = "active"
    artifact_location: str = ""
    creation_time: int | None = None
    tags: list[Pair] = []

    def stored(self) -> Experiment:
        """As RunStore tells of it."""
        return Experiment(
            id=self.experiment_id,
            name=self.name,
            is_deleted=self.lifecycle_stage == "deleted",
            artifact_location=self.artifact_location,
            created_ms=self.creation_time,
            tags={tag.key: tag.value for tag in self.tags},
        )


class ExperimentAnswer(msgspec.Struct):
    """The answer of experiments/get and experiments/get-by-name."""

    experiment: ExperimentEntry


class ExperimentsAnswer(msgspec.Struct):
    """One page of experiments/search."""

    experiments: list[ExperimentEntry] = []
    next_page_token: str = ""


class Created(msgspec.Struct):
    """The answer of experiments/create."""

    experiment_id: str


class Point(msgspec.Struct):
    """A point of a metric."""

    value: float | str
    timestamp: int
    step: int = 0
    run_id: TargetRunId = TargetRunId("")
    """Where the answer is of several runs."""


class HistoryAnswer(msgspec.Struct):
    """One page of metrics/get-history, or the whole answer of get-history-bulk."""

    metrics: list[Point] = []
    next_page_token: str = ""
