"""A logged model names every version that was made from it, once, whoever made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from shardmig.adapters.mlflow.objects.model_versions import MODEL_VERSIONS, tell_version
from shardmig.adapters.mlflow.objects.stores import Stores
from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.test_objects_kept import INLINE, copy
from tests.servers.mlflow import MlflowServer

__all__ = ["copy"]


def logged_model(client: MlflowClient) -> str:
    """With a run."""
    model_id: str = client.create_logged_model("0", "model", client.create_run("0").info.run_id).model_id
    return model_id


def make_versions(uri: str, model_id: str, *names: str) -> None:
    """Registered models with a version each."""
    client = MlflowClient(uri)
    with _use_tracking_uri(uri):
        for name in names:
            client.create_registered_model(name)
            client.create_model_version(name, f"models:/{model_id}", model_id=model_id)


def told(client: MlflowClient, model_id: str) -> Any:
    """What the tag says."""
    return json.loads(client.get_logged_model(model_id).tags[MODEL_VERSIONS])


@pytest.mark.parametrize("before", [None, "[]", '[{"name": "b", "version": "1"}]', "no JSON"])
def test_what_two_workers_took_from_each_other_is_told_by_who_looks_last(sqlite_file: Path, before: str | None) -> None:
    uri = f"sqlite:///{sqlite_file}"
    client, stores = MlflowClient(uri), Stores(uri, None)
    model_id = logged_model(client)
    make_versions(uri, model_id, "a", "b")
    if before is not None:
        client.set_logged_model_tags(model_id, {MODEL_VERSIONS: before})
    tell_version(stores, model_id, "b", 1)
    assert told(client, model_id) == [{"name": "a", "version": 1}, {"name": "b", "version": 1}]
    stores.close()


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
def test_a_server_names_every_version_once(copy: Copy, mlflow_http: MlflowServer) -> None:
    client = MlflowClient(copy.source)
    client.create_experiment("of versions")
    make_versions(copy.source, logged_model(client), "told a", "told b")
    Copy(copy.folder, copy.source, mlflow_http.uri).migrate(*INLINE)
    there = MlflowClient(mlflow_http.uri)
    [version] = there.search_model_versions("name = 'told a'")
    model_id = str(version.source).removeprefix("models:/")
    assert told(there, model_id) == [{"name": "told a", "version": 1}, {"name": "told b", "version": 1}]
