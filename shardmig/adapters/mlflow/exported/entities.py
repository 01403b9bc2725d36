"""Documents of mlflow-export-import as MLflow's own entities. Raises BadInput for what is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from shardmig.adapters.mlflow import store
from shardmig.adapters.mlflow.exported.catalogue import Place
from shardmig.adapters.mlflow.objects.registered import IS_PROMPT, PLACEHOLDER
from shardmig.errors import BadInput

_VERSION_FACTS: Final = (
    "creation_timestamp",
    "last_updated_timestamp",
    "description",
    "user_id",
    "current_stage",
    "source",
    "run_id",
    "status",
    "status_message",
    "run_link",
)
_ASSESSMENT_FACTS: Final = ("trace_id", "metadata", "span_id", "create_time_ms", "last_update_time_ms")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Translates what a document of another shape causes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"the export's document of {what} is not as it should be: {error!r}") from error


def experiment(known: store.Experiment) -> Any:
    """An experiment."""
    from mlflow.entities import Experiment, ExperimentTag

    stage = "deleted" if known.is_deleted else "active"
    tags = [ExperimentTag(key, text) for key, text in known.tags.items()]
    return Experiment(known.id, known.name, known.artifact_location, stage, tags, known.created_ms)


def unread_model(id_: str, place: Place) -> Any:
    """The name of a logged model."""
    from mlflow.entities import LoggedModel

    return LoggedModel(place.experiment, id_, "", "", 0, 0)


def unread_trace(id_: str, place: Place) -> Any:
    """The name of a trace."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    location = TraceLocation.from_experiment_id(place.experiment)
    return TraceInfo(id_, location, 0, TraceState.STATE_UNSPECIFIED)


def unread_dataset(id_: str, place: Place) -> Any:
    """The name of a dataset."""
    from mlflow.entities import EvaluationDataset

    return EvaluationDataset(id_, place.name, "unread", 0, 0)  # without a digest MLflow tries to compute one, and dies


def unread_registered(name: str, place: Place) -> Any:  # noqa: ARG001
    """The name of a registered model."""
    from mlflow.entities.model_registry import RegisteredModel

    return RegisteredModel(name)


def logged_model(told: Mapping[str, Any]) -> Any:
    """A logged model with its metrics."""
    from mlflow.entities import LoggedModel, LoggedModelStatus, Metric

    with reading(f"logged model {told.get('model_id')}"):
        names = ("key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest", "run_id")
        return LoggedModel(
            experiment_id=str(told["experiment_id"]),
            model_id=told["model_id"],
            name=told.get("name") or "",
            artifact_location=told.get("artifact_location") or "",
            creation_timestamp=told["creation_time"],
            last_updated_timestamp=told["last_updated_timestamp"],
            model_type=told.get("model_type"),
            source_run_id=told.get("source_run_id"),
            status=LoggedModelStatus(told.get("status") or "UNSPECIFIED"),
            status_message=told.get("status_message"),
            tags=dict(told.get("tags") or {}),
            params=dict(told.get("params") or {}),
            metrics=[Metric(*(one.get(name) for name in names)) for one in told.get("metrics") or ()],
        )


def trace_info(told: Mapping[str, Any], experiment_id: str) -> Any:
    """What is known of a trace, with its assessments. `experiment_id`: where the document does not say it."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    with reading(f"trace {told.get('trace_id')}"):
        location = (told.get("trace_location") or {}).get("mlflow_experiment") or {}
        return TraceInfo(
            trace_id=told["trace_id"],
            trace_location=TraceLocation.from_experiment_id(str(location.get("experiment_id") or experiment_id)),
            request_time=told["request_time"],
            state=TraceState(told["state"]),
            request_preview=told.get("request_preview"),
            response_preview=told.get("response_preview"),
            client_request_id=told.get("client_request_id"),
            execution_duration=told.get("execution_duration"),
            trace_metadata=dict(told.get("trace_metadata") or {}),
            tags=dict(told.get("tags") or {}),
            assessments=[_assessment(one) for one in told.get("assessments") or ()],
        )


def registered_model(told: Mapping[str, Any]) -> Any:
    """A registered model without its versions."""
    from mlflow.entities.model_registry import RegisteredModel, RegisteredModelTag
    from mlflow.entities.model_registry.registered_model_alias import RegisteredModelAlias

    with reading(f"registered model {told.get('name')}"):
        return RegisteredModel(
            told["name"],
            told.get("creation_timestamp"),
            told.get("last_updated_timestamp"),
            told.get("description"),
            tags=[RegisteredModelTag(one["key"], one["value"]) for one in told.get("tags") or ()],
            aliases=[RegisteredModelAlias(one["alias"], one["version"]) for one in told.get("aliases") or ()],
        )


def model_version(told: Mapping[str, Any]) -> Any:
    """One version of a registered model."""
    from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

    make: Callable[..., Any] = ModelVersion
    with reading(f"version {told.get('version')} of {told.get('name')}"):
        return make(
            name=told["name"],
            version=str(told["version"]),
            tags=[ModelVersionTag(key, text) for key, text in (told.get("tags") or {}).items()],
            **{name: told.get(name) for name in _VERSION_FACTS},
        )


def prompt(name: str, versions: list[Any]) -> Any:
    """A prompt, of which an export has the versions only."""
    from mlflow.entities.model_registry import RegisteredModel, RegisteredModelTag

    created = min((one.creation_timestamp for one in versions), default=None)
    changed = max((one.last_updated_timestamp for one in versions), default=None)
    return RegisteredModel(name, created, changed, tags=[RegisteredModelTag(IS_PROMPT, "true")])


def prompt_version(told: Mapping[str, Any]) -> Any:
    """One version of a prompt, as the registry keeps it."""
    with reading(f"version {told.get('version')} of prompt {told.get('name')}"):
        template = told["template"]
        kind, text = ("text", template) if isinstance(template, str) else ("chat", json.dumps(template))
        own = {IS_PROMPT: "true", "mlflow.prompt.text": text, "_mlflow_prompt_type": kind}
        facts = {"description": told.get("commit_message"), "source": PLACEHOLDER, "run_id": "", "status": "READY"}
        return model_version({**told, **facts, "tags": {**(told.get("tags") or {}), **own}})


def dataset(told: Mapping[str, Any]) -> Any:
    """An evaluation dataset with its records."""
    from mlflow.entities import EvaluationDataset

    with reading(f"dataset {told.get('dataset_id')}"):
        return EvaluationDataset.from_dict(dict(told))


def _assessment(told: Mapping[str, Any]) -> Any:
    from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback

    facts = {name: told.get(name) for name in _ASSESSMENT_FACTS} | {"source": AssessmentSource(**told["source"])}
    make: Callable[..., Any]
    if told.get("assessment_type") == "expectation":
        made: Any = Expectation(told["name"], told["expectation"], **facts)
    else:
        make = Feedback
        error = told["feedback"].get("error")
        made = make(
            told["name"],
            told["feedback"].get("value"),
            AssessmentError(**error) if error else None,
            rationale=told.get("rationale"),
            overrides=told.get("overrides"),
            valid=told.get("valid") is not False,
            **facts,
        )
    made.assessment_id = told["assessment_id"]
    made.run_id = told.get("run_id")
    return made
