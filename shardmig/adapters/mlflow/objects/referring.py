"""What refers to a logged model by its id here. MLflow gives neither a trace nor a version another one: when the model is made
anew, under a new id, they wait for that one and are made anew too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shardmig.adapters.mlflow.objects.base import ObjectClass, Stored
from shardmig.adapters.mlflow.objects.merging import MERGING, ObjectMerge
from shardmig.adapters.mlflow.objects.model_versions import versions_made_from
from shardmig.adapters.mlflow.objects.references import was_brought
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.tag_lists import waiting_for, waiting_tags
from shardmig.adapters.mlflow.objects.traces import Traces
from shardmig.adapters.sidecar import provenance
from shardmig.records import MigrationKey, Scope


def let_wait(stores: Stores, classes: Mapping[Scope, ObjectClass], model: Stored) -> None:
    """Note it with all that came from here and refers to this logged model, which is about to go. Idempotent.

    Whether people changed one of them is seen now: without the model it is not what it was when it was written."""
    key = MigrationKey(model.tags[provenance.KEY])
    for kind, stored in _referring(stores, classes, model.id):
        waited = waiting_for(stored.tags)
        if not was_brought(stored.tags) or key in waited:
            continue
        is_left_alone = ObjectMerge(kind, stored, ()).is_left_alone
        begun = {MERGING: stored.tags[provenance.STATE]} if is_left_alone else {}
        kind.tag(stored, begun | waiting_tags([*waited, key], stored.tags))


def _referring(
    stores: Stores, classes: Mapping[Scope, ObjectClass], model_id: str
) -> Iterator[tuple[ObjectClass, Stored]]:
    traces = classes["traces"]
    assert isinstance(traces, Traces)
    yield from ((traces, trace) for trace in list(traces.of_model(model_id)))
    registered = classes["registered_models"]
    yield from (
        (registered, registered.get(name))
        for name in sorted({name for name, _ in versions_made_from(stores, model_id)})
    )
