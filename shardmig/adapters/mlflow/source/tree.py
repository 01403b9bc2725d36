"""Which artifacts a run has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from shardmig.adapters.mlflow.artifacts import PROXY
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.refusals import artifact_errors
from shardmig.adapters.mlflow.rest import API
from shardmig.adapters.mlflow.source.limits import Artifact
from shardmig.adapters.mlflow.store import StoredRun
from shardmig.adapters.wrappers import retrying
from shardmig.errors import NotFound


class _Entry(msgspec.Struct):
    path: str
    is_dir: bool = False
    file_size: int | str | None = None

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.path, None if self.file_size is None else int(self.file_size))


class _Listing(msgspec.Struct):
    files: list[_Entry] = []
    next_page_token: str = ""


class _List(Protocol):
    def __call__(self, folder: str) -> Iterator[_Entry]: ...


def artifacts_listed(run: StoredRun, http: HttpClient | None) -> Iterator[Artifact]:
    """All artifacts of a run, sorted within each folder. `http`: the tracking server, None for a database.

    Raises AdapterError classes.
    """
    parts = urlsplit(run.artifact_uri)
    if http is not None:
        yield from _below("", _through_server(run, http))
    elif parts.scheme in ("", "file"):
        root = Path(unquote(parts.path) if parts.scheme else run.artifact_uri)
        yield from _on_disk(root)
    else:
        yield from _below("", _in_repository(run.artifact_uri))


def files_below(uri: str, http: HttpClient | None) -> Iterator[Artifact]:
    """All files below a URI that is no run's, as `artifacts_listed`."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        yield from _on_disk(Path(unquote(parts.path) if parts.scheme else uri))
    else:
        yield from _below("", _far_from(uri, http))


def names_in(uri: str, http: HttpClient | None) -> set[str]:
    """The names of files and folders directly below a URI that is not on this machine's disk."""
    return {entry.path.rpartition("/")[2] for entry in _far_from(uri, http)("")}


def _far_from(uri: str, http: HttpClient | None) -> _List:
    parts = urlsplit(uri)
    if http is not None and parts.scheme == "mlflow-artifacts" and not parts.netloc:
        return _through_proxy(unquote(parts.path).strip("/"), http)
    return _in_repository(uri)


def _below(folder: str, entries_of: _List) -> Iterator[Artifact]:
    for entry in sorted(entries_of(folder), key=lambda entry: entry.path):
        if entry.is_dir:
            yield from _below(entry.path, entries_of)
        else:
            yield entry.artifact


def _through_server(run: StoredRun, http: HttpClient) -> _List:
    def entries(folder: str) -> Iterator[_Entry]:
        query = {"run_id": run.id} | ({"path": folder} if folder else {})
        while True:
            page = retrying(lambda: http.call("GET", f"{API}artifacts/list", _Listing, query))
            yield from page.files
            if not page.next_page_token:
                return
            query["page_token"] = page.next_page_token

    return entries


def _through_proxy(root: str, http: HttpClient) -> _List:
    def entries(folder: str) -> Iterator[_Entry]:
        query = {"path": f"{root}/{folder}".rstrip("/")}
        try:
            found = retrying(lambda: http.call("GET", PROXY.rstrip("/"), _Listing, query))
        except NotFound:
            return iter(())
        return (_Entry(f"{folder}/{one.path}".lstrip("/"), one.is_dir, one.file_size) for one in found.files)

    return entries


def _in_repository(uri: str) -> _List:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with artifact_errors(f"artifacts at {uri}"):
        repository: Any = get_artifact_repository(uri)

    def entries(folder: str) -> Iterator[_Entry]:
        with artifact_errors(f"artifacts below {folder or uri}"):
            found = repository.list_artifacts(folder or None)
        return (_Entry(one.path, bool(one.is_dir), one.file_size) for one in found)

    return entries


def _on_disk(root: Path) -> Iterator[Artifact]:
    for folder, folders, files in os.walk(root, followlinks=False):
        folders.sort()
        for file in (Path(folder) / name for name in sorted(files)):
            yield Artifact(file.relative_to(root).as_posix(), file.lstat().st_size)
