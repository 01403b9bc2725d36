"""Files of one run on their way to the target."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from shardmig.adapters.wrappers import retrying


class ArtifactSink(Protocol):
    """Where the artifacts of one run go, by their path in it. Safe to use from several threads."""

    def put(self, file: Path, path: str) -> None:
        """Store a file; one that is there is replaced."""
        ...


class ArtifactStore(Protocol):
    """Where the artifacts of one run come from, by their path in it."""

    def get(self, path: str, file: Path) -> None:
        """Copy an artifact to a new local file. Raises NotFound."""
        ...


class Artifacts(ArtifactSink, ArtifactStore, Protocol):
    """The artifacts of one run, both ways."""


class Uploads:
    """Files of one run on their way up, several at a time."""

    def __init__(self, artifacts: ArtifactSink, workers: int) -> None:
        self._artifacts = artifacts
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="artifacts")
        self._most = 4 * workers
        self._pending: list[Future[None]] = []

    def add(self, file: Path, path: str, *, then_delete: bool = False) -> None:
        """Send a file. Waits while many are on their way. Raises what an earlier one raised."""
        if len(self._pending) >= self._most:
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(self._put, file, path, then_delete))

    def wait(self) -> None:
        """Return when all have arrived. Raises what the first failing one raised."""
        while self._pending:
            self._pending.pop(0).result()

    def close(self) -> None:
        """Give up what has not begun; idempotent."""
        self._pool.shutdown(cancel_futures=True)

    def _put(self, file: Path, path: str, then_delete: bool) -> None:
        retrying(lambda: self._artifacts.put(file, path))
        if then_delete:
            file.unlink()
