"""The operations of W&B's GraphQL that clients use, by the name of the operation. Answers hold every field that some
client asks for; what was not asked for is ignored by all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.servers.wandb.store import Run, Store, md5_of

Answer = dict[str, Any]
_OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")


class Graph:
    """Answers operations over a store. `url`: where files are sent to and fetched from."""

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url
        self.unknown: list[str] = []
        self.rows_seen_late = 0
        """How many more times a run with rows is told without them, as a service does that is behind."""
        self.config_seen_late = 0
        """How many more times a run that was sent is told with the config that it had before."""
        self.most_events = 10**9
        """How many lines of system metrics are given: a service gives a sample."""
        self.deleted_artifacts: set[str] = set()
        """Artifacts that are listed with their runs and have no members any more."""
        self.hidden_projects: set[str] = set()
        """Projects that are listed, and whose runs are not given."""

    def forget(self) -> None:
        """Begin anew."""
        self.rows_seen_late = self.config_seen_late = 0
        self.most_events = 10**9
        self.deleted_artifacts.clear()
        self.hidden_projects.clear()

    def answer(self, query: str, given: Answer) -> Answer:
        """The `data` of an operation. Raises Refused."""
        name = self.operation(query)
        answers: dict[str, Callable[[Answer], Answer]] = {
            "Viewer": self._viewer,
            "GetViewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "ServerFeaturesQuery": self._features,
            "UpsertBucket": self._upsert,
            "DeleteRun": self._delete,
            "CreateRunFiles": self._create_files,
            "RunResumeStatus": self._resume_status,
            "RunParquetHistory": self._parquet,
            "HistoryPage": self._history,
            "ShardmigFind": self._models,
            "ShardmigProjects": self._models,
            "ShardmigArtifacts": self._artifacts,
            "ShardmigUsed": self._used,
            "ShardmigArtifactFiles": self._artifact_files,
        }
        with self._store.lock:
            if name in answers:
                return answers[name](given)
            if "upsertBucket" in query:
                return self._upsert(given)
            if "project(" in query:
                return self._project(query, given)
            self.unknown.append(query)
            return {}

    @staticmethod
    def operation(query: str) -> str:
        """The name of the operation."""
        found = _OPERATION.search(query)
        return found[1] if found else ""

    def _viewer(self, _: Answer) -> Answer:
        viewer = {"id": "VXNlcjox", "entity": self._store.entity, "username": "somebody", "email": "s@example.com"}
        teams = {"edges": [{"node": {"name": self._store.entity}}]}
        entity = {"id": "RW50aXR5OjE=", "name": self._store.entity}
        more = {"flags": "{}", "teams": teams, "defaultEntity": entity, "apiKeys": {"edges": []}, "name": "somebody"}
        return {"viewer": viewer | more | {"admin": False, "deletedAt": None}}

    def _features(self, _: Answer) -> Answer:
        return {"serverInfo": {"features": []}}

    def _upsert(self, given: Answer) -> Answer:
        run, is_new = self._store.upsert(given)
        return {"upsertBucket": {"bucket": self._run(run), "inserted": is_new}}

    def _delete(self, given: Answer) -> Answer:
        return {"deleteRun": {"clientMutationId": "" if self._store.delete(given["id"]) else None}}

    def _create_files(self, given: Answer) -> Answer:
        run = self._store.find(given["entity"], given["project"], given["run"])
        if run is None:
            return {"createRunFiles": None}
        files = [{"name": name, "uploadUrl": self._address(run, name)} for name in given["files"]]
        return {"createRunFiles": {"runID": run.id, "uploadHeaders": [], "files": files}}

    def _resume_status(self, given: Answer) -> Answer:
        run = self._store.find(given.get("entity"), given.get("project"), given.get("name"))
        bucket = None if run is None else self._run(run)
        return {
            "model": {"id": "1", "name": given.get("project"), "entity": {"id": "1", "name": "e"}, "bucket": bucket}
        }

    def _parquet(self, given: Answer) -> Answer:
        """Nothing is exported yet: all rows are live."""
        run = self._store.find(given["entity"], given["project"], given["runName"])
        first = run.lines.get("wandb-history.jsonl", {}).get(0) if run else None
        live = [] if first is None else [{"_step": json.loads(first)["_step"]}]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}

    def _history(self, given: Answer) -> Answer:
        run = self._store.find(given["entity"], given["project"], given["run"])
        rows = [] if run is None else run.history
        chosen = [row for row in rows if given["minStep"] <= row["_step"] < given["maxStep"]]
        return {"project": {"run": {"history": [json.dumps(row) for row in chosen[: given["pageSize"]]]}}}

    def _project(self, query: str, given: Answer) -> Answer:
        entity = given.get("entity") or given.get("entityName") or self._store.entity
        project = given.get("project")
        run = self._store.find(entity, project, given.get("name") or given.get("runName") or given.get("run"))
        node: Answer = {"internalId": "1", "id": "1", "name": project, "entityName": entity, "readOnly": False}
        if "runs(" in query:
            node |= self._runs(entity, str(project), given)
        else:
            node["run"] = None if run is None else self._run(run) | self._files(run, given)
            if run is not None and ("history(" in query or "events(" in query):
                node["run"] |= self._lines(run, given)
        is_given = project in self._store.projects(entity) and project not in self.hidden_projects
        return {"project": node if is_given else None}

    def _models(self, given: Answer) -> Answer:
        """Projects, each with the runs that were asked for by name."""
        nodes = []
        if given["entity"] != self._store.entity and not self._store.projects(given["entity"]):
            return {"models": None}
        for project in self._store.projects(given["entity"]):
            node: Answer = {"name": project}
            for number in range(8):
                run = self._store.find(given["entity"], project, given.get(f"name{number}"))
                node[f"run{number}"] = None if run is None else self._run(run)
            nodes.append(node)
        edges = [{"node": node, "cursor": node["name"]} for node in nodes]
        page, more = _page(edges, given.get("cursor"), given["perPage"])
        return {"models": {"edges": page, "pageInfo": more}}

    def _artifacts(self, given: Answer) -> Answer:
        run = self._store.find(given["entity"], given["project"], given["run"])
        nodes: list[Answer] = [
            {
                "versionIndex": 0,
                "description": f"about {name}",
                "metadata": '{"accuracy": 0.5}',
                "tags": [],
                "aliases": [{"alias": "best"}],
                "artifactType": {"name": "wandb-history" if name.endswith("-history") else "model"},
                "artifactSequence": {"name": name},
            }
            for name in sorted(run.artifacts if run else ())
            if run
        ]
        edges = [{"node": node, "cursor": node["artifactSequence"]["name"]} for node in nodes]
        page, more = _page(edges, given.get("cursor"), given["perPage"])
        return {"project": {"run": {"artifacts": {"edges": page, "pageInfo": more}}}}

    def _used(self, given: Answer) -> Answer:
        run = self._store.find(given["entity"], given["project"], given["run"])
        edges = [
            {
                "node": {
                    "versionIndex": 3,
                    "artifactSequence": {
                        "name": name,
                        "project": {"name": "data", "entity": {"name": given["entity"]}},
                    },
                },
                "cursor": name,
            }
            for name in (run.used if run else ())
        ]
        page, more = _page(edges, given.get("cursor"), given["perPage"])
        return {"project": {"run": {"artifacts": {"edges": page, "pageInfo": more}}}}

    def _artifact_files(self, given: Answer) -> Answer:
        if given["collection"] in self.deleted_artifacts:
            return {"project": {"artifactCollection": {"artifactMembership": None}}}
        runs = [run for key, run in self._store.runs.items() if key[:2] == (given["entity"], given["project"])]
        run = next(run for run in runs if given["collection"] in run.artifacts)
        members = run.artifacts[given["collection"]]
        edges = [
            {
                "node": {
                    "name": file,
                    "directUrl": self._address(run, members[file]),
                    "sizeBytes": len(run.files[members[file]]),
                },
                "cursor": file,
            }
            for file in sorted(members)
        ]
        page, more = _page(edges, given.get("cursor"), given["perPage"])
        membership = {"files": {"edges": page, "pageInfo": more}}
        return {"project": {"artifactCollection": {"artifactMembership": membership}}}

    def _lines(self, run: Run, given: Answer) -> Answer:
        events = run.lines.get("wandb-events.jsonl", {})
        lowest, highest = given.get("minStep", 0), given.get("maxStep", 0)
        rows = [json.dumps(row) for row in run.history if lowest <= row["_step"] < highest]
        told = [events[number] for number in sorted(events)]
        return {
            "events": told[: min(self.most_events, given.get("samples", 1))],
            "history": rows[: given.get("samples", 1)],
        }

    def _runs(self, entity: str, project: str, given: Answer) -> Answer:
        runs = [run for key, run in self._store.runs.items() if key[:2] == (entity, project)]
        runs.sort(key=lambda run: run.number)
        edges = [{"node": self._run(run), "cursor": str(run.number)} for run in runs]
        page, more = _page(edges, given.get("cursor"), given.get("perPage") or 50)
        return {"runCount": len(runs), "runs": {"edges": page, "pageInfo": more}}

    def _run(self, run: Run) -> Answer:
        entity, project, name = run.key
        rows = len(run.lines.get("wandb-history.jsonl", {}))
        if rows and self.rows_seen_late:
            self.rows_seen_late -= 1
            rows = 0
        config = run.config
        if len(config) > 1 and self.config_seen_late:
            self.config_seen_late -= 1
            config = {"shardmig": config["shardmig"]}
        return {
            "id": run.id,
            "name": name,
            "displayName": run.display,
            "projectId": "1",
            "tags": run.tags,
            "notes": run.notes,
            "description": "",
            "state": run.state,
            "config": json.dumps(config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "group": run.group,
            "jobType": run.job_type,
            "host": run.host,
            "commit": None,
            "readOnly": False,
            "createdAt": f"2026-01-01T00:00:{run.number % 60:02}",
            "heartbeatAt": "2026-01-01T00:01:00",
            "sweepName": None,
            "historyLineCount": rows,
            "eventsLineCount": len(run.lines.get("wandb-events.jsonl", {})),
            "logLineCount": len(run.lines.get("output.log", {})),
            "historyKeys": {"lastStep": run.last_step, "keys": {}},
            "fileCount": len(run.files),
            "user": {"name": "somebody", "username": "somebody"},
            "project": {"id": "1", "name": project, "entity": {"id": "1", "name": entity}},
            "historyTail": run.tail("wandb-history.jsonl"),
            "eventsTail": run.tail("wandb-events.jsonl"),
            "wandbConfig": json.dumps((run.config.get("_wandb") or {}).get("value") or {}),
        }

    def _files(self, run: Run, given: Answer) -> Answer:
        names = [name for name in sorted(run.files) if not given.get("fileNames") or name in given["fileNames"]]
        edges = [
            {
                "node": {
                    "id": name,
                    "name": name,
                    "url": self._address(run, name),
                    "directUrl": self._address(run, name),
                    "sizeBytes": str(len(run.files[name])),
                    "mimetype": "",
                    "updatedAt": None,
                    "md5": md5_of(run.files[name]),
                },
                "cursor": str(number),
            }
            for number, name in enumerate(names)
        ]
        page, more = _page(edges, given.get("fileCursor"), given.get("fileLimit") or 50)
        return {"files": {"edges": page, "pageInfo": more}}

    def _address(self, run: Run, name: str) -> str:
        return f"{self._url}/storage/{'/'.join(quote(part, safe='') for part in run.key)}/{quote(name)}"


def _page(edges: list[Answer], cursor: str | None, most: int) -> tuple[list[Answer], Answer]:
    places = [edge["cursor"] for edge in edges]
    start = places.index(cursor) + 1 if cursor in places else 0
    page = edges[start : start + most]
    more = start + most < len(edges)
    return page, {"hasNextPage": more, "endCursor": page[-1]["cursor"] if page else None}
