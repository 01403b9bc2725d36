"""What the server holds: projects, runs, their history lines and files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str, str]
"""Entity, project, run."""


class Refused(Exception):
    """A request that the server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Run:
    """One run."""

    key: Key
    number: int
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    display: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    host: str = ""
    tags: list[str] = field(default_factory=list)
    state: str = "running"
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By name, each member with the file that holds it."""
    used: list[str] = field(default_factory=list)
    """The names of the artifacts that it read."""

    @property
    def id(self) -> str:
        """The storage id, opaque to clients."""
        return base64.b64encode(f"Run:v1:{':'.join(self.key)}:{self.number}".encode()).decode()

    @property
    def last_step(self) -> int:
        """Of the last row; -1 = there is none."""
        lines = self.lines.get("wandb-history.jsonl")
        return int(json.loads(lines[max(lines)])["_step"]) if lines else -1

    def tail(self, name: str) -> str:
        """The last line of a stream, as a client asks for it that resumes the run."""
        lines = self.lines.get(name)
        return json.dumps([lines[max(lines)]] if lines else [])

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows in order of their lines."""
        lines = self.lines.get("wandb-history.jsonl", {})
        return [json.loads(lines[number]) for number in sorted(lines)]


class Store:
    """All runs of all entities. Safe to use from several threads."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.lock = threading.RLock()
        self.runs: dict[Key, Run] = {}
        self.deleted: set[Key] = set()

    def forget(self) -> None:
        """Begin anew."""
        with self.lock:
            self.runs.clear()
            self.deleted.clear()

    def find(self, entity: str | None, project: str | None, name: str | None) -> Run | None:
        """A run; None: there is none."""
        return self.runs.get((entity or self.entity, project or "uncategorized", name or ""))

    def by_id(self, storage_id: str | None) -> Run | None:
        """A run by its storage id."""
        return next((run for run in self.runs.values() if run.id == storage_id), None)

    def projects(self, entity: str) -> list[str]:
        """The projects of an entity, sorted."""
        return sorted({project for owner, project, _ in self.runs if owner == entity})

    def upsert(self, given: dict[str, Any]) -> tuple[Run, bool]:
        """Create or change a run; was it created? The name of a deleted run cannot be used again."""
        run = self.by_id(given.get("id"))
        key = (given.get("entity") or self.entity, given.get("project") or "uncategorized", given.get("name") or "")
        run = run or self.runs.get(key)
        is_new = run is None
        if run is None:
            if given.get("id"):
                raise Refused(404, "run not found")
            if key in self.deleted:
                raise Refused(409, f"run {'/'.join(key)} was previously created and deleted; try a new run name")
            run = self.runs[key] = Run(key, len(self.runs) + len(self.deleted))
        for name, place in _PLACES.items():
            if given.get(name) is not None:
                setattr(run, place, given[name])
        for name in ("config", "summaryMetrics"):
            if given.get(name):
                setattr(run, "config" if name == "config" else "summary", json.loads(given[name]))
        return run, is_new

    def delete(self, storage_id: str) -> bool:
        """Delete a run."""
        run = self.by_id(storage_id)
        if run is None:
            return False
        del self.runs[run.key]
        self.deleted.add(run.key)
        return True

    def stream(self, key: Key, sent: dict[str, Any]) -> None:
        """Take a request of the file stream: lines at offsets; a line that is there is replaced."""
        run = self.runs.get(key)
        if run is None:
            raise Refused(404, "run not found")
        for name, part in (sent.get("files") or {}).items():
            lines = run.lines.setdefault(name, {})
            for number, line in enumerate(part["content"]):
                lines[part["offset"] + number] = line
            if name == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
                lines.clear()
        if sent.get("complete"):
            run.state = "finished" if sent.get("exitcode", 0) == 0 else "failed"


_PLACES = {
    "displayName": "display",
    "groupName": "group",
    "jobType": "job_type",
    "notes": "notes",
    "host": "host",
    "tags": "tags",
    "state": "state",
}


def md5_of(content: bytes) -> str:
    """As W&B tells it: base64."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
