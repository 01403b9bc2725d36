"""What people and judges said of a trace: as fields, and back.

An assessment is kept whole, as JSON, beside the few fields that people look for. The JSON is that of MLflow, with the values
themselves: MLflow's own way there, over protobuf, makes a double of every number, and takes neither NaN nor ±inf nor a
lone surrogate. Its run is a reference of its own: `run_id` is in the JSON, and empty, where no metadata names the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

from shardmig.adapters.mlflow.objects.base import Facts, json_of, scalars
from shardmig.adapters.mlflow.objects.references import References
from shardmig.errors import BadInput
from shardmig.records import Field

ASSESSMENTS: Final = "assessments/"
_RUN: Final = "mlflow.assessment.sourceRunId"
_KINDS: Final = ("feedback", "expectation", "issue")


def told(assessment: Any) -> dict[str, Any]:
    """One assessment as MLflow's JSON has it, but for its run."""
    source = {"source_type": assessment.source.source_type, "source_id": assessment.source.source_id}
    whole = {
        "assessment_id": assessment.assessment_id,
        "assessment_name": assessment.name,
        "trace_id": assessment.trace_id or "",
        "span_id": assessment.span_id,
        "source": _without_none(source),
        "create_time": _moment(assessment.create_time_ms),
        "last_update_time": _moment(assessment.last_update_time_ms),
        "feedback": _feedback(assessment.feedback),
        "expectation": _expectation(assessment.expectation),
        "issue": {"issue_name": assessment.issue.issue_name} if assessment.issue is not None else None,
        "rationale": assessment.rationale,
        "metadata": {key: str(text) for key, text in (assessment.metadata or {}).items()} or None,
        "overrides": assessment.overrides or None,
        "valid": assessment.valid,
    }
    return _without_none(whole)


def assessment_fields(assessment: Any, references: References) -> Iterator[Field]:
    """One assessment as fields."""
    folder = f"{ASSESSMENTS}{assessment.assessment_id}"
    whole = told(assessment)
    metadata = whole.pop("metadata", {})
    run = metadata.pop(_RUN, None)
    whole |= {"metadata": metadata} if metadata else {}
    if not run and (run := assessment.run_id):
        whole["run_id"] = ""
    kind = next((name for name in _KINDS if whole.get(name) is not None), "")
    value = whole.get(kind)
    texts = {
        "name": assessment.name,
        "kind": kind,
        "value": json_of(value.get("value", value) if isinstance(value, dict) else value, sort_keys=True),
        "json": json_of(whole, sort_keys=True),
    }
    yield from scalars({f"{folder}/{name}": text for name, text in texts.items()})
    yield from references.fields(f"{folder}/run", "runs", run)


def assessments_of(facts: Facts, references: References, *, is_server: bool) -> tuple[list[Any], list[Any]]:
    """The assessments that come with a trace, and those to create afterwards, in their order: creating one makes the
    one that it overrides invalid, and nothing else does (measured, 3.17.2)."""
    found = [_assessment(facts, f"{ASSESSMENTS}{name}", references) for name in facts.below(ASSESSMENTS)]
    for one in found if is_server else ():
        _make_sendable(one)
    invalid = {one.assessment_id for one in found if one.valid is False}
    overriding = [one for one in found if one.overrides in invalid]
    return [one for one in found if one.overrides not in invalid], sorted(
        overriding, key=lambda one: one.create_time_ms
    )


def assessing_runs(facts: Facts) -> Iterator[str]:
    """The folders of references to runs."""
    for name in facts.below(ASSESSMENTS):
        if facts.text(f"{ASSESSMENTS}{name}/run/id"):
            yield f"{ASSESSMENTS}{name}/run"


def _assessment(facts: Facts, folder: str, references: References) -> Any:
    from mlflow.entities import Assessment

    try:
        whole = json.loads(facts.text(f"{folder}/json"))
        whole["source"] = {"source_id": None} | whole["source"]  # MLflow would make one up
        run = ""
        if old := facts.text(f"{folder}/run/id"):
            run = references.here(facts, f"{folder}/run", "runs") or old
        if run and "run_id" not in whole:
            whole["metadata"] = whole.get("metadata", {}) | {_RUN: run}
        one = Assessment.from_dictionary(whole)
        one.run_id = run or None
        one.overrides, one.valid = whole.get("overrides"), whole.get("valid")  # MLflow forgets those of expectations
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"an assessment cannot be read: {error!r}", field=folder) from error
    return one


def _feedback(feedback: Any) -> dict[str, Any] | None:
    if feedback is None:
        return None
    error = feedback.error
    if error is None:
        return {"value": feedback.value}
    facts = {"error_message": error.error_message or None, "stack_trace": error.stack_trace or None}
    return {"value": feedback.value, "error": {"error_code": error.error_code} | _without_none(facts)}


def _expectation(expectation: Any) -> dict[str, Any] | None:
    if expectation is None:
        return None
    value = expectation.value
    if value is None or isinstance(value, int | float | str):
        return {"value": value}
    return {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": json.dumps(value)}}


def _moment(ms: int) -> str:
    """As protobuf writes a time; one that it cannot write is its number."""
    from google.protobuf.timestamp_pb2 import Timestamp

    moment = Timestamp()
    try:
        moment.FromMilliseconds(ms)
        return str(moment.ToJsonString())
    except (ValueError, TypeError, OverflowError):
        return str(ms)


def _make_sendable(assessment: Any) -> None:
    """What a server cannot be sent becomes a text; the exact value is kept in tags."""
    if assessment.feedback is not None:
        assessment.feedback.value = _sendable(assessment.feedback.value)
        return
    expectation = assessment.expectation
    if expectation is not None and isinstance(expectation.value, float | str):  # others go as JSON
        expectation.value = _sendable(expectation.value)


def _sendable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_sendable(one) for one in value]
    if isinstance(value, dict):
        return {_sendable(key): _sendable(one) for key, one in value.items()}
    return value


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
