"""What the server keeps: projects, and runs, models and model versions with their attributes."""

from __future__ import annotations

import bisect
import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

EntityType = Literal["run", "model", "modelVersion", "project"]
SERIES_TYPES: Final = ("floatSeries", "stringSeries", "imageSeries")


class Refused(Exception):
    """An answer other than 200: status, Neptune's error type, what to say."""

    def __init__(self, status: int, error_type: str = "", title: str = "") -> None:
        super().__init__(title)
        self.status = status
        self.body = {"code": status, "errorType": error_type, "title": title or error_type}


@dataclass
class Series:
    """Points in the order of their steps, which only grow."""

    steps: list[float] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def append(self, step: float | None, time_ms: int, value: Any) -> bool:
        """Take one point; False if its step does not grow, and Neptune drops it."""
        last = self.steps[-1] if self.steps else None
        if step is None:
            step = 0.0 if last is None else last + 1
        if last is not None and step <= last:
            return False
        self.steps.append(float(step))
        self.times_ms.append(time_ms)
        self.values.append(value)
        return True


@dataclass
class StoredFile:
    """A file attribute: the server knows an extension, and no name but the attribute's own."""

    content: bytes
    ext: str


@dataclass
class Attribute:
    """One attribute. `value` by type: Series, StoredFile, dict of members (file set), set of strings, hash, …"""

    type: str
    value: Any


@dataclass
class Entity:
    """A run, model, model version, or the project's own metadata."""

    id: str
    sys_id: str
    type: EntityType
    project: Project
    parent_id: str
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def put(self, path: str, type_: str, value: Any) -> None:
        """Set an attribute."""
        self.attributes[path] = Attribute(type_, value)

    @property
    def is_trashed(self) -> bool:
        """Is it in the trash?"""
        return bool(self.attributes["sys/trashed"].value)

    def dto(self) -> dict[str, Any]:
        """As getExperiment answers."""
        return {
            "id": self.id,
            "shortId": self.sys_id,
            "organizationName": self.project.workspace,
            "projectName": self.project.name,
            "projectId": self.project.id,
            "parentId": self.parent_id,
            "trashed": self.is_trashed,
            "type": self.type,
        }


@dataclass
class Project:
    """A project and its entities, in order of creation. `is_forbidden`: the token's owner may not look into it."""

    id: str
    workspace: str
    name: str
    key: str
    is_forbidden: bool = False
    entities: list[Entity] = field(default_factory=list)
    by_sys_id: list[tuple[str, Entity]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """workspace/name"""
        return f"{self.workspace}/{self.name}"

    def add(self, entity: Entity) -> None:
        """Take in a new entity."""
        self.entities.append(entity)
        bisect.insort(self.by_sys_id, (entity.sys_id, entity), key=lambda pair: pair[0])

    def next_number(self, of: str) -> int:
        """1, 2, … for each kind of id."""
        self.counts[of] = self.counts.get(of, 0) + 1
        return self.counts[of]

    def dto(self) -> dict[str, Any]:
        """As getProject answers."""
        names = {"id": self.id, "name": self.name, "organizationName": self.workspace}
        return {**names, "projectKey": self.key, "version": 2}


class Store:
    """Everything the server knows. Not locked: the server answers one writing request at a time."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.projects: dict[str, Project] = {}
        self.entities: dict[str, Entity] = {}
        self.artifacts: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def add_project(self, label: str, key: str, *, is_forbidden: bool = False) -> Project:
        """A project by workspace/name."""
        workspace, _, name = label.partition("/")
        project = Project(_uuid(label), workspace, name, key, is_forbidden)
        self.projects[project.id] = project
        own = Entity(project.id, key, "project", project, project.id)
        own.put("sys/id", "string", key)
        own.put("sys/trashed", "bool", False)
        self.entities[project.id] = own
        return project

    def add_entity(self, project: Project, type_: EntityType, *, parent: str = "", custom_id: str = "") -> Entity:
        """A new entity with the attributes that the server itself sets. `custom_id`: of a run, or a model's key."""
        sys_id = self._sys_id(project, type_, parent, custom_id)
        entity = Entity(_uuid(f"{project.label}/{sys_id}"), sys_id, type_, project, parent or project.id)
        now_ms = self.now_ms()
        entity.put("sys/id", "string", sys_id)
        entity.put("sys/owner", "string", "somebody")
        for name in ("creation_time", "modification_time", "ping_time"):
            entity.put(f"sys/{name}", "datetime", now_ms)
        entity.put("sys/size", "float", 0.0)
        entity.put("sys/trashed", "bool", False)
        if type_ == "run":
            entity.put("sys/state", "experimentState", "running")
            entity.put("sys/running_time", "float", 0.0)
            entity.put("sys/monitoring_time", "int", 0)
            if custom_id:
                entity.put("sys/custom_run_id", "string", custom_id)
        if type_ == "modelVersion":
            entity.put("sys/model_id", "string", self.entities[parent].sys_id)
            entity.put("sys/stage", "string", "none")
        project.add(entity)
        self.entities[entity.id] = entity
        return entity

    def project(self, identifier: str) -> Project:
        """By uuid or workspace/name. Raises Refused."""
        for project in self.projects.values():
            if identifier in (project.id, project.label):
                if project.is_forbidden:
                    raise Refused(403, "ACCESS_DENIED")
                return project
        raise Refused(404, "PROJECT_NOT_FOUND")

    def entity(self, identifier: str) -> Entity:
        """By uuid or workspace/name/SYS-ID. Raises Refused."""
        entity = self.entities.get(identifier)
        if entity is None:
            label, _, sys_id = identifier.rpartition("/")
            found = (one for one in self.entities.values() if one.sys_id == sys_id and one.project.label == label)
            entity = next(found, None)
        if entity is None:
            raise Refused(404, "EXPERIMENT_NOT_FOUND")
        if entity.project.is_forbidden:
            raise Refused(403, "ACCESS_DENIED")
        return entity

    def attribute(self, identifier: str, path: str, *types: str) -> Attribute:
        """An attribute of one of these types (none given: of any). Raises Refused."""
        attribute = self.entity(identifier).attributes.get(path)
        if attribute is None or (types and attribute.type not in types):
            raise Refused(404, "ATTRIBUTE_NOT_FOUND", path)
        return attribute

    def dump(self) -> dict[str, dict[str, Any]]:
        """The oracle: by workspace/name/SYS-ID and path, each attribute as (type, plain value)."""
        return {
            f"{entity.project.label}/{entity.sys_id}": {
                path: (attribute.type, plain(attribute)) for path, attribute in sorted(entity.attributes.items())
            }
            for entity in self.entities.values()
        }

    def _sys_id(self, project: Project, type_: EntityType, parent: str, custom_id: str) -> str:
        if type_ == "model":
            return f"{project.key}-{custom_id}"
        if type_ == "modelVersion":
            model = self.entities[parent].sys_id
            return f"{model}-{project.next_number(model)}"
        return f"{project.key}-{project.next_number('run')}"


def plain(attribute: Attribute) -> Any:
    """An attribute's value in plain types; contents of files by SHA-256."""
    value = attribute.value
    if isinstance(value, Series):
        values = [_sha256(one) for one in value.values] if attribute.type == "imageSeries" else value.values
        return list(zip(value.steps, value.times_ms, values, strict=True))
    if isinstance(value, StoredFile):
        return (value.ext, _sha256(value.content))
    if attribute.type == "fileSet":
        return {name: _sha256(content) for name, content in sorted(value.items())}
    return sorted(value) if attribute.type == "stringSet" else value


def properties(path: str, attribute: Attribute) -> dict[str, Any]:
    """The `<type>Properties` of an attribute's DTO."""
    value = attribute.value
    match attribute.type:
        case "datetime":
            known: dict[str, Any] = {"value": iso(value)}
        case "stringSet":
            known = {"values": sorted(value)}
        case "file":
            name = path.rpartition("/")[2] + (f".{value.ext}" if value.ext else "")
            known = {"name": name, "ext": value.ext, "size": len(value.content)}
        case "fileSet":
            known = {"size": sum(map(len, value.values()))}
        case "floatSeries" | "stringSeries" if value.steps:
            known = {"last": value.values[-1], "lastStep": value.steps[-1], "config": {}}
        case "imageSeries" if value.steps:
            known = {"lastStep": value.steps[-1]}
        case "floatSeries" | "stringSeries" | "imageSeries":
            known = {}
        case "artifact":
            known = {"hash": value}
        case "gitRef" | "notebookRef":
            known = value
        case _:
            known = {"value": value}
    return {"attributeName": path, "attributeType": attribute.type, **known}


def attribute_dtos(entity: Entity, paths: Iterator[str] | None = None) -> list[dict[str, Any]]:
    """Attributes as the API writes them: all, or those of `paths` that exist."""
    chosen = entity.attributes if paths is None else [path for path in paths if path in entity.attributes]
    dtos = []
    for path in chosen:
        attribute = entity.attributes[path]
        dtos.append({"name": path, "type": attribute.type, f"{attribute.type}Properties": properties(path, attribute)})
    return dtos


def iso(time_ms: int) -> str:
    """2024-01-31T10:00:00.123Z"""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
