"""Model versions and artifact versions, as far as they are needed here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from zenml.models import ArtifactVersionResponse, ModelVersionResponse


class Version(msgspec.Struct, frozen=True):
    """A model version. `tags` and `metadata` are empty unless it was read whole."""

    id: str
    name: str
    model: str
    created_ms: int
    description: str = ""
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    stage: str = ""
    number: int = 0


class Artifact(msgspec.Struct, frozen=True):
    """An artifact version."""

    id: str
    name: str
    version: str
    uri: str
    store_id: str | None
    metadata: dict[str, Any] = {}


class NewArtifact(msgspec.Struct, frozen=True):
    """An artifact version that is to be: files that lie in the artifact store already."""

    name: str
    version: str
    uri: str
    metadata: dict[str, dict[str, Any]] = {}


def version_of(response: ModelVersionResponse) -> Version:
    """Without what is in it."""
    return Version(
        id=str(response.id),
        name=response.name or "",
        model=response.model.name,
        created_ms=_ms(response.get_body().created),
        stage=response.stage or "",
        number=response.number,
    )


def whole_version_of(response: ModelVersionResponse) -> Version:
    """With description, tags and metadata; `response` is a hydrated one."""
    return msgspec.structs.replace(
        version_of(response),
        description=response.description or "",
        tags=[tag.name for tag in response.tags],
        metadata=dict(response.run_metadata),
    )


def artifact_of(response: ArtifactVersionResponse) -> Artifact:
    """`response` is a hydrated one."""
    return Artifact(
        id=str(response.id),
        name=response.artifact.name,
        version=response.version,
        uri=response.uri,
        store_id=str(response.artifact_store_id) if response.artifact_store_id else None,
        metadata=dict(response.run_metadata),
    )


def _ms(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
