"""What a local Comet keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asset:
    """A file."""

    id: str
    name: str
    type: str
    content: bytes
    step: int | None
    metadata: Any
    created_ms: int
    link: str | None = None

    def told(self, key: str) -> dict[str, Any]:
        """As `experiment/asset/list` tells it."""
        return {
            "assetId": self.id,
            "fileName": self.name,
            "fileSize": len(self.content),
            "type": self.type,
            "step": self.step,
            "metadata": self.metadata,
            "createdAt": self.created_ms,
            "experimentKey": key,
            "remote": self.link is not None,
            "link": self.link,
            "runContext": None,
            "dir": self.name.rpartition("/")[0],
        }


@dataclass
class Experiment:
    """One experiment. `metrics`: the values of each in the order of their arrival, as the client sent them."""

    key: str
    workspace: str
    project: str
    created_ms: int
    start_ms: int | None = None
    end_ms: int | None = None
    running: bool = True
    archived: bool = False
    offline: bool = False
    error: str | None = None
    tags: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    assets: dict[str, Asset] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    dependencies: list[Any] = field(default_factory=list)
    git: dict[str, Any] | None = None
    graph: str | None = None
    html: str = ""
    output: str = ""
    file_name: str | None = None

    def metadata(self) -> dict[str, Any]:
        """As `experiment/metadata` tells it."""
        start_ms = self.start_ms if self.start_ms is not None else self.created_ms
        end_ms = self.end_ms if self.end_ms is not None else start_ms
        return {
            "experimentKey": self.key,
            "experimentName": self.others.get("Name"),
            "workspaceName": self.workspace,
            "projectName": self.project,
            "projectId": project_id(self.workspace, self.project),
            "startTimeMillis": start_ms,
            "endTimeMillis": end_ms,
            "durationMillis": end_ms - start_ms,
            "running": self.running,
            "archived": self.archived,
            "hasCrashed": False,
            "error": self.error,
            "fileName": self.file_name,
            "filePath": None,
            "throttle": False,
            "optimizationId": None,
        }


def project_id(workspace: str, project: str) -> str:
    """The id that this server gives a project."""
    return f"id-of-{workspace}-{project}"


def text_of(value: Any) -> str:
    """A value as the server tells it: everything is a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value)


def sampled(values: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    """At most so many of the values, spread over all of them, the first and the last among them."""
    if most is None or len(values) <= most:
        return values
    ordered = sorted(values, key=lambda value: value["step"] or 0)
    return [ordered[number * (len(ordered) - 1) // (most - 1)] for number in range(most)]
