"""The drive of a teamspace: signed addresses to put files to, in one piece or in parts, and addresses to get them from."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from tests.servers.lightning.store import Refused, Store


class _Upload(msgspec.Struct):
    project: str
    path: str
    parts: dict[int, bytes] = {}


class Drive:
    """Uploads under way, and the files of every teamspace. `wants_completion`: files put in one piece must be
    completed too, else they do not exist."""

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url
        self._uploads: dict[str, _Upload] = {}
        self._pending: dict[tuple[str, str], bytes] = {}
        self.wants_completion = False

    def sign(self, project: str, body: dict[str, Any]) -> dict[str, Any]:
        """Addresses for the files of a request."""
        self._store.teamspace(project)
        if not body.get("cluster_id"):
            raise Refused(400, "cluster_id is required")
        return {"results": [self._signed(project, blob) for blob in body["blobs"]]}

    def complete(self, project: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make files of what was put."""
        drive = self._store.teamspace(project).drive
        for blob in body["blobs"]:
            path = blob["path"]
            if upload := self._uploads.pop(blob.get("upload_id", ""), None):
                numbers = [int(part["part_number"]) for part in blob["parts"]]
                if any(part["etag"] != f'"{part["part_number"]}"' for part in blob["parts"]):
                    raise Refused(400, "a part has another etag")
                drive[path] = b"".join(upload.parts[number] for number in sorted(numbers))
            elif (content := self._pending.pop((project, path), None)) is not None:
                drive[path] = content
            else:
                raise Refused(404, f"nothing was uploaded as {path}")
        return {"results": []}

    def put(self, query: dict[str, str], content: bytes) -> dict[str, str]:
        """Take a file or a part of one; the headers of the answer."""
        if upload := self._uploads.get(query.get("upload", "")):
            upload.parts[int(query["part"])] = content
            return {"ETag": f'"{query["part"]}"'}
        if self.wants_completion:
            self._pending[query["project"], query["path"]] = content
        else:
            self._store.teamspace(query["project"]).drive[query["path"]] = content
        return {"ETag": '"1"'}

    def get(self, project: str, path: str) -> bytes:
        """A file. Raises Refused."""
        content = self._store.teamspace(project).drive.get(path)
        if content is None:
            raise Refused(404, f"{path} not found")
        return content

    def _signed(self, project: str, blob: dict[str, Any]) -> dict[str, Any]:
        path, upload_id = blob["path"], blob.get("upload_id", "")
        numbers = blob.get("part_numbers") or range(1, blob.get("parts", 1) + 1)
        if blob.get("parts", 1) > 1 and not upload_id:
            upload_id = f"upload-{len(self._uploads) + 1}"
            self._uploads[upload_id] = _Upload(project, path)
        place = f"{self._url}/storage?project={project}&path={quote(path, safe='')}&upload={upload_id}"
        urls: list[dict[str, Any]] = [
            {"url": f"{place}&part={number}", "part_number": number, "headers": {}} for number in numbers
        ]
        return {"path": path, "upload_id": upload_id, "urls": urls, "complete_required": self.wants_completion}
