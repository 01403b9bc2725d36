"""Runs on a W&B server, as catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import msgspec

from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar.reading import beside_original
from shardmig.adapters.wandb.connection import Connection
from shardmig.adapters.wandb.facts import Block
from shardmig.adapters.wandb.queries import ARTIFACT_FILES, ARTIFACTS, EVENTS, PROJECTS, RUNS, USED
from shardmig.adapters.wandb.runlog import parsed
from shardmig.adapters.wandb.scan import Row
from shardmig.adapters.wandb.server_run import ServerRun, run_of, with_numbers
from shardmig.adapters.wandb.source.folders import brought_ref, project_id
from shardmig.adapters.wandb.source.foreign import Artifact, Aside, Brought, ForeignRun, RunInfo
from shardmig.adapters.wandb.source.options import SourceOptions
from shardmig.adapters.wandb.source.own import Own
from shardmig.adapters.wrappers import retrying
from shardmig.errors import NotFound, Permanent, Unavailable
from shardmig.records import Entity, Finding, ProjectId, RunId, RunRef, TargetRunId

_RUNS_IN_PAGE: Final = 100
_PROJECTS_IN_PAGE: Final = 100
_ARTIFACTS_IN_PAGE: Final = 50
_FILES_IN_PAGE: Final = 500
_ARTIFACT_FILES: Final = ("project", "artifactCollection", "artifactMembership", "files")
_SYSTEM: Final = "system."
_HISTORY: Final = "wandb-history"
MOST_EVENTS: Final = 100_000
"""System metrics come in one answer, of lines of about 1 kB; W&B has no pages of them, only samples."""


class Servers:
    """Every run of one entity. What is listed is kept, without configs."""

    def __init__(self, options: SourceOptions) -> None:
        self._connection = Connection(options)
        self._wanted_entity = options.entity
        self._refused: list[Permanent] = []
        """Of projects that could not be searched for brought runs. Each says so too when it is listed itself."""

    def projects(self) -> Iterator[ProjectId]:
        """As Catalogue: projects of W&B, and those that brought runs came from."""
        own = {project_id(self._entity, project) for project in self._project_names}
        return iter(sorted(own | {ref.project for ref in self._brought}))

    def runs(self, project: ProjectId) -> Iterator[RunRef]:
        """As Catalogue: the earliest first. Raises what hinders to say that these are all."""
        is_own = False
        originals: set[Entity] = set()
        for name in self._project_names:
            if project_id(self._entity, name) == project:
                is_own = True
                own = [self._ref(run) for run in self._listed(name) if run.block is None]
                originals |= {ref.entity for ref in own}
                yield from own
        yield from (beside_original(ref, ref.locator, originals) for ref in self._brought if ref.project == project)
        if self._refused and not is_own:
            raise self._refused[0]

    def open(self, run: RunRef) -> Brought | ForeignRun:
        """As Catalogue."""
        found = run_of(self._connection, TargetRunId(run.locator))
        if found.block is None:
            return ForeignServerRun(self._connection, found)
        return Brought(found, partial(OnServer, self._connection, found))

    def close(self) -> None:
        """As Catalogue."""

    @cached_property
    def _entity(self) -> str:
        return self._wanted_entity or str(self._connection.account["entity"])

    @cached_property
    def _project_names(self) -> list[str]:
        asked = {"entity": self._entity, "perPage": _PROJECTS_IN_PAGE}
        return sorted(node["name"] for node in _paged(self._connection, PROJECTS, asked, ("models",)))

    @cached_property
    def _brought(self) -> list[RunRef]:
        found: dict[str, Block] = {}
        refs: list[tuple[Block, str, str]] = []
        for project in self._project_names:
            try:
                for run in self._listed(project):
                    if run.block is not None:
                        found[run.id] = run.block
                        refs.append((run.block, run.id, _version_of(run.node)))
            except Permanent as error:
                self._refused.append(error)
        made = [
            (
                block.is_complete,
                brought_ref(block, found.get(block.parent or ""), locator=locator, fingerprint=fingerprint),
            )
            for block, locator, fingerprint in refs
        ]
        by_identity = {(ref.project, ref.scope, ref.id): ref for _, ref in sorted(made, key=lambda one: one[0])}
        return [by_identity[key] for key in sorted(by_identity)]

    def _listed(self, project: str) -> Iterator[ServerRun]:
        asked = {"entity": self._entity, "project": project, "perPage": _RUNS_IN_PAGE}
        for node in _paged(self._connection, RUNS, asked, ("project", "runs")):
            yield ServerRun(self._connection, self._entity, project, node)

    def _ref(self, run: ServerRun) -> RunRef:
        return RunRef(
            project=project_id(run.entity, run.project),
            id=RunId(run.name),
            created_ms=_time_ms(run.node.get("createdAt")),
            locator=run.id,
            fingerprint=_version_of(run.node),
            weight=run.row_count,
        )


class ForeignServerRun:
    """One run as ForeignRun."""

    def __init__(self, connection: Connection, run: ServerRun) -> None:
        self._connection = connection
        self._run = run
        self._events_left_out = 0

    def info(self) -> RunInfo:
        """As ForeignRun."""
        node, run = self._run.node, self._run
        runtime = (self.summary_raw.get("_wandb") or {}).get("runtime", self.summary_raw.get("_runtime"))
        return RunInfo(
            id=run.name,
            entity=run.entity,
            project=run.project,
            name=node.get("displayName") or "",
            group=node.get("group") or "",
            job_type=node.get("jobType") or "",
            notes=node.get("notes") or "",
            user=(node.get("user") or {}).get("username") or "",
            tags=list(node.get("tags") or []),
            sweep=node.get("sweepName") or "",
            state=node.get("state") or "",
            created_ms=_time_ms(node.get("createdAt")),
            runtime_s=float(runtime) if isinstance(runtime, int | float) else None,
            commit=node.get("commit") or "",
            used=list(self._used()),
        )

    def config(self) -> dict[str, Any]:
        """As ForeignRun."""
        return self._run.config()

    def summary(self) -> dict[str, Any]:
        """As ForeignRun."""
        return dict(self.summary_raw)

    @cached_property
    def summary_raw(self) -> dict[str, Any]:
        """The summary with wandb's own keys."""
        tree: dict[str, Any] = with_numbers(json.loads(self._run.node.get("summaryMetrics") or "{}"))
        return tree

    def rows(self, aside: Aside) -> Iterator[Row]:
        """As ForeignRun."""
        yield from self._run.rows()
        self.measured(aside)

    def measured(self, aside: Aside) -> None:
        """Give the system metrics."""
        count = int(self._run.node.get("eventsLineCount") or 0)
        if not count:
            return
        run = self._run
        most = min(count, MOST_EVENTS)
        asked = {"entity": run.entity, "project": run.project, "name": run.name, "samples": most}
        answer = self._connection.ask(EVENTS, asked)
        events = ((answer.get("project") or {}).get("run") or {}).get("events") or []
        self._events_left_out = max(0, count - len(events))
        events.reverse()
        while events:  # each is let go of once it is read
            line = events.pop()
            event = with_numbers(json.loads(line) if isinstance(line, str) else line)
            time_ms = round(float(event.get("_timestamp", 0)) * 1000)
            for key, value in event.items():
                if key.startswith(_SYSTEM) and isinstance(value, int | float):
                    aside.stat(time_ms, key.removeprefix(_SYSTEM), json.dumps(value))

    def files(self) -> list[str]:
        """As ForeignRun."""
        return sorted(self._run.listed)

    def get(self, path: str, file: Path) -> None:
        """As ForeignRun."""
        self._run.get(path, file)

    def artifacts(self) -> Iterator[Artifact]:
        """As ForeignRun: each version by its own name, `<name>:v<number>`."""
        run = self._run
        asked = {"entity": run.entity, "project": run.project, "run": run.name, "perPage": _ARTIFACTS_IN_PAGE}
        for node in _paged(self._connection, ARTIFACTS, asked, ("project", "run", "artifacts")):
            name, alias = node["artifactSequence"]["name"], f"v{node['versionIndex']}"
            which = {"entity": run.entity, "project": run.project, "collection": name, "alias": alias}
            yield Artifact(
                name=f"{name}:{alias}",
                type=node["artifactType"]["name"],
                members=_Members(self._connection, which),
                description=node.get("description") or "",
                metadata=node.get("metadata") or "",
                aliases=[one["alias"] for one in node.get("aliases") or []],
                tags=[one["name"] for one in node.get("tags") or []],
            )

    def _used(self) -> Iterator[str]:
        run = self._run
        asked = {"entity": run.entity, "project": run.project, "run": run.name, "perPage": _ARTIFACTS_IN_PAGE}
        for node in _paged(self._connection, USED, asked, ("project", "run", "artifacts")):
            name, project = node["artifactSequence"]["name"], node["artifactSequence"].get("project") or {}
            owner = (project.get("entity") or {}).get("name") or run.entity
            yield f"{owner}/{project.get('name') or run.project}/{name}:v{node['versionIndex']}"

    def member(self, address: str, file: Path) -> None:
        """As ForeignRun."""
        url, size_bytes = json.loads(address)
        retrying(lambda: self._fetched(url, size_bytes, file))

    def _fetched(self, url: str, size_bytes: int, file: Path) -> None:
        self._connection.fetch(url, size_bytes, file)
        if size_bytes and file.stat().st_size != size_bytes:
            file.unlink()
            raise Unavailable(f"W&B gives a file of an artifact otherwise than it lists it, with {size_bytes} bytes")

    def findings(self) -> list[Finding]:
        """As ForeignRun."""
        if not self._events_left_out:
            return []
        told = f"W&B gives a sample of {self._run.id}'s system metrics"
        return [Finding("gap", "series-sampled", "system", self._events_left_out, detail=told)]


class OnServer(ForeignServerRun):
    """A run that shardmig brought, without what is its own. Its history is read with that."""

    def __init__(self, connection: Connection, run: ServerRun, own: Own) -> None:
        super().__init__(connection, run)
        self._own = own

    def info(self) -> RunInfo:
        """As ForeignRun; without a job type that an older shardmig may have given."""
        info = super().info()
        return info if self._own.job_type is not None else msgspec.structs.replace(info, job_type="")

    def config(self) -> dict[str, Any]:
        """As ForeignRun."""
        return {key: value for key, value in super().config().items() if key not in self._own.keys}

    def summary(self) -> dict[str, Any]:
        """As ForeignRun."""
        return self._own.without_derived(super().summary())

    def rows(self, aside: Aside) -> Iterator[Row]:
        """As ForeignRun."""
        self.measured(aside)
        return iter(())

    def files(self) -> list[str]:
        """As ForeignRun."""
        return [path for path in super().files() if not self._own.has_file(path)]

    def artifacts(self) -> Iterator[Artifact]:
        """As ForeignRun; but the history, which W&B makes an artifact of."""
        return (artifact for artifact in super().artifacts() if artifact.type != _HISTORY)


class _Members:
    """The members of an artifact, asked for while they are gone through: their addresses hold for a short time only. Raises
    NotFound where W&B has them no more."""

    def __init__(self, connection: Connection, which: Mapping[str, Any]) -> None:
        self._connection = connection
        self._asked = {**which, "perPage": _FILES_IN_PAGE}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for file in _paged(self._connection, ARTIFACT_FILES, self._asked, _ARTIFACT_FILES):
            yield file["name"], json.dumps([file["directUrl"], int(file["sizeBytes"] or 0)])


def _paged(
    connection: Connection, query: str, asked: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """The nodes of a connection, page by page. `path`: where it lies in the answer. Raises NotFound where it is not there:
    a list that is not given is not an empty one."""
    cursor = None
    while True:
        found: Any = connection.ask(query, {**asked, "cursor": cursor})
        for name in path:
            found = (found or {}).get(name)
        if found is None:
            about = ", ".join(
                str(asked[name]) for name in ("entity", "project", "collection", "alias") if name in asked
            )
            raise NotFound(f"W&B gives no {path[-1]} of {about}", hint="it is not there, or not for this API key")
        yield from (edge["node"] for edge in found["edges"])
        if not found["pageInfo"]["hasNextPage"]:
            return
        cursor = found["pageInfo"]["endCursor"]


def _version_of(node: Mapping[str, Any]) -> str:
    """What changes when a run does: rows, files, and all that people may change in a run that has ended. The order in which a
    server gives keys and tags is no change."""
    counts = [node.get(name) for name in ("historyLineCount", "eventsLineCount", "state", "fileCount")]
    trees = [parsed(node.get(name) or "{}") for name in ("config", "summaryMetrics")]
    texts = [node.get(name) for name in ("displayName", "group", "jobType", "notes")]
    told = json.dumps([trees, texts, sorted(node.get("tags") or [])], sort_keys=True)
    return " ".join(map(str, [*counts, digest_of(told)]))


def _time_ms(text: str | None) -> int | None:
    """A time as W&B writes it; without a zone it is UTC."""
    if not text:
        return None
    told = datetime.fromisoformat(text)
    return round((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * 1000)
