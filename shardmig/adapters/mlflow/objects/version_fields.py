"""What one version of a registered model or prompt is told as: the fields that `registered` lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from shardmig.adapters.mlflow.objects.base import TAGS, scalars, tag_fields, times
from shardmig.adapters.mlflow.objects.references import References, registered_of
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.versions import COPIED, COPIED_MODEL, VERSIONS, logged_model_of, originals
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.errors import Permanent
from shardmig.records import Field

NOT_STAGED: Final = ("", "None", None)
PROMPT_TAGS: Final = {
    "mlflow.prompt.text": "text",
    "_mlflow_prompt_type": "type",
    "_mlflow_prompt_model_config": "model_config",
    "_mlflow_prompt_response_format": "response_format",
}


def version_fields(stores: Stores, references: References, version: Any, *, is_prompt: bool) -> Iterator[Field]:
    """All scalar fields of a version."""
    folder = f"{VERSIONS}{version.version}"
    tags = dict(version.tags)
    texts = {
        "description": version.description,
        "stage": version.current_stage if version.current_stage not in NOT_STAGED else "",
        "source": version.source,
        "run_link": version.run_link,
        "user": version.user_id,
        "status": version.status,
        "status_message": version.status_message,
        "run/path": None if is_prompt else path_in_run(stores, version),
    }
    if is_prompt:
        texts |= {name: tags.pop(key) for key, name in PROMPT_TAGS.items() if tags.get(key)}
    yield from scalars({f"{folder}/{name}": text for name, text in texts.items()})
    created = {f"{folder}/creation_time": version.creation_timestamp}
    yield from times(created | {f"{folder}/modification_time": version.last_updated_timestamp})
    yield from tag_fields(f"{folder}/{TAGS}", tags)
    yield from references.fields(f"{folder}/run", "runs", version.run_id)
    yield from references.fields(f"{folder}/model", "logged_models", logged_model_of(version.source))
    if not references.is_target:  # there a tag keeps it: a name tells nothing of which model was meant
        yield from times({f"{folder}/{name}": value for name, value in _copied(stores, version.source)})


def path_in_run(stores: Stores, version: Any) -> str | None:
    """Where in its run's artifacts the version of a model lies; None: elsewhere."""
    if not version.run_id or not version.source:
        return None
    source: str = version.source
    if source.startswith(f"runs:/{version.run_id}"):
        return source.removeprefix(f"runs:/{version.run_id}").strip("/")
    try:
        with mlflow_errors(f"run {version.run_id}"):
            root = _plain(stores.tracking.get_run(version.run_id).info.artifact_uri)
    except Permanent:
        return None
    inside = _plain(source).removeprefix(root.rstrip("/") + "/")
    is_inside = inside != _plain(source) and not inside.startswith("shardmig/")
    return inside.strip("/") if is_inside else None


def _copied(stores: Stores, source: str | None) -> Iterator[tuple[str, int | None]]:
    copied = registered_of(source)
    if copied is not None and (found := originals(stores, copied)) is not None:
        yield COPIED_MODEL, found.model_ms
        yield COPIED, found.version_ms


def _plain(uri: str) -> str:
    """A path of a disk is the same with and without `file://`."""
    return str(on_this_machine(uri) or uri)
