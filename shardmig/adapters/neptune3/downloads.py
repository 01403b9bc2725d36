"""Files: signed addresses from the server, contents from its object store, several at a time, straight into the sink."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune3.client import Client
from shardmig.adapters.neptune3.points import FilePoint
from shardmig.adapters.neptune3.protocol import body
from shardmig.adapters.neptune3.refusals import network_errors, refusal
from shardmig.adapters.neptune_server import ServerError
from shardmig.errors import NotFound, Permanent, Unavailable
from shardmig.records import FileRef, Finding, RunRef

_BLOCK_BYTES: Final = 1 << 18
_ANY_CONTENT: Final = "application/octet-stream"
_NEW_ADDRESSES: Final = 3
_EXPIRED: Final = (400, 401, 403)
"""What object stores answer to an address whose signature has expired: GCS and S3 400 or 403, Azure 403."""


class Downloads:
    """Fetches the files of one run into a sink."""

    def __init__(self, client: Client, run: RunRef, sink: FileSink, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._run = run
        self._sink = sink
        self._threads = threads

    def fetch(self, files: Sequence[FilePoint]) -> tuple[list[FileRef], list[Finding]]:
        """All that can be had of these files, in their order, and what must be told about the others."""
        addresses = self._sign([file.facts.location for file in files])
        stored: list[FileRef] = []
        findings: list[Finding] = []
        for file, future in [(file, self._threads.submit(self._fetch_one, file, addresses)) for file in files]:
            try:
                ref = future.result()
            except NotFound as error:
                findings.append(Finding("gap", "file-not-stored", file.path, 1, error.message))
            except Permanent as error:
                findings.append(Finding("loss", "file-refused", file.path, 1, error.message))
            except ServerError as error:
                error.field = file.path
                raise
            else:
                stored.append(ref)
                findings += _remarks(file, ref)
        return stored, findings

    def _fetch_one(self, file: FilePoint, addresses: dict[str, str]) -> FileRef:
        """A few new addresses are asked for; a store that refuses them too refuses the file."""
        chances = iter(range(_NEW_ADDRESSES))
        return self._client.patiently(lambda: self._store(file, addresses, chances))

    def _store(self, file: FilePoint, addresses: dict[str, str], chances: Iterator[int]) -> FileRef:
        what = f"file {file.path!r} of {self._run.label}"
        location = file.facts.location
        url = addresses.pop(location, "") or self._sign([location])[location]
        with self._client.stream(url, what) as response:
            if response.status_code in _EXPIRED and next(chances, None) is not None:
                raise Unavailable(f"{what}: the object store answers {response.status_code}, a new address is needed")
            if response.status_code != 200:
                raise refusal(what, response.status_code, response.read(), response.headers)
            content = cast("BinaryIO", io.BufferedReader(_Body(response, what), _BLOCK_BYTES))
            return self._sink.put(
                self._run,
                file.path,
                file.type,
                content,
                name=_name(file),
                step=file.step,
                time_ms=file.time_ms,
            )

    def _sign(self, locations: Sequence[str]) -> dict[str, str]:
        asked = [
            {"path": location, "project_identifier": self._run.project, "permission": "read"}
            for location in dict.fromkeys(locations)
        ]
        response = self._client.post(
            f"addresses of files of {self._run.label}",
            "storage.signed_url_generic",
            body=body("CreateSignedUrlsRequest", {"files": asked}),
        )
        signed = {file.path: file.url for file in response.parsed.files} if response.parsed is not None else {}
        if missing := [one["path"] for one in asked if one["path"] not in signed]:
            raise Unavailable(f"the server signed no address for {missing[0]!r}")
        return signed


class _Body(io.RawIOBase):
    """A response as a file that can be read once. Raises AdapterError classes."""

    def __init__(self, response: Any, what: str) -> None:
        super().__init__()
        self._blocks: Iterator[bytes] = response.iter_bytes(_BLOCK_BYTES)
        self._what = what
        self._rest = b""

    def readable(self) -> bool:
        """As RawIOBase."""
        return True

    def readinto(self, target: Any) -> int:
        """As RawIOBase."""
        if not self._rest:
            with network_errors(self._what):
                self._rest = next(self._blocks, b"")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _name(file: FilePoint) -> str:
    """The file's own name: the last part of its place in the store, with an extension by its content type if it has
    none."""
    name = PurePosixPath(file.facts.location.replace("\\", "/")).name or "file"
    if PurePosixPath(name).suffix or file.facts.mime_type in ("", _ANY_CONTENT):
        return name
    return name + (mimetypes.guess_extension(file.facts.mime_type) or "")


def _remarks(file: FilePoint, ref: FileRef) -> Iterator[Finding]:
    facts = file.facts
    if facts.size_bytes != ref.size_bytes:
        detail = f"{ref.size_bytes} bytes, {facts.size_bytes} when logged"
        yield Finding("note", "file-changed", file.path, 1, detail)
    if facts.mime_type not in ("", _ANY_CONTENT, mimetypes.guess_type(ref.name)[0]):
        yield Finding("note", "mime-type", file.path, 1, facts.mime_type)
