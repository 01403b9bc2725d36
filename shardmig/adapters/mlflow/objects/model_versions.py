"""Which versions of registered models were made from a logged model: its tag `mlflow.modelVersions`, JSON.

MLflow itself reads the tag, adds a version and writes it: of two that are made at a time one is lost, and a version that is
told twice is there twice, or alone (3.17.2).
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages

MODEL_VERSIONS: Final = "mlflow.modelVersions"
_TRIES: Final = 5


class _Entry(msgspec.Struct):
    name: str
    version: int


def tell_version(stores: Stores, model_id: str, name: str, number: int) -> None:
    """Have the tag name this version, and every other one that was made from the logged model. Idempotent.

    Who writes last looks once more: what others have made until then is in what it writes."""
    from mlflow.entities import LoggedModelTag

    for _ in range(_TRIES):
        text = stores.tracking.get_logged_model(model_id).tags.get(MODEL_VERSIONS) or "[]"
        told = _told(text)
        wanted = {*told, (name, number)} | versions_made_from(stores, model_id)
        if sorted(told) == sorted(wanted):
            return
        entries = [{"name": one, "version": version} for one, version in sorted(wanted)]
        stores.tracking.set_logged_model_tags(model_id, [LoggedModelTag(MODEL_VERSIONS, json.dumps(entries))])


def _told(text: str) -> list[tuple[str, int]]:
    try:
        return [(one.name, one.version) for one in msgspec.json.decode(text, type=list[_Entry], strict=False)]
    except msgspec.DecodeError:  # somebody's own
        return []


def versions_made_from(stores: Stores, model_id: str) -> set[tuple[str, int]]:
    """Names and numbers of the versions whose source is this logged model."""
    condition = f"source_path = 'models:/{model_id}'"
    found: Any = pages(stores.registry.search_model_versions, filter_string=condition, max_results=IN_PAGE)
    return {(str(one.name), int(one.version)) for one in found}
