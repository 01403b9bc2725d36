"""Files: streamed from the server into the sink, by several threads at once. Each call stores one file and may be
repeated; a file that broke off is fetched again from its beginning."""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple, cast

import msgspec

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune2.attributes import ArtifactFacts, FileFacts, Locator, Read
from shardmig.adapters.neptune2.connection import Connection
from shardmig.adapters.neptune_server import ServerError
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import BadInput, NotFound, TimedOut
from shardmig.records import FileRef, RunRef

_ZIP_DEADLINE_S: Final = 1800.0
_LONGEST_POLL_S: Final = 5.0
_BLOCK: Final = 1 << 20


class _Download(msgspec.Struct, rename="camel"):
    id: str
    download_url: str | None = None


class _Count(msgspec.Struct, rename="camel"):
    total_item_count: int


class _ArtifactFile(msgspec.Struct, rename="camel"):
    """In Neptune's spelling, which is also that of neptune-exporter's files_list.json."""

    file_path: str
    file_hash: str | None = None
    type: str | None = None
    size: int | None = None
    metadata: list[dict[str, str | None]] | None = []


class _ArtifactFiles(msgspec.Struct):
    files: list[_ArtifactFile]


def count_images(connection: Connection, entity: str, path: str) -> int:
    """How many images a series has."""
    query: dict[str, Any] = {"experimentId": entity, "attribute": path, "limit": 1, "offset": 0}
    reply: _Count = connection.ask("getImageSeriesValues", _Count, **query)
    return reply.total_item_count


class RunFiles(NamedTuple):
    """The files of one entity."""

    connection: Connection
    run: RunRef
    at: Locator
    sink: FileSink

    def store(self, read: Read) -> FileRef:
        """A file, a file set or the listing of an artifact."""
        if read.type == "file_set":
            return self.connection.patiently(lambda: self._file_set(read.path))
        if isinstance(read.known, ArtifactFacts):
            return self._artifact(read.path, read.known.hash)
        known, sizes = cast("FileFacts", read.known), set[int]()
        return self.connection.patiently(lambda: self._file(read.path, known, sizes))

    def ask_for_run(self) -> None:
        """Is the server well, and does it know the run? Raises AdapterError otherwise."""
        self.connection.ask("getExperiment", msgspec.Raw, experimentId=self.at.entity)

    def store_image(self, path: str, index: int, step: Decimal, patience: RetryPolicy | None = None) -> FileRef:
        """One image of a series. The server tells neither its step nor its time."""

        def fetch() -> FileRef:
            query = {"experimentId": self.at.entity, "attribute": path, "index": index}
            with self.connection.download("getImageSeriesValue", **query) as body:
                name = f"{index}.{body.content_type.rpartition('/')[2] or 'png'}"
                return self.sink.put(self.run, path, "file_series", cast("BinaryIO", body), name=name, step=step)

        return self.connection.patiently(fetch, patience)

    def _file(self, path: str, known: FileFacts, sizes: set[int]) -> FileRef:
        """A proxy may end an answer early as if it were whole, or answer itself. `sizes`: what came instead of the size
        that the server tells; the same one again will come always."""
        name = path.rpartition("/")[2]
        if known.ext and not name.endswith(f".{known.ext}"):
            name = f"{name}.{known.ext}"
        with self.connection.download("downloadAttribute", experimentId=self.at.entity, attribute=path) as body:
            stored = self.sink.put(self.run, path, "file", cast("BinaryIO", body), name=name)
        if known.size and stored.size_bytes < known.size:
            told = f"{path!r} has {known.size} bytes, of which the server gives {stored.size_bytes}"
            if stored.size_bytes in sizes:
                raise BadInput(told, field=path)
            sizes.add(stored.size_bytes)
            raise ServerError(told, field=path)
        return stored

    def _artifact(self, path: str, hash_: str | None) -> FileRef:
        if not hash_:
            raise NotFound("the artifact has no hash", field=path)
        query: dict[str, Any] = {"projectIdentifier": self.at.project, "hash": hash_}
        listed: _ArtifactFiles = self.connection.ask("listArtifactFiles", _ArtifactFiles, **query)
        content = io.BytesIO(msgspec.json.encode(listed.files))
        return self.sink.put(self.run, path, "artifact", content, name="files_list.json")

    def _file_set(self, path: str) -> FileRef:
        with tempfile.TemporaryFile(prefix="shardmig-neptune2-") as packed:
            with self.connection.download_url(self._zip_url(path)) as body:
                while block := body.read(_BLOCK):
                    packed.write(block)
            try:
                with zipfile.ZipFile(packed) as archive:
                    return self.sink.put_tree(self.run, path, "file_set", _members(archive))
            except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
                raise ServerError(f"the zip of {path!r} is damaged: {error}", field=path) from error

    def _zip_url(self, path: str) -> str:
        """Where the zip lies, once the server has made it."""
        query: dict[str, Any] = {"experimentId": self.at.entity, "attribute": path}
        download: _Download = self.connection.ask("prepareForDownloadFileSetAttributeZip", _Download, **query)
        deadline = time.monotonic() + _ZIP_DEADLINE_S
        pause_s = 0.05
        while download.download_url is None:
            if time.monotonic() > deadline:
                raise TimedOut(f"the zip of {path!r} was not made in time", field=path)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_POLL_S)
            download = self.connection.ask("getDownloadPrepareRequest", _Download, id=download.id)
        return download.download_url


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, BinaryIO]]:
    """Files by name; the zip has entries for its folders too, one of them named "/". The client uploads a folder's files
    as ./name."""
    for entry in sorted(archive.infolist(), key=lambda one: one.filename):
        if not entry.is_dir():
            with archive.open(entry) as content:
                yield PurePosixPath(entry.filename).as_posix(), cast("BinaryIO", content)
