"""Where the files of a run lie: on a disk, behind the tracking server, or in any store that MLflow knows."""

from __future__ import annotations

import os
import shutil
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.mlflow.s3 import InS3
from shardmig.adapters.mlflow.store import StoredRun
from shardmig.adapters.sidecar.uploads import Artifacts
from shardmig.archive.layout import disk_errors
from shardmig.errors import BadInput, HostilePath, NotFound

PROXY: Final = "/api/2.0/mlflow-artifacts/artifacts/"
_BEHIND_SERVER: Final = "mlflow-artifacts"
_READ_SERVER: Final = "read that instead (--source mlflow http://...)"


class RunArtifacts(Artifacts, Protocol):
    """Artifacts that know whether they lie on this machine."""

    def on_disk(self, path: str) -> Path | None:
        """Where an artifact lies on this machine; None: it must be fetched."""
        ...


def artifacts_of(run: StoredRun, http: HttpClient | None) -> RunArtifacts:
    """The artifacts of a run. `http`: the tracking server, None for a database."""
    return artifacts_at(run.artifact_uri, http)


def artifacts_at(uri: str, http: HttpClient | None) -> RunArtifacts:
    """The files below a URI, of a run or of anything else."""
    if folder := on_this_machine(uri):
        return _OnDisk(folder)
    parts = urlsplit(uri)
    if http is not None and parts.scheme == _BEHIND_SERVER and not parts.netloc:
        return _BehindServer(http, PROXY + unquote(parts.path).strip("/"))
    return InS3(uri) if parts.scheme == "s3" else _InRepository(uri)


def refuse_behind_server(uri: str, http: HttpClient | None) -> None:
    """Raises BadInput for files that only the server of a database has. Which one that is a database does not tell, and
    whichever the environment names may be another: the target of a copy."""
    if http is None and urlsplit(uri).scheme == _BEHIND_SERVER:
        raise BadInput(f"{uri} lies behind the server of this database: {_READ_SERVER}")


class _OnDisk:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, file: Path, path: str) -> None:
        target = self._place(path)
        with disk_errors(f"artifact {path}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = _draft_of(target)
            try:
                shutil.copyfile(file, draft)
                draft.replace(target)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise

    def get(self, path: str, file: Path) -> None:
        with disk_errors(f"artifact {path}"):
            try:
                shutil.copyfile(self._place(path), file)
            except FileNotFoundError as error:
                raise NotFound(f"artifact {path} does not exist") from error

    def on_disk(self, path: str) -> Path | None:
        return self._place(path)

    def _place(self, path: str) -> Path:
        # A manifest lies where others may write: no path in it leads out of the run.
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise HostilePath(f"the artifact path {path!r} leads out of its run")
        return self._root / path


def _draft_of(target: Path) -> Path:
    """Where a file is written before it has its name: who dies meanwhile leaves nothing that looks like a changed artifact.
    Always the same, so that writing again takes it away."""
    name = blake2b(target.name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return target.with_name(f".shardmig-{name}")


class _BehindServer:
    def __init__(self, http: HttpClient, root: str) -> None:
        self._http = http
        self._root = root

    def put(self, file: Path, path: str) -> None:
        with file.open("rb") as content:
            self._http.upload(f"{self._root}/{path}", content, os.fstat(content.fileno()).st_size)

    def get(self, path: str, file: Path) -> None:
        with file.open("wb") as content:
            self._http.download(f"{self._root}/{path}", content)

    def on_disk(self, _: str) -> None:
        return None


class _InRepository:
    """Any other artifact store, through MLflow's own client for it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._repository: Any = None

    def put(self, file: Path, path: str) -> None:
        folder, _, name = path.rpartition("/")
        with TemporaryDirectory(prefix="shardmig-") as temporary, mlflow_errors(f"artifact {path}"):
            named = Path(temporary, name)
            named.symlink_to(file.absolute())
            self._opened().log_artifact(str(named), folder or None)

    def get(self, path: str, file: Path) -> None:
        with TemporaryDirectory(prefix="shardmig-") as temporary, mlflow_errors(f"artifact {path}"):
            Path(self._opened().download_artifacts(path, temporary)).replace(file)

    def on_disk(self, _: str) -> None:
        return None

    def _opened(self) -> Any:
        if self._repository is None:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
            from mlflow.tracking import get_tracking_uri

            is_behind_server = urlsplit(self._uri).scheme == _BEHIND_SERVER
            if is_behind_server and not get_tracking_uri().startswith(("http://", "https://")):
                raise BadInput(f"{self._uri} lies behind a server", hint="give its URI instead of its database's")
            self._repository = get_artifact_repository(self._uri)
        return self._repository
