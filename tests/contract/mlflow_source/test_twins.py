"""An object that was begun twice, as by a request that a proxy repeated, is there once after the next copy."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.marks import STATE, doubled_or_half
from tests.contract.mlflow_source.test_objects_kept import INLINE, copy

__all__ = ["copy"]


def test_twins_of_logged_models_and_datasets_that_were_only_begun_are_removed(copy: Copy) -> None:
    source, store = MlflowClient(copy.source), MlflowClient(copy.target)._tracking_client.store
    source.create_logged_model("0", "model")
    source._tracking_client.store.create_dataset("data", {}, [])
    copy.migrate(*INLINE)
    [model] = store.search_logged_models(["0"])
    [dataset] = store.search_datasets()
    client = MlflowClient(copy.target)
    client.create_logged_model("0", "model", tags=begun(model.tags))
    store.create_dataset("data", begun(dataset.tags), [])
    assert copy.verify(*INLINE, code=5).count("differs") == 2
    copy.migrate(*INLINE)
    assert doubled_or_half(copy.target) == []
    assert [one.model_id for one in store.search_logged_models(["0"])] == [model.model_id]
    assert [one.dataset_id for one in store.search_datasets()] == [dataset.dataset_id]
    assert set(copy.verify(*INLINE)) == {"equal"}


def begun(tags: dict[str, Any]) -> dict[str, Any]:
    """The tags of an object whose first request alone was answered."""
    return {key: text for key, text in tags.items() if not key.startswith("shardmig.changes")} | {STATE: "loading"}
