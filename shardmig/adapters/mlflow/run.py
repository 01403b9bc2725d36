"""One run in MLflow, as what is written into and read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.mlflow.fit import MlflowRules
from shardmig.adapters.mlflow.naming import Naming
from shardmig.adapters.mlflow.native import METRICS, PARAMS, held_fields
from shardmig.adapters.mlflow.store import Histories, RunStore, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.reading import Folders, RunReader
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.sidecar.uploads import Artifacts
from shardmig.records import Field, LoadOptions, Piece

_FOLDERS: Final = Folders(PARAMS, METRICS)
_RULES: Final = MlflowRules(LoadOptions(), Naming())
"""For reading: neither names nor steps are fitted."""


def read_run(store: Histories, stored: StoredRun, artifacts: Artifacts, want: Want, files: FileSink) -> Iterator[Piece]:
    """The pieces of one run in canonical order. Raises NotFound when its manifest is gone."""
    with TemporaryDirectory(prefix="shardmig-") as staging:
        yield from run_reader(store, stored, artifacts, want, Path(staging)).pieces(files)


def run_reader(store: Histories, stored: StoredRun, artifacts: Artifacts, want: Want, staging: Path) -> RunReader:
    """Reads one run. Raises NotFound when its manifest is gone."""
    return RunReader(_Held(store, stored), artifacts, want, staging, _RULES, _FOLDERS)


class RunInMlflow:
    """`RunSink` of a run: params are the texts of scalars."""

    def __init__(self, store: RunStore, run: StoredRun) -> None:
        self._store = store
        self._run = run

    def add_values(self, values: Mapping[str, Value]) -> None:
        """As RunSink."""
        self._store.log_params(self._run, {key: str(value) for key, value in values.items()})

    def add_points(self, metrics: Metrics) -> None:
        """As RunSink."""
        self._store.log_metrics(self._run, metrics)

    def flush(self) -> None:
        """As RunSink; or the end of the run does it."""
        if not self._store.is_flushed_by_end:
            self._store.flush(self._run)


class _Held:
    """`HeldRun` of a run."""

    def __init__(self, store: Histories, stored: StoredRun) -> None:
        self._store = store
        self._stored = stored
        self.id = stored.id

    def values(self) -> Mapping[str, Value]:
        return dict(self._stored.params)

    def series_keys(self) -> Iterable[str]:
        return self._stored.metric_keys

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        return self._store.history(self._stored, keys, rows)

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:
        return held_fields(manifest.held, self._stored) if manifest.is_native else ()
