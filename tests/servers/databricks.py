"""What Databricks answers beside MLflow's own API, in front of a real MLflow server, which answers everything else.

Permissions and notebooks, in the shapes of Databricks' REST reference (permissions, workspace/export) and of the requests of
mlflow-export-import, which was used against it. Nobody compared this with Databricks itself.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.in_front import Forwarding, InFront
from tests.servers.mlflow import MlflowServer

LEVELS = {"permission_levels": [{"permission_level": "CAN_READ", "description": "may read"}]}
_OWN = ("/api/2.0/permissions/", "/api/2.0/workspace/", "/api/2.0/mlflow/databricks/")


class Workspace(InFront):
    """One workspace. `acls`: what kind/id answers with; `notebooks`: (path, revision) → {format: content}."""

    def __init__(self, mlflow: MlflowServer) -> None:
        super().__init__(mlflow, _Exchange)
        self.acls: dict[str, dict[str, Any]] = {}
        self.model_ids: dict[str, str] = {}
        self.notebooks: dict[tuple[str, str], dict[str, bytes]] = {}
        self.asked_of_databricks = 0


class _Exchange(Forwarding):
    server: Workspace

    def answer(self) -> None:
        body = self.body()
        parts = urlsplit(self.path)
        if not parts.path.startswith(_OWN):
            self.forward(body)
            return
        self.server.asked_of_databricks += 1
        found = self._found(parts.path, parse_qs(parts.query), body)
        if found is None:
            told = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{parts.path} does not exist."}
            self.send(404, json.dumps(told).encode())
        else:
            self.send(200, found)

    def _found(self, path: str, query: dict[str, list[str]], body: bytes) -> bytes | None:
        if path == "/api/2.0/workspace/export":
            asked = json.loads(body)
            key = (asked["path"], asked.get("revision", {}).get("revision_timestamp", ""))
            return self.server.notebooks.get(key, {}).get(asked["format"])
        if path == "/api/2.0/mlflow/databricks/registered-models/get":
            [name] = query["name"]
            found = self.server.model_ids.get(name)
            return None if found is None else json.dumps({"registered_model_databricks": {"id": found}}).encode()
        name = path.removeprefix("/api/2.0/permissions/")
        acl = self.server.acls.get(name.removesuffix("/permissionLevels"))
        if acl is None:
            return None
        return json.dumps(LEVELS if name.endswith("/permissionLevels") else acl).encode()
