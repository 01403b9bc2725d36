"""One run that MLflow has of its own, as chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.mlflow import native
from shardmig.adapters.mlflow.artifacts import RunArtifacts
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.source.databricks import Databricks, Notebook
from shardmig.adapters.mlflow.source.limits import FileLimit, LeftOut, size_on_disk
from shardmig.adapters.mlflow.source.tree import artifacts_listed
from shardmig.adapters.mlflow.store import Experiment, ReadStore, StoredRun
from shardmig.adapters.wrappers import retrying
from shardmig.errors import Permanent
from shardmig.records import Fields, FileRef, Files, Finding, FloatPoints, RunRef, Steps
from shardmig.selection import Matcher

FIELDS_IN_CHUNK: Final = 5_000
FILES_IN_CHUNK: Final = 50
FETCHERS: Final = 4
"""Artifacts of one run that come down at the same time; twice as many wait on the disk for their turn."""


class Reading:
    """One run as chunks. Memory: one chunk, and one artifact's block."""

    limit = FileLimit()
    """Which artifacts are read."""
    folder = native.ARTIFACTS
    """Of their fields."""
    passed_over: Container[str] = frozenset()
    """Artifacts that are not read: their paths, and folders at the top with a slash behind their names."""

    def __init__(
        self,
        run: RunRef,
        stored: StoredRun,
        experiment: Experiment,
        want: Want,
        staging: Path,
        notebooks: Iterable[Notebook] = (),
    ) -> None:
        """`notebooks`: read beside the artifacts."""
        self._run = run
        self._stored = stored
        self._experiment = experiment
        self._want = want
        self._matcher = Matcher(want.selection)
        self._staging = staging
        self._numbers = count()
        self._notebooks = {native.ARTIFACTS + one.name: one for one in notebooks}
        self.findings: list[Finding] = []

    def fields(self) -> Iterator[Fields]:
        """The scalar fields, sorted."""
        found = native.run_fields(self._stored, self._experiment)
        wanted = [field for field in found if self._matcher.wants_field(field.path, field.type)]
        wanted.sort(key=lambda field: (field.path, field.type))
        for start in range(0, len(wanted), FIELDS_IN_CHUNK):
            yield Fields(wanted[start : start + FIELDS_IN_CHUNK])

    def files(self, artifacts: RunArtifacts, http: HttpClient | None, sink: FileSink) -> Iterator[Files]:
        """The artifacts, as they are listed."""
        refs: list[FileRef] = []
        left_out = LeftOut(self.limit, self.folder)
        for path, fetched in self._fetched(self._artifact_paths(http, left_out), artifacts):
            field = self.folder + path
            if self._notebooks.pop(field, None) is not None:
                self._not_read(field, "the run has an artifact of that name")
            try:
                local = fetched.result()
                if left_out.takes(path, size_on_disk(local)):
                    refs.append(sink.put(self._run, field, "file", local, name=path.rpartition("/")[2]))
                if local.parent == self._staging:
                    local.unlink()
            except Permanent as error:
                self.findings.append(Finding("loss", "artifact-unreadable", field, detail=error.message))
            if len(refs) == FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)
        self.findings += left_out.findings()

    def notebooks(self, http: HttpClient, sink: FileSink) -> Iterator[Files]:
        """The notebooks, behind the artifacts and among them. What does not come is a loss: it was asked for."""
        workspace = Databricks(http)
        for field, notebook in self._notebooks.items():
            if not self._matcher.wants_field(field, "file"):
                continue
            local = self._staging / str(next(self._numbers))
            try:
                retrying(lambda notebook=notebook, local=local: workspace.fetch(notebook, local))  # type: ignore[misc]
            except Permanent as error:
                self._not_read(field, error.message)
                continue
            yield Files([sink.put(self._run, field, "file", local, name=notebook.name.rpartition("/")[2])])
            local.unlink()

    def points(self, store: ReadStore) -> Iterator[FloatPoints]:
        """All points of the metrics, sorted by key."""
        keys = sorted(
            key for key in self._stored.metric_keys if self._matcher.wants_field(native.METRICS + key, "float_series")
        )
        for metrics in store.history(self._stored, keys, self._want.chunk_points):
            if len(metrics):
                paths = [native.METRICS + key for key in metrics.keys]
                points = FloatPoints(paths, metrics.lengths, Steps(metrics.steps), metrics.times_ms, metrics.values)
                yield from _bounded(points, self._want.chunk_points)

    def _not_read(self, notebook: str, why: str) -> None:
        self.findings.append(Finding("loss", "notebook-not-read", notebook, detail=why))

    def _artifact_paths(self, http: HttpClient | None, left_out: LeftOut) -> Iterator[str]:
        if "files" not in self._want.selection.classes:
            return
        try:
            for path, size_bytes in artifacts_listed(self._stored, http):
                is_known = path in self.passed_over or f"{path.partition('/')[0]}/" in self.passed_over
                is_wanted = not is_known and self._matcher.wants_field(self.folder + path, "file")
                if is_wanted and left_out.takes(path, size_bytes):
                    yield path
        except Permanent as error:
            self.findings.append(left_out.unlisted(error.message))

    def _fetched(self, paths: Iterable[str], artifacts: RunArtifacts) -> Iterator[tuple[str, Future[Path]]]:
        """The artifacts as local files, in order, some of them fetched ahead."""
        ahead: deque[tuple[str, Future[Path]]] = deque()
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="artifacts") as pool:
            try:
                for path in paths:
                    ahead.append((path, pool.submit(self._fetch, path, artifacts)))
                    if len(ahead) > 2 * FETCHERS:
                        yield ahead.popleft()
                yield from ahead
            finally:
                pool.shutdown(cancel_futures=True)

    def _fetch(self, path: str, artifacts: RunArtifacts) -> Path:
        if (there := artifacts.on_disk(path)) is not None:
            return there
        local = self._staging / str(next(self._numbers))
        retrying(lambda: artifacts.get(path, local))
        return local


def _bounded(points: FloatPoints, rows: int) -> Iterator[FloatPoints]:
    """The same points, at most `rows` at a time: whoever logs without steps has all of them at one."""
    if len(points.times_ms) <= rows:
        yield points
        return
    for path, series in points.series():
        for start in range(0, len(series.times_ms), rows):
            part = slice(start, start + rows)
            times_ms = series.times_ms[part]
            yield FloatPoints(
                [path], np.array([len(times_ms)], np.int64), series.steps[part], times_ms, series.values[part]
            )
