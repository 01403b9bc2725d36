"""Which artifacts a run has. A folder that cannot be listed takes no other with it: what can be listed comes first, then one
error names all that cannot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlparse, urlsplit, urlunparse

import msgspec

from shardmig.adapters.mlflow.artifacts import PROXY, refuse_behind_server
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.refusals import artifact_errors
from shardmig.adapters.mlflow.rest import API
from shardmig.adapters.mlflow.source.limits import Artifact, size_on_disk
from shardmig.adapters.mlflow.store import StoredRun
from shardmig.adapters.wrappers import retrying
from shardmig.errors import BadInput, NotFound, Permanent

_ARTIFACTS: Final = "artifacts"
_NAMED_MOST: Final = 10
"""Folders that one error names; of more it tells the number."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DATABASES: Final = (".db", ".sqlite", ".sqlite3")


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

    Raises AdapterError classes, for single folders once everything else is listed.
    """
    if http is None:
        yield from files_below(run.artifact_uri, None)
    elif urlsplit(run.artifact_uri).scheme == "s3":
        yield from _all(_past_server(_through_server(run, http), run.artifact_uri))
    else:
        yield from _all(_through_server(run, http))


def files_below(uri: str, http: HttpClient | None) -> Iterator[Artifact]:
    """All files below a URI that is no run's, as `artifacts_listed`."""
    if folder := on_this_machine(uri):
        yield from _on_disk(folder)
    else:
        yield from _all(_far_from(uri, http))


def files_in(root: Path) -> Iterator[str]:
    """The paths of all files below a folder of this machine, sorted within each folder; none where there is no folder.
    Raises Permanent as `artifacts_listed`."""
    walk = _Walk(root)
    yield from walk.files()
    _tell(walk.refused)


def names_in(uri: str, http: HttpClient | None) -> set[str]:
    """The names of files and folders directly below a URI that is not on this machine's disk."""
    return {entry.path.rpartition("/")[2] for entry in _far_from(uri, http)("")}


def _far_from(uri: str, http: HttpClient | None) -> _List:
    parts = urlsplit(uri)
    if http is not None and parts.scheme == "mlflow-artifacts" and not parts.netloc:
        return _through_proxy(unquote(parts.path).strip("/"), http)
    refuse_behind_server(uri, http)
    return _in_repository(uri)


def _all(entries_of: _List) -> Iterator[Artifact]:
    refused: list[Permanent] = []
    yield from _below("", entries_of, refused)
    _tell(refused)


def _below(folder: str, entries_of: _List, refused: list[Permanent]) -> Iterator[Artifact]:
    try:
        found = sorted(entries_of(folder), key=lambda entry: entry.path)
    except Permanent as error:
        refused.append(BadInput(f"{folder!r}: {error.message}") if folder else error)
        return
    for entry in found:
        if entry.is_dir:
            yield from _below(entry.path, entries_of, refused)
        else:
            yield entry.artifact


def _tell(refused: Sequence[Permanent]) -> None:
    if len(refused) == 1:
        raise refused[0]
    if refused:
        named = "; ".join(error.message for error in refused[:_NAMED_MOST])
        more = f"; and {len(refused) - _NAMED_MOST} more" if len(refused) > _NAMED_MOST else ""
        raise Permanent(f"{len(refused)} folders: {named}{more}")


def _refuse_misread(path: str) -> None:
    """MLflow's server reads the path in a request as a part of a URI, decoded: it would list a folder of another name, and
    where there is none answer that there are no files (measured, 3.17.2). Raises BadInput."""
    if urlunparse(urlparse(unquote(path))) != path or _CONTROL.search(path):
        raise BadInput("MLflow's server takes the name for another one, so it cannot list the folder")


def _past_server(through: _List, uri: str) -> _List:
    """What the server cannot list, where the files lie."""

    def entries(folder: str) -> Iterator[_Entry]:
        try:
            return iter(list(through(folder)))
        except Permanent:
            if not folder:
                raise
            return _in_repository(uri)(folder)

    return entries


def _through_server(run: StoredRun, http: HttpClient) -> _List:
    def entries(folder: str) -> Iterator[_Entry]:
        _refuse_misread(folder)
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
        _refuse_misread(query["path"])
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
    try:
        os.stat(root)
    except FileNotFoundError:
        _refuse_elsewhere(root)
        return
    except OSError as error:
        raise Permanent(f"{root} cannot be listed: {error.strerror}") from error
    yield from (Artifact(path, size_on_disk(root / path)) for path in files_in(root))


def _refuse_elsewhere(root: Path) -> None:
    """Raises NotFound for a folder that is missing because its files lie on another machine, or on a disk that is not here.

    A missing folder alone means that there are no files: MLflow makes `<store>/<experiment>/<run>/artifacts` with the first
    file of a run, and so the folder of an experiment and the store itself. One of them that is here shows that the others
    never were. Where not even the store is here, nothing was ever put into it, or it is elsewhere. The first is believed
    where MLflow would have made it beside its database, as it does by default; a path that is not absolute was one in a
    folder that nobody knows. What is no folder of MLflow's own (the source of a model version) is to lie in one that is
    here.
    """
    around = _around(root)
    if any(map(os.path.isdir, around)) or (not root.is_absolute() and root.name != _ARTIFACTS):
        return
    if root.is_absolute() and root.name == _ARTIFACTS and around and _has_database(around[-1].parent):
        return
    raise NotFound(
        f"{root} is not on this machine, nor is the folder {around[-1] if around else root} around it: read where its files"
        " are; if there never were any, make that folder"
    )


def _around(root: Path) -> Sequence[Path]:
    """The folders around one of artifacts, up to the one that holds experiments."""
    if root.name != _ARTIFACTS:
        return root.parents[:1]
    is_object = len(root.parents) > 1 and root.parents[1].name in ("models", "traces")
    return root.parents[: 4 if is_object else 3]


def _has_database(folder: Path) -> bool:
    try:
        return any(name.endswith(_DATABASES) for name in os.listdir(folder))
    except OSError:
        return False


class _Walk:
    """Through the folders below one. `refused`: those that cannot be listed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.refused: list[Permanent] = []

    def files(self, path: str = "", followed: tuple[str, ...] = ()) -> Iterator[str]:
        """The paths of all files below one. `followed`: where on the way there links stand that were followed."""
        folder = self._root / path
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if path or not isinstance(error, FileNotFoundError):
                self.refused.append(Permanent(f"{folder} cannot be listed: {error.strerror}"))
            return
        is_folder = [_is_folder(entry) for entry in found]
        yield from (f"{path}{entry.name}" for entry in compress(found, map(not_, is_folder)))
        for entry in compress(found, is_folder):
            if not entry.is_symlink():
                yield from self.files(f"{path}{entry.name}/", followed)
            elif not self._leads_back(entry, places := (*followed, os.path.realpath(folder))):
                yield from self.files(f"{path}{entry.name}/", places)

    def _leads_back(self, link: os.DirEntry[str], places: tuple[str, ...]) -> bool:
        """Into a folder that we are in? What is there has been listed, unless it lies around all that is."""
        to = os.path.realpath(link.path)
        if to != (root := os.path.realpath(self._root)) and _is_within(root, to):
            self.refused.append(Permanent(f"{link.path} is a link to a folder around it"))
            return True
        return any(_is_within(place, to) for place in places)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: fails where it is read
        return False
