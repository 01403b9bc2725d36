"""What a local Comet answers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from email.message import Message
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any, Final

from tests.servers.comet.experiments import Asset, Experiment, project_id, sampled, text_of

if TYPE_CHECKING:
    from tests.servers.comet.server import CometServer

_KEY_UNKNOWN: Final = 90212
_EXPERIMENT_EXISTS: Final = 90999
_NO_ACCESS: Final = 90210
_NO_WORKSPACE: Final = 90219
"""Told to the client as `sdk_error_code`; the numbers are its own constants."""


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, msg: str, code: int | None = None) -> None:
        super().__init__(msg)
        self.status = status
        self.body = {"msg": msg, "code": status} | ({"sdk_error_code": code} if code is not None else {})


class Api:
    """The answers of one server."""

    def __init__(self, server: CometServer) -> None:
        self._server = server
        self._get: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "experiment/metadata": lambda query: self._known(query).metadata(),
            "experiment/parameters": lambda query: _summaries(self._known(query).params),
            "experiment/log-other": lambda query: _summaries(self._known(query).others),
            "experiment/tags": lambda query: {"tags": self._known(query).tags},
            "experiment/metrics/summary": self._metric_summaries,
            "experiment/metrics/get-metric": self._metric,
            "experiment/asset/list": self._assets,
            "experiment/asset/get-asset": self._asset,
            "experiment/system-details": lambda query: self._known(query).details,
            "experiment/git/metadata": lambda query: self._known(query).git or {},
            "experiment/graph": lambda query: {"graph": self._known(query).graph},
            "experiment/html": lambda query: {"html": self._known(query).html},
            "experiment/output": lambda query: {"output": self._known(query).output},
            "workspaces": lambda _: {"workspaceNames": sorted(self._workspaces())},
            "projects": self._projects,
            "experiments": self._experiments,
            "write/experiment/delete": self._delete,
            "write/experiment/archive": self._archive,
        }
        self._post: dict[str, Callable[[dict[str, Any]], Any]] = {
            "write/experiment/log-other": self._log_other,
            "write/experiment/update-status": self._update_status,
            "write/experiment/output": self._log_output,
            "write/experiment/system-details": self._log_details,
            "write/experiment/dependencies": lambda payload: self._of(payload).dependencies.extend(
                payload["logDependencies"]
            ),
            "write/experiment/file-path": lambda payload: setattr(self._of(payload), "file_name", payload["filePath"]),
            "write/experiment/graph": lambda payload: setattr(self._of(payload), "graph", payload["graph"]),
            "write/experiment/html": self._log_html,
            "write/experiment/git/metadata": self._log_git,
        }
        self._client = self._client_paths()

    def _client_paths(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "logger/add/run": self._add_run,
            "logger/get/run": lambda payload: self._handshake(self._by_key(payload["previousExperiment"])),
            "status-report/update": self._status,
            "status-report/offline-metadata": self._times,
            "tags/add-tags-to-experiment": self._add_tags,
            "batch/logger/experiment/metric": self._add_metrics,
            "batch/logger/experiment/parameter": self._add_params,
            "notify/event": lambda _: {},
        }

    def answer(self, path: str, query: Mapping[str, str], body: bytes, headers: Mapping[str, str], key: str) -> Any:
        """The answer to a request: bytes, or what is told as JSON. Raises Refused."""
        if path.endswith("isAlive/ver"):
            return {"version": "99.0.0"}
        if path.endswith("health/ping"):
            return {}
        payload = _payload(body, headers)
        if (key or payload.get("apiKey")) != self._server.api_key:
            raise Refused(401 if "/rest/" in path else 400, "API key is not registered", _KEY_UNKNOWN)
        name = path.removeprefix("/api/rest/v2/").removeprefix("/clientlib/rest/v2/").removeprefix("/clientlib/")
        if name in ("asset/upload", "visualizations/upload"):
            return self._upload(name, query, body, headers)
        if name in self._get and not body:
            answer = self._get[name](query)
        elif name in self._post:
            answer = self._post[name](payload)
        elif name in self._client:
            answer = self._client[name](payload)
        else:
            raise Refused(404, f"no such path: {path}")
        return {"msg": "done"} if answer is None else answer

    def _add_run(self, payload: dict[str, Any]) -> dict[str, Any]:
        key = payload["experimentKey"]
        workspace = payload.get("teamName") or "default"
        if workspace not in self._server.workspaces:
            raise Refused(400, f"no workspace {workspace}", _NO_WORKSPACE)
        if key in self._server.experiments:
            raise Refused(400, "experiment exists", _EXPERIMENT_EXISTS)
        experiment = Experiment(
            key, workspace, payload.get("projectName") or "general", _now_ms(), offline=bool(payload.get("offline"))
        )
        self._server.experiments[key] = experiment
        return self._handshake(experiment)

    def _handshake(self, experiment: Experiment) -> dict[str, Any]:
        return {
            "runId": f"run-{experiment.key}",
            "project_id": project_id(experiment.workspace, experiment.project),
            "focusUrl": f"{self._server.root}/{experiment.workspace}/{experiment.project}/",
            "lastOffset": 0,
            "featureToggles": [],
            "s3DirectAccessEnabled": False,
        }

    def _status(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._of(payload).running = bool(payload["is_alive"])
        return {"is_alive_beat_duration_millis": 10_000, "gpu_monitor_interval_millis": 60_000}

    def _times(self, payload: dict[str, Any]) -> None:
        experiment = self._of(payload)
        if payload["startTimestamp"] is not None:
            experiment.start_ms = payload["startTimestamp"]
        experiment.end_ms = payload["endTimestamp"]

    def _add_tags(self, payload: dict[str, Any]) -> None:
        tags = self._of(payload).tags
        tags += [tag for tag in payload["addedTags"] if tag not in tags]

    def _add_metrics(self, payload: dict[str, Any]) -> None:
        metrics = self._of(payload).metrics
        for value in payload["values"]:
            metrics.setdefault(_name(value["metricName"], value.get("context")), []).append(value)

    def _add_params(self, payload: dict[str, Any]) -> None:
        for value in payload["values"]:
            name = _name(value["parameterName"], value.get("context"))
            self._of(payload).params[name] = value["parameterValue"]

    def _log_other(self, payload: dict[str, Any]) -> None:
        self._of(payload).others[payload["key"]] = payload["value"]

    def _update_status(self, payload: dict[str, Any]) -> None:
        self._of(payload).error = payload["error"]

    def _log_git(self, payload: dict[str, Any]) -> None:
        self._of(payload).git = {name: value for name, value in payload.items() if name != "experimentKey"}

    def _log_html(self, payload: dict[str, Any]) -> None:
        experiment = self._of(payload)
        experiment.html = payload["html"] if payload["override"] else experiment.html + payload["html"]

    def _log_details(self, payload: dict[str, Any]) -> None:
        self._of(payload).details |= {name: value for name, value in payload.items() if name != "experimentKey"}

    def _log_output(self, payload: dict[str, Any]) -> None:
        texts = payload.get("runIdToOutputLines") or payload.get("output") or payload.get("outputLines") or ""
        lines = texts if isinstance(texts, list) else [texts]
        self._of(payload).output += "".join(line["output"] if isinstance(line, dict) else line for line in lines)

    def _upload(self, name: str, query: Mapping[str, str], body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        experiment = self._by_key(query["experimentId"])
        parts = _parts(body, headers["Content-Type"])
        is_image = name.startswith("visualizations")
        asset_id = query.get("imageId" if is_image else "assetId") or uuid.uuid4().hex
        metadata, link = parts.get("metadata"), parts.get("link")
        experiment.assets[asset_id] = Asset(
            id=asset_id,
            name=query.get("figName" if is_image else "fileName", asset_id),
            type="image" if is_image else query.get("type", "asset"),
            content=parts.get("file", b""),
            step=int(query["step"]) if "step" in query else None,
            metadata=json.loads(metadata) if metadata else None,
            created_ms=_now_ms(),
            link=link.decode() if link else None,
        )
        return {"assetId": asset_id, "imageId": asset_id}

    def _metric_summaries(self, query: Mapping[str, str]) -> dict[str, Any]:
        metrics = self._known(query).metrics
        return _summaries({name: values[-1]["metricValue"] for name, values in metrics.items()})

    def _metric(self, query: Mapping[str, str]) -> dict[str, Any]:
        values = self._known(query).metrics.get(query["metricName"], [])
        told = [
            {
                "metricName": query["metricName"],
                "metricValue": text_of(value["metricValue"]),
                "timestamp": value["timestamp"],
                "step": value["step"],
                "epoch": value["epoch"],
                "runContext": value.get("context"),
                "offset": number,
            }
            for number, value in enumerate(sampled(values, self._server.most_values))
        ]
        return {"metrics": told}

    def _assets(self, query: Mapping[str, str]) -> dict[str, Any]:
        experiment = self._known(query)
        wanted = query.get("type", "all")
        return {
            "assets": [
                asset.told(experiment.key) for asset in experiment.assets.values() if wanted in ("all", asset.type)
            ]
        }

    def _asset(self, query: Mapping[str, str]) -> bytes:
        asset = self._known(query).assets.get(query["assetId"])
        if asset is None:
            raise Refused(404, "no such asset")
        return asset.content

    def _workspaces(self) -> set[str]:
        return self._server.workspaces | {experiment.workspace for experiment in self._server.experiments.values()}

    def _projects(self, query: Mapping[str, str]) -> dict[str, Any]:
        workspace = query["workspaceName"]
        names = {one.project for one in self._server.experiments.values() if one.workspace == workspace}
        return {
            "projects": [
                {"projectName": name, "projectId": project_id(workspace, name), "workspaceName": workspace}
                for name in sorted(names)
            ]
        }

    def _experiments(self, query: Mapping[str, str]) -> dict[str, Any]:
        wanted = (query["workspaceName"], query["projectName"], query.get("archived") == "true")
        found = [
            one.metadata()
            for one in self._server.experiments.values()
            if (one.workspace, one.project, one.archived) == wanted
        ]
        if "page" in query:
            size = int(query["size"])
            start = (int(query["page"]) - 1) * size
            found = found[start : start + size]
        return {"experiments": found}

    def _delete(self, query: Mapping[str, str]) -> None:
        del self._server.experiments[self._known(query).key]

    def _archive(self, query: Mapping[str, str]) -> None:
        self._known(query).archived = True

    def _known(self, query: Mapping[str, str]) -> Experiment:
        experiment = self._server.experiments.get(query.get("experimentKey", ""))
        if experiment is None:
            raise Refused(404, "experiment not found")
        return experiment

    def _of(self, payload: Mapping[str, Any]) -> Experiment:
        return self._by_key(payload["experimentKey"])

    def _by_key(self, key: str) -> Experiment:
        if key not in self._server.experiments:
            raise Refused(400, "no such experiment", _NO_ACCESS)
        return self._server.experiments[key]


def _payload(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    if not body or "multipart" in headers.get("Content-Type", ""):
        return {}
    payload: dict[str, Any] = json.loads(body)
    return payload


def _parts(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a multipart body, read without harm to line ends."""
    boundary = b"--" + _boundary(content_type)
    parts = {}
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = BytesParser().parsebytes(head + b"\r\n\r\n").get_param("name", header="content-disposition")
        parts[str(name)] = content.removesuffix(b"\r\n")
    return parts


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["Content-Type"] = content_type
    return str(message.get_param("boundary")).encode()


def _summaries(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "values": [
            {"name": name, "valueCurrent": text_of(value), "valueMin": text_of(value), "valueMax": text_of(value)}
            for name, value in values.items()
        ]
    }


def _name(name: str, context: str | None) -> str:
    return f"{context}_{name}" if context else name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
