"""The folder of one run in an artifact store: its files lie there as they are, under names that people can read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from shardmig.archive.layout import disk_error
from shardmig.errors import Denied, DiskFull, NotFound, Unavailable


class FileSystem(Protocol):
    """What is used of ZenML's artifact stores: local folders, S3, Google Cloud Storage, Azure …"""

    @property
    def path(self) -> str:
        """Where it begins."""
        ...

    def open(self, path: str, mode: str = "r") -> Any:
        """A file."""
        ...

    def exists(self, path: str) -> bool:
        """Is there something?"""
        ...

    def isdir(self, path: str) -> bool:
        """Is it a folder?"""
        ...

    def makedirs(self, path: str) -> None:
        """Make a folder and those above it."""
        ...

    def rmtree(self, path: str) -> None:
        """Remove a folder."""
        ...

    def walk(self, top: str) -> Any:
        """(folder, folders, files), as os.walk."""
        ...


class Folder:
    """`Artifacts` of one run below `uri`. Files come and go in blocks."""

    def __init__(self, system: FileSystem, uri: str) -> None:
        self._system = system
        self.uri = uri

    def put(self, file: Path, path: str) -> None:
        """As Artifacts."""
        there = self.uri_of(path)
        with _store_errors(there), file.open("rb") as content:
            self._system.makedirs(there.rpartition("/")[0])
            with self._opened(there, "wb") as stored:
                shutil.copyfileobj(content, stored, 1 << 20)

    def get(self, path: str, file: Path) -> None:
        """As Artifacts."""
        there = self.uri_of(path)
        with _store_errors(there), self._opened(there, "rb") as stored, file.open("wb") as copy:
            shutil.copyfileobj(stored, copy, 1 << 20)

    def files(self) -> list[str]:
        """The paths of all files below, sorted; "" when `uri` is itself a file. Raises NotFound."""
        with _store_errors(self.uri):
            if not self._system.exists(self.uri):
                raise NotFound(f"{self.uri} is not in the artifact store")
            if not self._system.isdir(self.uri):
                return [""]
            found = [f"{top}/{file}" for top, _, files in self._system.walk(self.uri) for file in files]
        return sorted(os.path.relpath(file, self.uri).replace(os.sep, "/") for file in found)

    def remove(self) -> None:
        """Remove all of it; idempotent."""
        with _store_errors(self.uri):
            if self._system.exists(self.uri):
                self._system.rmtree(self.uri)

    def uri_of(self, path: str) -> str:
        """Where a file lies; "" is the folder itself."""
        return f"{self.uri}/{path}" if path else self.uri

    @contextmanager
    def _opened(self, uri: str, mode: str) -> Iterator[IO[bytes]]:
        with self._system.open(uri, mode) as stream:
            yield stream


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Raises NotFound, Denied, DiskFull, Unavailable."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{uri} is not in the artifact store") from error
    except PermissionError as error:
        raise Denied(f"{uri}: {error.strerror or error}") from error
    except OSError as error:
        reason = disk_error(uri, error)
        raise reason if isinstance(reason, DiskFull) else Unavailable(f"{uri}: {error}") from error
