"""The files of an experiment: in its folder on the drive of its teamspace, and listed with it.

Speaks the protocol of lightning-sdk's uploader (signed addresses, in parts above 100 MB, completion where it is asked
for) with our own patience: the SDK's does not obey Retry-After, knows no budget, and takes its credentials from the
environment only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

import msgspec

from shardmig.adapters.litlogger.answers import Signed, Stream, Upload, Uploads
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.wrappers import retrying
from shardmig.archive.layout import disk_errors
from shardmig.errors import AuthFailed, BadInput, Denied, HostilePath, Unavailable

PART_BYTES: Final = 100 * 1024 * 1024
MOST_PARTS: Final = 10_000
_BLOCK_BYTES: Final = 1 << 20


class Drive:
    """Artifacts of one experiment, by their path in it. Safe to use from several threads.

    `is_new`: nothing is listed yet. `part_bytes`: files longer than this go up in parts of this size.
    """

    def __init__(
        self, cloud: Cloud, stream: Stream, cluster: str, *, is_new: bool = False, part_bytes: int = PART_BYTES
    ) -> None:
        self._cloud = cloud
        self._stream = stream
        self._cluster = stream.cluster_id or cluster
        self._blobs = f"/v1/projects/{stream.project_id}/artifacts/blobs"
        self._part_bytes = part_bytes
        self._shown: set[str] | None = set() if is_new else None

    def put(self, file: Path, path: str) -> None:
        """Store a file, in place of one that is there, and list it."""
        if self._shown is None:
            self._shown = set(self._cloud.artifacts(self._stream))
        self.put_on_drive(file, self.place(path))
        if path not in self._shown:
            self._cloud.add_artifact(self._stream, path)
            self._shown.add(path)

    def get(self, path: str, file: Path) -> None:
        """Copy an artifact to a new local file. Raises NotFound."""
        self.get_from_drive(self.place(path), file, self._cluster)

    def place(self, path: str) -> str:
        """Where an artifact lies on the drive."""
        return f"experiments/{self._stream.name}/{path}"

    def get_from_drive(self, place: str, file: Path, cluster: str) -> None:
        """Copy any file of the drive to a new local file. Raises NotFound, and HostilePath for an address that would lead
        to another part of the API: whoever may write to an experiment names its files."""
        if {"", ".", ".."} & set(place.split("/")):
            raise HostilePath(f"{place!r} is no path of a file on a drive")
        query = f"?clusterId={quote(cluster)}" if cluster else ""
        url = f"{self._cloud.url}{self._blobs}/{quote(place)}{query}"

        def attempt() -> None:
            with self._cloud.asked("GET", url, self._cloud.headers) as answer, file.open("wb") as content:
                for block in answer.stream(_BLOCK_BYTES):
                    with disk_errors(f"artifact {place}"):
                        content.write(block)

        retrying(attempt, limit=self._cloud.budget)

    def put_on_drive(self, file: Path, place: str) -> None:
        """Store any file of the drive, in place of one that is there."""
        size_bytes = file.stat().st_size
        part_bytes = max(self._part_bytes, -(-size_bytes // MOST_PARTS))
        parts = max(1, -(-size_bytes // part_bytes))
        wanted: dict[str, Any] = {"path": place}
        if parts > 1:
            wanted |= {"parts": parts, "part_size": part_bytes}
        upload = self._signed(wanted)
        done = [
            {
                "part_number": int(signed.part_number),
                "etag": self._put_part(file, wanted, upload, signed, part_bytes),
            }
            for signed in upload.urls
        ]
        if upload.upload_id or upload.complete_required:
            blob = {"path": place} | ({"upload_id": upload.upload_id, "parts": done} if upload.upload_id else {})
            self._post(f"{self._blobs}/complete", blob)

    def _put_part(self, file: Path, wanted: dict[str, Any], upload: Upload, signed: Signed, part_bytes: int) -> str:
        """Send one part; its tag. An address that has expired is signed anew."""
        number = int(signed.part_number)
        fresh = [signed]

        def attempt() -> str:
            address = fresh.pop() if fresh else self._signed_again(wanted, upload, number)
            with file.open("rb") as content:
                content.seek((number - 1) * part_bytes)
                size_bytes = min(part_bytes, os.fstat(content.fileno()).st_size - content.tell())
                headers = dict(address.headers or {}) | {"Content-Length": str(size_bytes)}
                try:
                    with self._cloud.asked("PUT", address.url, headers, _Part(content, size_bytes)) as answer:
                        answer.read()
                        return str(answer.headers.get("ETag") or "")
                except (AuthFailed, Denied) as error:  # how a storage refuses an address that was signed too long ago
                    raise Unavailable(f"{file.name}: {error.message}") from error

        return retrying(attempt)

    def _signed_again(self, wanted: dict[str, Any], upload: Upload, number: int) -> Signed:
        if upload.upload_id:
            wanted = {"path": wanted["path"], "upload_id": upload.upload_id, "part_numbers": [number]}
        return self._signed(wanted).urls[0]

    def _signed(self, wanted: dict[str, Any]) -> Upload:
        results = msgspec.json.decode(self._post(self._blobs, wanted), type=Uploads).results
        if len(results) != 1 or not results[0].urls:
            raise BadInput(f"Lightning gives no address to put {wanted['path']} to")
        return results[0]

    def _post(self, place: str, blob: dict[str, Any]) -> bytes:
        body = msgspec.json.encode({"blobs": [blob], "cluster_id": self._cluster})
        headers = self._cloud.headers | {"Content-Type": "application/json"}

        def attempt() -> bytes:
            with self._cloud.asked("POST", self._cloud.url + place, headers, body) as answer:
                return bytes(answer.read())

        return retrying(attempt, limit=self._cloud.budget)


class _Part:
    """The next bytes of a file, as urllib3 reads a body."""

    def __init__(self, content: IO[bytes], size_bytes: int) -> None:
        self._content = content
        self._left = size_bytes

    def read(self, size_bytes: int = -1) -> bytes:
        size_bytes = self._left if size_bytes < 0 else min(size_bytes, self._left)
        block = self._content.read(size_bytes)
        self._left -= len(block)
        return block
