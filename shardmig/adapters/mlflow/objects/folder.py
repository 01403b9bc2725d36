"""MLflow's own stores over a folder `mlruns`, for reading.

They make folders where they miss some. So they are given a folder of links to what there is, and the source stays as
it is. A store that was moved still names its old place: files are looked for where they are now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from shardmig.adapters.mlflow.artifacts import RunArtifacts
from shardmig.adapters.mlflow.objects.folder_entries import FolderRegistry, FolderTracking
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.source.limits import Artifact
from shardmig.adapters.mlflow.source.wanted import Wanted
from shardmig.records import Scope

NOT_IN_FOLDERS: Final[frozenset[Scope]] = frozenset({"datasets"})
"""What MLflow never stored in folders."""
_ALLOW: Final = "MLFLOW_ALLOW_FILE_STORE"


class FolderStores(Stores):
    """Stores over a folder."""

    links_traces = False

    def __init__(self, root: Path, wanted: Wanted) -> None:
        super().__init__(str(root), None, wanted)
        self._root = root
        self._view = TemporaryDirectory(prefix="shardmig-")
        for entry in root.iterdir():
            Path(self._view.name, entry.name).symlink_to(entry.absolute())

    @cached_property
    def tracking(self) -> Any:
        """As Stores."""
        from mlflow.store.tracking.file_store import FileStore

        with _allowed():
            return FolderTracking(FileStore(self._view.name), self._root)

    @cached_property
    def registry(self) -> Any:
        """As Stores."""
        from mlflow.store.model_registry.file_store import FileStore

        with _allowed():
            return FolderRegistry(FileStore(self._view.name), self._root)

    def artifacts(self, uri: str) -> RunArtifacts:
        """As Stores."""
        return super().artifacts(self._here(uri))

    def files(self, uri: str) -> Iterator[Artifact]:
        """As Stores."""
        return super().files(self._here(uri))

    def close(self) -> None:
        """As Stores."""
        self._view.cleanup()

    def _here(self, uri: str) -> str:
        path = on_this_machine(uri)
        if path is None or path.exists():
            return uri
        ends = (Path(*path.parts[start:]) for start in range(1, len(path.parts)))
        return str(next((self._root / end for end in ends if (self._root / end).exists()), path))


@contextmanager
def _allowed() -> Iterator[None]:
    """MLflow opens folders only where it is told to."""
    before = os.environ.get(_ALLOW)
    os.environ[_ALLOW] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ALLOW]
        else:
            os.environ[_ALLOW] = before
