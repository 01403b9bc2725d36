"""How a run of MLflow's own is written as fields, and how those fields go back to where MLflow has them.

    MLflow                    field
    param                     params/<key>, string
    metric                    metrics/<key>, float_series: every point as stored
    tag                       tags/<key>, string; `mlflow.*` too
    artifact                  artifacts/<path>, file
    dataset input             inputs/datasets/<n>/name, digest, source_type, source, schema, profile, tags/<key>; n counts
                              by (name, digest)
    model input, output       inputs/models/<model id>, string (its place in order); outputs/models/<model id>, int (step)
    run id, name, user        sys/id, sys/name, sys/owner
    start                     sys/creation_time
    end                       sys/mlflow/end_time, and as duration sys/running_time
    status                    sys/mlflow/status, and for other targets sys/failed, sys/state
    lifecycle                 sys/trashed
    parent                    sys/mlflow/parent_run_id, beside the tag
    description               sys/description, beside the tag
    artifact URI, experiment  sys/mlflow/artifact_uri, sys/mlflow/experiment/id, name, artifact_location, creation_time,
                              deleted, tags/<key>

A run whose Header.source is `mlflow` came through this map; the MLflow target leads it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from shardmig.adapters.mlflow.facts import PARENT, PROVENANCE, RUN_NAME, RunFacts, tag_value
from shardmig.adapters.mlflow.naming import Naming
from shardmig.adapters.mlflow.store import Dataset, Experiment, Status, StoredRun
from shardmig.adapters.sidecar.naming import OWN_FOLDER, is_normal
from shardmig.errors import BadInput
from shardmig.records import Field, Finding, RunRef, TargetRunId

SOURCE: Final = "mlflow"
PARAMS: Final = "params/"
METRICS: Final = "metrics/"
TAGS: Final = "tags/"
ARTIFACTS: Final = "artifacts/"
DATASETS: Final = "inputs/datasets/"
MODEL_INPUTS: Final = "inputs/models/"
MODEL_OUTPUTS: Final = "outputs/models/"
OWN_FACTS: Final = "sys/mlflow/"
EXPERIMENT: Final = "sys/mlflow/experiment/"
EXPERIMENT_TAGS: Final = "sys/mlflow/experiment/tags/"
LINK: Final = "shardmig.model."
"""Tags of a run: a logged model that it uses, by the id in the source."""

_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff#]|%[0-9A-Fa-f]{2}")
"""MLflow's server refuses or decodes these in artifact paths (measured)."""
_SEGMENT_BYTES: Final = 255
_DATASET_TEXTS: Final = ("name", "digest", "source_type", "source", "schema", "profile")
_STATUSES: Final[dict[str, Status]] = {
    "RUNNING": "RUNNING",
    "SCHEDULED": "SCHEDULED",
    "FINISHED": "FINISHED",
    "FAILED": "FAILED",
    "KILLED": "KILLED",
}


def run_fields(run: StoredRun, experiment: Experiment) -> Iterator[Field]:
    """The scalar fields of a run, in no order."""
    for key, text in run.params.items():
        yield Field(PARAMS + key, "string", text)
    for key, text in run.tags.items():
        yield Field(TAGS + key, "string", text)
    yield from dataset_fields(run.datasets)
    for number, model in enumerate(run.model_inputs):
        yield Field(MODEL_INPUTS + model, "int", number)
    for model, step in run.model_outputs:
        yield Field(MODEL_OUTPUTS + model, "int", step)
    yield from _own_facts(run)
    yield from _experiment_facts(experiment)


def dataset_fields(datasets: Iterable[Dataset]) -> Iterator[Field]:
    """Datasets in an order of their own: MLflow's is none."""
    for number, dataset in enumerate(
        sorted(datasets, key=lambda one: (one.name, one.digest, sorted(one.tags.items())))
    ):
        folder = f"{DATASETS}{number}/"
        for name in _DATASET_TEXTS:
            if (text := getattr(dataset, name)) or name == "name":
                yield Field(folder + name, "string", text)
        for key, text in dataset.tags.items():
            yield Field(f"{folder}tags/{key}", "string", text)


def datasets_of(fields: Iterable[Field]) -> list[Dataset]:
    """Back from `dataset_fields`."""
    texts: dict[int, dict[str, str]] = {}
    tags: dict[int, dict[str, str]] = {}
    for field in fields:
        number, _, name = field.path.removeprefix(DATASETS).partition("/")
        if not field.path.startswith(DATASETS) or not number.isdecimal() or not isinstance(field.value, str):
            continue
        texts.setdefault(int(number), {})
        if name.startswith("tags/"):
            tags.setdefault(int(number), {})[name.removeprefix("tags/")] = field.value
        elif name in _DATASET_TEXTS:
            texts[int(number)][name] = field.value
    return [
        Dataset(**({"name": "", "digest": ""} | texts[number]), tags=tags.get(number, {})) for number in sorted(texts)
    ]


class ModelLink(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run uses a logged model: as input, and as output of a step. `id`: what the model is called in the target;
    "" = it is not there yet."""

    is_input: bool = False
    step: int | None = None
    id: str = ""


def encode_link(link: ModelLink) -> str:
    """As the value of a tag."""
    return msgspec.json.encode(link).decode()


def decode_link(text: str) -> ModelLink:
    """Back from the tag. Raises BadInput."""
    try:
        return msgspec.json.decode(text, type=ModelLink)
    except msgspec.DecodeError as error:
        raise BadInput(f"the tag {LINK}* cannot be read: {error}") from error


def model_links(fields: Iterable[Field]) -> dict[str, ModelLink]:
    """How a run uses logged models, by their ids in the source."""
    links: dict[str, ModelLink] = {}
    for field in fields:
        if field.path.startswith(MODEL_INPUTS):
            model = field.path.removeprefix(MODEL_INPUTS)
            links[model] = msgspec.structs.replace(links.get(model, ModelLink()), is_input=True)
        elif field.path.startswith(MODEL_OUTPUTS) and isinstance(field.value, int):
            model = field.path.removeprefix(MODEL_OUTPUTS)
            links[model] = msgspec.structs.replace(links.get(model, ModelLink()), step=field.value)
    return links


def _held_link(field: Field, stored: StoredRun) -> Iterator[Field]:
    """An input or output as MLflow has it now, as far as the model is there."""
    text = stored.tags.get(LINK + field.path.rpartition("/")[2], "")
    model = decode_link(text).id if text else ""
    if not model:
        yield field
    elif field.path.startswith(MODEL_INPUTS):
        yield from [field] if model in stored.model_inputs else []
    else:
        yield from (Field(field.path, field.type, step) for id_, step in stored.model_outputs if id_ == model)


def held_fields(held: Iterable[Field], stored: StoredRun) -> Iterator[Field]:
    """What a copy in MLflow has of the scalars that are no params: tags and datasets as they are there now, and what
    MLflow's API cannot keep as the manifest holds it."""
    for field in held:
        if field.path.startswith(DATASETS):
            continue
        if field.path.startswith((MODEL_INPUTS, MODEL_OUTPUTS)):
            yield from _held_link(field, stored)
            continue
        key = field.path.removeprefix(TAGS)
        if field.path == key or key in (PARENT, RUN_NAME) or is_reserved(key):
            yield field  # the parent and the name are facts: those are compared by themselves
        elif (text := next((stored.tags[name] for name in tag_names(key) if name in stored.tags), None)) is not None:
            yield field if text == tag_value(str(field.value)) else Field(field.path, "string", text)
    yield from dataset_fields(stored.datasets)


def tag_names(key: str) -> list[str]:
    """What a tag of the source may be called here: in a target that takes names for one that differ in case only, and in
    any other. Nobody can have given a tag the first of two that differ: names are made so that no name is one of them."""
    return [NativeNaming(caseless=caseless).fit_key(key) for caseless in (True, False)]


def is_reserved(key: str) -> bool:
    """Is this the key of a tag of shardmig's own?"""
    return key.startswith(PROVENANCE)


class NativeNaming(Naming):
    """Names of a run that came from MLflow: what stood there as `lr` stands there as `lr` again."""

    def wanted_key(self, path: str) -> str:
        """As Naming."""
        for folder in (PARAMS, METRICS):
            if path.startswith(folder) and len(path) > len(folder):
                return path.removeprefix(folder)
        return path

    def wanted_artifact(self, path: str) -> str:
        """As Naming."""
        return path.removeprefix(ARTIFACTS) or path

    def is_param(self, field: Field) -> bool:
        """As Naming: tags, inputs and facts have places of their own."""
        return field.path.startswith(PARAMS) and field.type == "string"

    def findings(self, field: Field) -> list[Finding]:
        """As Naming."""
        key = field.path.removeprefix(TAGS)
        if field.path.startswith((MODEL_INPUTS, MODEL_OUTPUTS)):
            detail = "a tag keeps the link until the logged model is there"
            return [Finding("note", "model-linked-later", field.path, detail=detail)]
        if field.path == EXPERIMENT + "deleted" and field.value is True:
            detail = "it is deleted with the experiment itself, once that is loaded"
            return [Finding("note", "experiment-deleted-later", field.path, detail=detail)]
        if field.path == key or not isinstance(field.value, str):
            return []
        if is_reserved(key):
            return [Finding("approximation", "reserved-tag", field.path, detail="kept in the manifest")]
        if tag_value(field.value) != field.value:
            return [Finding("approximation", "tag-truncated", field.path, detail=f"{len(field.value)} characters")]
        return [Finding("note", "name-changed", field.path)] if self.fit_key(key) != key else []

    def _accepts_key(self, name: str) -> bool:
        return super()._accepts_key(name.replace("--", "__"))

    def accepts_file(self, path: str) -> bool:
        """As PlainNaming: what stood in MLflow may stand there."""
        return (
            is_normal(path)
            and _REFUSED.search(path) is None
            and path.partition("/")[0].lower() != OWN_FOLDER
            and all(len(segment.encode()) <= _SEGMENT_BYTES for segment in path.split("/"))
        )


class NativeFacts(RunFacts):
    """What the fields of a run from MLflow say of the run itself."""

    def __init__(self, run: RunRef) -> None:
        super().__init__(run)
        self.tag_fields: dict[str, str] = {}
        self.experiment_tags: dict[str, str] = {}
        self.model_links: dict[str, ModelLink] = {}

    def learn(self, fields: Iterable[Field]) -> None:
        """As RunFacts."""
        fields = list(fields)
        super().learn(fields)
        self.model_links = model_links(fields)
        for field in fields:
            if isinstance(field.value, str):
                if field.path.startswith(EXPERIMENT_TAGS):
                    self.experiment_tags[field.path.removeprefix(EXPERIMENT_TAGS)] = field.value
                elif field.path.startswith(TAGS):
                    self.tag_fields[field.path.removeprefix(TAGS)] = field.value

    @property
    def sys_name(self) -> str:
        """None: the project is the experiment."""
        return ""

    @property
    def status(self) -> Status:
        """As MLflow had it."""
        return _STATUSES.get(self.text(OWN_FACTS + "status"), "FINISHED")

    def end_ms(self, last_point_ms: int | None) -> int | None:  # noqa: ARG002 (only what MLflow had)
        """As MLflow had it."""
        end = self.number(OWN_FACTS + "end_time")
        return None if end is None else int(end)

    @property
    def is_deleted(self) -> bool:
        """Was the run deleted?"""
        return self.is_trashed

    def tags(self, naming: Naming, parent: TargetRunId | None) -> dict[str, str]:
        """As they were, but the parent is the one here. A parent that is not here keeps its old id."""
        own = {key: text for key, text in self.tag_fields.items() if key != RUN_NAME and not is_reserved(key)}
        tags = {naming.fit_key(key): tag_value(text) for key, text in own.items()}
        if known := parent or self.parent_run_id:
            tags[PARENT] = known
        return tags | {LINK + model: encode_link(link) for model, link in self.model_links.items()}

    @property
    def parent_run_id(self) -> str:
        """The id that the parent had in the source; "" = none."""
        return self.text(OWN_FACTS + "parent_run_id")

    def findings(self, parent: TargetRunId | None) -> Iterator[Finding]:
        """What MLflow's API cannot keep of the run itself, or what of it is not here."""
        yield Finding(
            "note", "own-ids", detail="run id, artifact URI, and id and creation time of the experiment are new"
        )
        if self.parent_run_id and parent is None:
            yield Finding("approximation", "parent-not-here", TAGS + PARENT, detail=f"{PARENT} keeps the source's id")

    @property
    def wanted_name(self) -> str:
        """As MLflow had it."""
        return self.text("sys/name") or self.run.id


def _own_facts(run: StoredRun) -> Iterator[Field]:
    texts = {
        "sys/id": run.id,
        "sys/name": run.name,
        "sys/owner": run.user,
        "sys/description": run.tags.get("mlflow.note.content", ""),
        "sys/state": "active" if run.status in ("RUNNING", "SCHEDULED") else "inactive",
        OWN_FACTS + "status": run.status,
        OWN_FACTS + "artifact_uri": run.artifact_uri,
        OWN_FACTS + "parent_run_id": run.tags.get(PARENT, ""),
    }
    yield from (Field(path, "string", text) for path, text in texts.items() if text)
    yield Field("sys/failed", "bool", run.status in ("FAILED", "KILLED"))
    yield Field("sys/trashed", "bool", run.is_deleted)
    if run.start_ms is not None:
        yield Field("sys/creation_time", "datetime", run.start_ms)
    if run.end_ms is not None:
        yield Field(OWN_FACTS + "end_time", "datetime", run.end_ms)
        if run.start_ms is not None:
            yield Field("sys/running_time", "float", (run.end_ms - run.start_ms) / 1000)


def _experiment_facts(experiment: Experiment) -> Iterator[Field]:
    yield Field(EXPERIMENT + "id", "string", experiment.id)
    yield Field(EXPERIMENT + "name", "string", experiment.name)
    yield Field(EXPERIMENT + "artifact_location", "string", experiment.artifact_location)
    yield Field(EXPERIMENT + "deleted", "bool", experiment.is_deleted)
    if experiment.created_ms is not None:
        yield Field(EXPERIMENT + "creation_time", "datetime", experiment.created_ms)
    for key, text in experiment.tags.items():
        if not is_reserved(key):
            yield Field(EXPERIMENT_TAGS + key, "string", text)
