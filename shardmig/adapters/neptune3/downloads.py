"""Files: signed addresses from the server, contents from its object store, several at a time, straight into the sink."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune3.client import Client
from shardmig.adapters.neptune3.points import FilePoint
from shardmig.adapters.neptune3.protocol import body
from shardmig.adapters.neptune3.refusals import network_errors, refusal
from shardmig.adapters.neptune3.survey import is_answered_for
from shardmig.adapters.neptune_server import BRIEF, ServerError
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import AdapterError, BadInput, NotFound, Permanent, Unavailable
from shardmig.records import FileRef, Finding, RunRef

_BLOCK_BYTES: Final = 1 << 18
_ANY_CONTENT: Final = "application/octet-stream"
_NEW_ADDRESSES: Final = 3
_EXPIRED: Final = (400, 401, 403)
"""What object stores answer to an address whose signature has expired: GCS and S3 400 or 403, Azure 403."""


_NOT_THERE: Final = (b"NoSuchKey", b"No such object", b"BlobNotFound")
"""How S3 and GCS, GCS's JSON API, and Azure say that they do not have an object."""


class Downloads:
    """Fetches the files of one run into a sink."""

    def __init__(self, client: Client, run: RunRef, sink: FileSink, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._run = run
        self._sink = sink
        self._threads = threads
        self._patience: RetryPolicy | None = None

    def fetch(self, files: Sequence[FilePoint]) -> tuple[list[FileRef], list[Finding]]:
        """All that can be had of these files, in their order, and what must be told about the others."""
        addresses = self._sign_together([file.facts.location for file in files])
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
                if not is_answered_for(self._client, self._run):
                    error.field = file.path
                    raise
                self._patience = BRIEF  # it fails at some files of this run: nothing to wait for
                findings.append(Finding("loss", "file-refused", file.path, 1, error.message))
            else:
                stored.append(ref)
                findings += _remarks(file, ref)
        return stored, findings

    def _fetch_one(self, file: FilePoint, addresses: dict[str, str]) -> FileRef:
        """A few new addresses are asked for; a store that refuses them too refuses the file. One that is shorter than it
        was logged is fetched once more: something on the way may have ended it early, as if it were whole."""
        chances = iter(range(_NEW_ADDRESSES))
        sizes: set[int] = set()

        def fetch() -> FileRef:
            stored = self._store(file, addresses, chances)
            if stored.size_bytes < file.facts.size_bytes and stored.size_bytes not in sizes:
                sizes.add(stored.size_bytes)
                raise Unavailable(f"file {file.path!r} of {self._run.label} is shorter than it was logged")
            return stored

        return self._client.patiently(fetch, self._patience)

    def _store(self, file: FilePoint, addresses: dict[str, str], chances: Iterator[int]) -> FileRef:
        what = f"file {file.path!r} of {self._run.label}"
        location = file.facts.location
        url = addresses.pop(location, "") or self._address(location)
        with self._client.stream(url, what) as response:
            if response.status_code in _EXPIRED and next(chances, None) is not None:
                raise Unavailable(f"{what}: the object store answers {response.status_code}, a new address is needed")
            if response.status_code != 200:
                raise _store_error(what, response.status_code, response.read(), response.headers)
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

    def _sign_together(self, locations: Sequence[str]) -> dict[str, str]:
        """Where the server refuses some of them, each file asks for its own address, so that none costs another."""
        try:
            return self._sign(locations)
        except (Permanent, ServerError):
            return {}

    def _address(self, location: str) -> str:
        """Raises BadInput where the server gives none: that says nothing about what the object store has."""
        try:
            url = self._sign([location]).get(location)
        except NotFound as error:
            raise BadInput(error.message) from error
        if not url:
            raise BadInput(f"the server signs no address for {location!r}")
        return url

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
        return {file.path: file.url for file in response.parsed.files} if response.parsed is not None else {}


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


def _store_error(what: str, status: int, content: bytes, headers: Mapping[str, str]) -> AdapterError:
    """What an object store's answer other than 200 means. A 404 that does not say that the object is not there comes from
    something else: a bucket that is gone, a proxy that knows no store."""
    error = refusal(what, status, content, headers)
    is_gone = any(word in content for word in _NOT_THERE)
    return error if is_gone or not isinstance(error, NotFound) else BadInput(error.message)


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
