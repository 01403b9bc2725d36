"""`mlruns/` folders, read as they lie on disk. Never written, and never opened with MLflow's own store.

MLflow's store gives a point that names a dataset the step 0, and a model output its run's id (measured, 3.17.2); its
own migration dies of repeated lines. Here every line of a metric's file is a point, with its step.

What cannot be read takes nothing with it that can: a damaged run is listed by its folder's name and fails when it is read, and
so do the runs of a damaged experiment.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml  # type: ignore[import-untyped]
from pyarrow import csv

from shardmig import logs
from shardmig.adapters.mlflow.facts import RUN_NAME
from shardmig.adapters.mlflow.histories import History
from shardmig.adapters.mlflow.places import on_this_machine
from shardmig.adapters.mlflow.source.tree import files_in
from shardmig.adapters.mlflow.store import Dataset, Experiment, LatestPoint, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.provenance import KEY
from shardmig.errors import BadInput, Denied, NotFound, Permanent
from shardmig.records import Finding, TargetRunId

TRASH: Final = ".trash"
META: Final = "meta.yaml"
BLOCK_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 4096
_STATUSES: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_NO_RUNS: Final = ("datasets", "models", "traces", "tags")
_OF_A_RUN: Final = ("metrics", "params", "tags")
"""Folders that MLflow makes beside the meta.yaml of a run, and nobody else does."""
_RUN_ID: Final = re.compile(r"[A-Za-z0-9][\w\-]{0,255}")
_DATASET_VERTEX: Final = (1, "DATASET")
_MODEL_VERTEX: Final = (2, "MODEL")
_INT64: Final = range(-(2**63), 2**63)


class FileStore:
    """What a source asks of a run store, over a folder. `lost` collects what cannot be read of the run at hand."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ignored: set[str] = set()
        self.lost: list[Finding] = []

    def experiments(self) -> Iterator[Experiment]:
        """As RunStore."""
        for folder in self._experiment_folders():
            try:
                yield _experiment(folder)
            except Permanent:
                yield Experiment(id=folder.name, name=folder.name, is_deleted=folder.parent.name == TRASH)

    def search_runs(self, experiments: Sequence[str], *, only_migrated: bool) -> Iterator[StoredRun]:
        """As RunStore. The runs of one experiment are held while they are sorted."""
        for folder in self._experiment_folders():
            if folder.name in experiments:
                runs = self._runs_in(folder)
                runs.sort(key=lambda run: (run.start_ms or 0, run.id))
                yield from (run for run in runs if not only_migrated or KEY in run.tags)

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """As RunStore. Raises Permanent for one that is damaged, or whose experiment is."""
        if _RUN_ID.fullmatch(run_id):
            for folder in self._experiment_folders():
                if _is_run(folder / run_id):
                    _experiment(folder)
                    return self._run(folder / run_id)
                if folder.name == run_id:  # listed in place of its runs
                    _folders(folder)
        raise NotFound(f"{self._root} has no run {run_id}")

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As RunStore, but points that were logged twice come twice."""
        folder = self._folder_of(run) / "metrics"
        for key in keys:
            with closing(History(key, may_repeat=True)) as history:
                self._read_points(folder / key, f"metrics/{key}", history)
                yield from history.in_order(rows)

    def close(self) -> None:
        """Nothing is held open."""

    def _experiment_folders(self) -> list[Path]:
        folders = [*_folders(self._root), *_folders(self._root / TRASH)]
        return sorted(filter(self._is_experiment, folders), key=lambda folder: folder.name)

    def _is_experiment(self, folder: Path) -> bool:
        """Without a meta.yaml it is one if it has runs: a database keeps its artifacts in such folders, too."""
        if _has_meta(folder):
            return True
        if folder.name.isdecimal() and any(map(_is_run, _folders(folder))):
            return True
        if folder.name not in (TRASH, "models", *self._ignored):
            self._ignored.add(folder.name)
            reason = f"{folder} has no {META} and no runs: what is in it is no experiment's"
            logs.get_logger().warning(logs.Event.PROJECT_SKIPPED, project=folder.name, reason=reason)
        return False

    def _folder_of(self, run: StoredRun) -> Path:
        active = self._root / run.experiment_id / run.id
        return active if active.is_dir() else self._root / TRASH / run.experiment_id / run.id

    def _runs_in(self, experiment: Path) -> list[StoredRun]:
        """What cannot be read is there by its name only, and is told when it is read."""
        try:
            return [self._listed(folder) for folder in _folders(experiment) if _is_run(folder)]
        except Denied:
            return [StoredRun.unread(experiment.name, experiment.name)]

    def _listed(self, folder: Path) -> StoredRun:
        try:
            return self._run(folder)
        except Permanent:
            return StoredRun.unread(folder.name, folder.parent.name)

    def _run(self, folder: Path) -> StoredRun:
        """Raises Permanent."""
        try:
            return self._as_stored(folder)
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{folder} is not what MLflow writes: {type(error).__name__}: {error}") from error

    def _as_stored(self, folder: Path) -> StoredRun:
        meta = _meta(folder)
        tags = _texts(folder / "tags")
        inputs = [_meta(path) for path in _links(folder / "inputs")]
        metrics = _names_below(folder / "metrics")
        return StoredRun(
            id=TargetRunId(folder.name),
            experiment_id=folder.parent.name,
            name=str(meta.get("run_name") or tags.get(RUN_NAME, "")),
            user=str(meta.get("user_id") or ""),
            status=_STATUSES.get(meta.get("status", 0), str(meta.get("status", ""))),
            start_ms=_time(meta, "start_time"),
            end_ms=_time(meta, "end_time"),
            artifact_uri=_artifacts(folder, meta),
            tags=tags,
            params=_texts(folder / "params"),
            metric_keys=metrics,
            is_deleted=meta.get("lifecycle_stage") == "deleted",
            datasets=[_dataset(folder.parent, one) for one in inputs if one.get("source_type") in _DATASET_VERTEX],
            model_inputs=[str(one.get("source_id")) for one in inputs if one.get("source_type") in _MODEL_VERTEX],
            model_outputs=[(path.name, int(_meta(path).get("step") or 0)) for path in _links(folder / "outputs")],
            latest=[_latest(folder / "metrics", key) for key in metrics],
        )

    def _read_points(self, path: Path, field: str, history: History) -> None:
        """Lines are `time value [step [dataset digest]]`. Those of three words are read in columns, the others one by one;
        where a word is no number, all are. What has no line end is half of a line."""
        odd: list[bytes] = []
        with pa.OSFile(str(path)) as file:
            end, is_cut = _lines_end(file)
            if is_cut:
                self.lost.append(Finding("loss", "bad-line", field, 1, "its last line is cut"))
            try:
                with _columns(file.get_stream(0, end), end, odd) as batches:
                    for times_ms, values, steps in batches:
                        history.add(steps, times_ms, values)
            except pa.ArrowInvalid:
                history.close()
                rest = io.BufferedReader(file.get_stream(0, end))
                while lines := rest.readlines(BLOCK_BYTES):
                    self._add_lines(lines, field, history)
                return
        self._add_lines(odd, field, history)

    def _add_lines(self, lines: list[bytes], field: str, history: History) -> None:
        bad = named = 0
        points = []
        for line in lines:
            words = line.split()
            try:
                points.append(_point(words))
                named += len(words) > 3
            except ValueError:
                bad += bool(words)
        if points:
            history.add(*zip(*points, strict=True))
        if bad:
            self.lost.append(Finding("loss", "bad-line", field, bad, "not `time value step`"))
        if named:
            detail = "the dataset that a point was computed on: no field holds it"
            self.lost.append(Finding("approximation", "point-dataset", field, named, detail))


def _lines_end(file: pa.NativeFile) -> tuple[int, bool]:
    """Where the last line that has an end ends, and whether anything is behind it: MLflow writes a line with its end, so
    that is being written, or was never written to its end."""
    start = size = file.size()
    while start:
        stop, start = start, max(0, start - _TAIL_BYTES)
        file.seek(start)
        if end := file.read(stop - start).rfind(b"\n") + 1:
            return start + end, start + end < size
    return 0, size > 0


@contextmanager
def _columns(lines: pa.NativeFile, size: int, odd: list[bytes]) -> Iterator[Iterator[list[Any]]]:
    """Times, values and steps, batch by batch; lines that have not three words go to `odd`."""

    def keep(row: csv.InvalidRow) -> str:
        odd.append(row.text.encode())
        return "skip"

    if not size:
        yield iter(())
        return
    types = {"time": pa.int64(), "value": pa.float64(), "step": pa.int64()}
    reader = csv.open_csv(
        lines,
        csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=list(types)),
        csv.ParseOptions(delimiter=" ", quote_char=False, invalid_row_handler=keep),
        csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )
    with reader:
        yield ([column.to_numpy() for column in batch.columns] for batch in reader)


def _point(words: list[bytes]) -> tuple[int, int, float]:
    if len(words) not in (2, 3, 5):
        raise ValueError(words)
    step, time_ms = int(words[2]) if len(words) > 2 else 0, int(words[0])
    if step not in _INT64 or time_ms not in _INT64:
        raise ValueError(words)
    return step, time_ms, float(words[1])


def _meta(folder: Path) -> dict[str, Any]:
    """A folder's meta.yaml. Raises BadInput."""
    try:
        meta = yaml.load((folder / META).read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{folder / META} cannot be read: {error}") from error
    if not isinstance(meta, dict):
        raise BadInput(f"{folder / META} is not what MLflow writes")
    return meta


def _time(meta: Mapping[str, Any], name: str) -> int | None:
    found = meta.get(name)
    return None if found is None else int(found)


def _experiment(folder: Path) -> Experiment:
    """Raises Permanent."""
    meta = _meta(folder)
    return Experiment(
        id=folder.name,
        name=str(meta.get("name", folder.name)),
        is_deleted=folder.parent.name == TRASH or meta.get("lifecycle_stage") == "deleted",
        artifact_location=str(meta.get("artifact_location") or ""),
        created_ms=meta.get("creation_time"),
        tags=_texts(folder / "tags"),
    )


def _folders(folder: Path) -> list[Path]:
    """Those directly in a folder; none where there is no folder. Raises Denied where nobody may look."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if os.path.isdir(entry.path)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Denied(f"{folder} cannot be listed: {error.strerror}") from error


def _is_run(folder: Path) -> bool:
    """Without a meta.yaml it is one, and damaged, if it has what else makes one."""
    if not _RUN_ID.fullmatch(folder.name) or folder.name in _NO_RUNS:
        return False
    return _has_meta(folder) or any(os.path.isdir(folder / name) for name in _OF_A_RUN)


def _links(folder: Path) -> list[Path]:
    """Of a run's inputs or outputs each."""
    return sorted(filter(_holds_anything, _folders(folder)))


def _has_meta(folder: Path) -> bool:
    """True also where nobody may look: then that is told when it is read."""
    try:
        os.lstat(folder / META)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _names_below(folder: Path) -> list[str]:
    return sorted(files_in(folder))


def _texts(folder: Path) -> dict[str, str]:
    """Params or tags: each a file named like its key."""
    try:
        return {name: (folder / name).read_bytes().decode("utf-8") for name in _names_below(folder)}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"below {folder}: {error}") from error


def _dataset(experiment: Path, given: Mapping[str, Any]) -> Dataset:
    meta = _meta(experiment / "datasets" / str(given["source_id"]))
    texts = {name: str(meta.get(name) or "") for name in ("source_type", "source", "schema", "profile")}
    tags = {str(key): str(text) for key, text in (given.get("tags") or {}).items()}
    return Dataset(name=str(meta.get("name", "")), digest=str(meta.get("digest", "")), tags=tags, **texts)


def _artifacts(folder: Path, meta: Mapping[str, Any]) -> str:
    """Where they lie now: a copied or moved store still names its old place. MLflow makes the folder beside the meta.yaml, and
    leaves it empty where the artifacts go elsewhere."""
    beside = folder / "artifacts"
    told = str(meta.get("artifact_uri") or beside)
    there = on_this_machine(told)
    if there is None:
        return told
    is_old_place = there.parts[-3:] == beside.parts[-3:]
    return told if not _holds_anything(beside) and (not is_old_place or there.is_dir()) else str(beside)


def _holds_anything(folder: Path) -> bool:
    """True also where nobody may look: then that is told when it is read."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _latest(folder: Path, key: str) -> LatestPoint:
    """The point of the last line that has an end."""
    with (folder / key).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        whole, end, _ = file.read().rpartition(b"\n")
    lines = (whole + end).splitlines()
    try:
        step, time_ms, value = _point(lines[-1].split() if lines else [])
    except ValueError:
        return LatestPoint(key)
    return LatestPoint(key, step, time_ms, value)
