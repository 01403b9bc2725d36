"""What a Lightning cloud holds: teamspaces, metrics streams with their points, artifacts, media, and a drive each.

Made from what lightning-sdk 2026.10.13 and litlogger 2026.8.28 send and expect. What the hosted service does beyond
that nobody here knows: a stream simply keeps every value that it is given, in the order in which it came.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

NAME_LENGTH = 64


class Refused(Exception):
    """The server answers with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Value(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One value as it came: the step as text, the time as ISO 8601."""

    value: float
    step: str | int = "0"
    created_at: str = ""


class Series(msgspec.Struct):
    """Values of one name in one append request."""

    name: str
    values: list[Value]


class Appended(msgspec.Struct):
    """The body of an append request."""

    metrics: list[Series]


class Stream(msgspec.Struct, kw_only=True):
    """A metrics stream, which users call an experiment."""

    id: str
    project: str
    name: str
    created_at: str
    updated_at: str
    tags: list[dict[str, Any]] = []
    phase: str = "RUNNING"
    persisted: bool = False
    store_created_at: bool = False
    colors: tuple[str, str] = ("", "")
    system_info: dict[str, Any] = {}
    series: dict[str, list[Value]] = {}
    latest: list[tuple[str, int]] = []
    artifacts: list[str] = []
    media: list[dict[str, Any]] = []
    appends: int = 0

    def shown(self) -> dict[str, Any]:
        """As the API answers."""
        return {
            "id": self.id,
            "projectId": self.project,
            "name": self.name,
            "tags": self.tags,
            "phase": self.phase,
            "persisted": self.persisted,
            "storeStep": True,
            "storeCreatedAt": self.store_created_at,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "lightColor": self.colors[0],
            "darkColor": self.colors[1],
            "systemInfo": self.system_info,
            "cloudspaceId": "",
            "workId": "",
            "clusterId": "cluster-1",
            "userId": "user-1",
            "updatesCounter": self.appends,
        }


class Teamspace(msgspec.Struct, kw_only=True):
    """A project in the API's words."""

    id: str
    name: str
    display_name: str
    owner_id: str = "user-1"
    is_denied: bool = False
    drive: dict[str, bytes] = {}

    def shown(self) -> dict[str, Any]:
        """As the API answers, as a project and as a membership."""
        return {
            "id": self.id,
            "projectId": self.id,
            "name": self.name,
            "displayName": self.display_name,
            "ownerId": self.owner_id,
            "ownerType": "organization" if self.owner_id.startswith("org") else "user",
            "projectSettings": {"preferredCluster": "cluster-1"},
        }


class Store:
    """The state of one server. `lag`: so many summaries will still be those from before the last append."""

    def __init__(self) -> None:
        self.teamspaces: dict[str, Teamspace] = {}
        self.streams: dict[str, Stream] = {}
        self.lock = threading.RLock()
        self.lag = 0
        self._numbers = count(1)

    def forget(self) -> None:
        """Hold nothing any more."""
        self.teamspaces.clear()
        self.streams.clear()
        self.lag = 0
        self._numbers = count(1)

    def teamspace(self, teamspace_id: str) -> Teamspace:
        """By its id. Raises Refused."""
        found = self.teamspaces.get(teamspace_id)
        if found is None or found.is_denied:
            raise Refused(403 if found else 404, f"project {teamspace_id} not found")
        return found

    def create_teamspace(self, name: str, display_name: str = "") -> Teamspace:
        """A new one. Raises Refused when the name is taken."""
        if any(one.name == name for one in self.teamspaces.values()):
            raise Refused(409, f"a project named {name} exists")
        if not name or len(name) > NAME_LENGTH:
            raise Refused(400, "the name must have 1 to 64 characters")
        made = Teamspace(id=f"prj-{next(self._numbers)}", name=name, display_name=display_name or name)
        self.teamspaces[made.id] = made
        return made

    def stream(self, teamspace_id: str, stream_id: str) -> Stream:
        """By its id. Raises Refused."""
        found = self.streams.get(stream_id)
        if found is None or found.project != teamspace_id:
            raise Refused(404, f"metrics stream {stream_id} not found")
        return found

    def stream_named(self, teamspace_id: str | None, name: str) -> Stream:
        """By its name. Raises Refused."""
        for stream in self.streams.values():
            if stream.name == name and teamspace_id in (None, stream.project):
                return stream
        raise Refused(404, f"metrics stream {name} not found")

    def create_stream(self, teamspace_id: str, body: dict[str, Any]) -> Stream:
        """A new one. Raises Refused for a name that is taken or too long."""
        name = body["name"]
        if any(stream.name == name and stream.project == teamspace_id for stream in self.streams.values()):
            raise Refused(409, f"metrics stream {name} exists")
        if not name or len(name) > NAME_LENGTH:
            raise Refused(400, "the name must have 1 to 64 characters")
        now = iso_now()
        stream = Stream(
            id=f"stream-{next(self._numbers)}",
            project=self.teamspace(teamspace_id).id,
            name=name,
            created_at=now,
            updated_at=now,
            tags=body.get("tags") or [],
            store_created_at=bool(body.get("storeCreatedAt")),
            colors=(body.get("lightColor", ""), body.get("darkColor", "")),
            system_info=body.get("systemInfo") or {},
        )
        self.streams[stream.id] = stream
        return stream

    def append(self, teamspace_id: str, stream_id: str, body: Appended) -> None:
        """Keep every value, in order."""
        stream = self.stream(teamspace_id, stream_id)
        stream.latest = [(one.name, len(one.values)) for one in body.metrics]
        for one in body.metrics:
            values = one.values if stream.store_created_at else [Value(v.value, v.step) for v in one.values]
            stream.series.setdefault(one.name, []).extend(values)
        stream.appends += 1

    def summary(self, stream: Stream) -> dict[str, dict[str, Any]]:
        """Count and last value of each series."""
        missing: dict[str, int] = {}
        if self.lag:
            self.lag -= 1
            for name, length in stream.latest:
                missing[name] = missing.get(name, 0) + length
        answer = {}
        for name, values in stream.series.items():
            if known := values[: len(values) - missing.get(name, 0)]:
                steps = [int(value.step) for value in known]
                answer[name] = {
                    "numValues": str(len(known)),
                    "lastStep": str(steps[-1]),
                    "lastValue": known[-1].value,
                    "minStep": str(min(steps)),
                    "maxStep": str(max(steps)),
                }
        return answer

    def dump(self) -> dict[str, Any]:
        """Everything, for comparison: what depends on time and order of creation is left out."""
        return {
            f"{self.teamspaces[stream.project].name}/{stream.name}": {
                "tags": {tag["name"]: tag["value"] for tag in stream.tags},
                "phase": stream.phase,
                "series": {name: [(int(v.step), v.created_at, v.value) for v in held] for name, held in series(stream)},
                "artifacts": sorted(stream.artifacts),
                "media": sorted(self._shown(stream, medium) for medium in stream.media),
                "files": {
                    path: content
                    for path, content in sorted(self.teamspaces[stream.project].drive.items())
                    if path.startswith(f"experiments/{stream.name}/")
                },
            }
            for stream in self.streams.values()
        }

    def _shown(self, stream: Stream, medium: dict[str, Any]) -> tuple[str, str, str, str, bytes]:
        """Name, step, kind and caption of a medium, and its bytes if it was completed."""
        content = self.teamspaces[stream.project].drive.get(medium["storagePath"], b"")
        facts = (str(medium.get(fact)) for fact in ("name", "step", "mediaType", "caption"))
        return *facts, content if medium.get("uploadComplete") else b""  # type: ignore[return-value]


def series(stream: Stream) -> list[tuple[str, list[Value]]]:
    """The series of a stream by name."""
    return sorted(stream.series.items())


def iso_now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
