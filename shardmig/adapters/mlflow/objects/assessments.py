"""What people and judges said of a trace: as fields, and back.

An assessment is kept whole, as JSON, beside the few fields that people look for. Its run is a reference of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from shardmig.adapters.mlflow.objects.base import Facts, scalars
from shardmig.adapters.mlflow.objects.references import References
from shardmig.errors import BadInput
from shardmig.records import Field

ASSESSMENTS: Final = "assessments/"
_RUN: Final = "mlflow.assessment.sourceRunId"
_KINDS: Final = ("feedback", "expectation", "issue")


def assessment_fields(assessment: Any, references: References) -> Iterator[Field]:
    """One assessment as fields."""
    folder = f"{ASSESSMENTS}{assessment.assessment_id}"
    whole = assessment.to_dictionary()
    metadata = dict(whole.get("metadata") or {})
    run = metadata.pop(_RUN, None)
    whole = {name: value for name, value in whole.items() if name not in ("metadata", "run_id")}
    whole |= {"metadata": metadata} if metadata else {}
    kind = next((name for name in _KINDS if whole.get(name) is not None), "")
    value = whole.get(kind)
    told = value.get("value", value) if isinstance(value, dict) else value
    texts = {
        "name": assessment.name,
        "kind": kind,
        "value": json.dumps(told, sort_keys=True, ensure_ascii=False),
        "json": json.dumps(whole, sort_keys=True, ensure_ascii=False),
    }
    yield from scalars({f"{folder}/{name}": text for name, text in texts.items()})
    yield from references.fields(f"{folder}/run", "runs", run)


def assessments_of(facts: Facts, references: References) -> tuple[list[Any], list[Any]]:
    """The assessments that come with a trace, and those to create afterwards, in their order: creating one makes the
    one that it overrides invalid, and nothing else does (measured, 3.17.2)."""
    found = [_assessment(facts, f"{ASSESSMENTS}{name}", references) for name in facts.below(ASSESSMENTS)]
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
        if old := facts.text(f"{folder}/run/id"):
            run = references.here(facts, f"{folder}/run", "runs") or old
            whole["metadata"] = whole.get("metadata", {}) | {_RUN: run}
        return Assessment.from_dictionary(whole)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"an assessment cannot be read: {error!r}", field=folder) from error
