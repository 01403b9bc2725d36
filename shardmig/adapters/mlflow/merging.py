"""More of a run for a run that is there already: only what is new is sent, and what differs is kept and told.

A value differs where MLflow cannot change it (a param), or where somebody changed it in this MLflow since it was brought
(a tag, an artifact): what it was then is in the run's manifest. Points never differ: another value is another point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Final

import msgspec
import numpy as np

from shardmig.adapters.mlflow.artifacts import artifacts_of
from shardmig.adapters.mlflow.facts import PARENT, PROVENANCE, RUN_NAME, RunFacts, tag_value
from shardmig.adapters.mlflow.http import HttpClient
from shardmig.adapters.mlflow.native import PARAMS, TAGS, tag_names
from shardmig.adapters.mlflow.run import RunInMlflow
from shardmig.adapters.mlflow.source.tree import artifacts_listed
from shardmig.adapters.mlflow.store import RunStore, StoredRun
from shardmig.adapters.sidecar.fitting import Mask, Metrics, NativePoints
from shardmig.adapters.sidecar.manifest import MANIFEST, FileEntry, decode_manifest, encode_manifest
from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.adapters.sidecar.rules import Value
from shardmig.archive.layout import disk_errors
from shardmig.archive.places import file_sha256
from shardmig.errors import TargetConflict
from shardmig.records import Field, Finding

CONFLICT: Final = "merge-conflict"
MOST_HELD: Final = 2_000_000
"""Points of one series that are compared; of a longer one all are sent, which changes nothing but takes longer."""
_ROWS: Final = 250_000


class RunMerge:
    """What a run has, and what is brought to it. `conflicts`: what was kept as it is here."""

    def __init__(self, store: RunStore, run: StoredRun, http: HttpClient | None) -> None:
        """Raises NotFound for a run without manifest: nobody knows what it had."""
        self.store = store
        self._http = http
        self.run = store.get_run(run.id)
        self.artifacts = artifacts_of(run, http)
        with TemporaryDirectory(prefix="shardmig-") as folder:
            self.artifacts.get(MANIFEST, Path(folder, "manifest"))
            self.manifest = decode_manifest(Path(folder, "manifest").read_bytes(), run.id)
        self.sink = _MergedRun(self)
        self.files = _MergedFiles(self)
        self.conflicts: list[Finding] = []
        self.new: dict[str, int] = {}

    def tags(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Those to set. The parent is linked by others; shardmig's own stay as they are."""
        held, before, chosen = self.run.tags, self._tags_before, {}
        for key, text in wanted.items():
            if key == PARENT or held.get(key) == text:
                continue
            if key not in held or (not key.startswith(PROVENANCE) and before.get(key) == held[key]):
                chosen[key] = text
            elif not key.startswith(PROVENANCE):
                self.differs(TAGS + key, held[key], text)
        self.count("tags", len(chosen))
        return chosen

    def refuse_other_steps(self, multiplier: int) -> None:
        """Raises TargetConflict: under another multiplier each point that is here would come once more, as another one."""
        if (held := self.manifest.step_multiplier) != multiplier:
            raise TargetConflict(
                f"{self.run.id} was loaded with steps times {held}, and what is to be merged has steps times {multiplier}",
                hint=f"--step-multiplier {held} as it was loaded, or --on-existing replace",
            )

    def name_tag(self, wanted: RunFacts) -> dict[str, str]:
        """The tag that gives the run its new name, unless somebody here gave it one."""
        if self.run.name == wanted.name:
            return {}
        if self.run.name != self._name_before(wanted):
            self.differs("sys/name", self.run.name, wanted.name)
            return {}
        self.count("names", 1)
        return {RUN_NAME: wanted.name}

    def sizes(self) -> Mapping[str, int | None]:
        """The artifacts that are there."""
        return {one.path: one.size_bytes for one in artifacts_listed(self.run, self._http)}

    def differs(self, field: str, here: str, there: str) -> None:
        """Something was kept."""
        self.conflicts.append(conflict(field, _short(here), _short(there)))

    def count(self, what: str, number: int) -> None:
        """So many were brought."""
        if number:
            self.new[what] = self.new.get(what, 0) + number

    def finding(self) -> Finding:
        """What was brought."""
        told = ", ".join(f"{number} {what}" for what, number in sorted(self.new.items())) or "nothing"
        return Finding("note", "merged", detail=f"{self.run.id} was there: new in it: {told}")

    def _name_before(self, wanted: RunFacts) -> str:
        """As it was when the run was brought."""
        before, params = type(wanted)(self.manifest.run), self.run.params
        before.learn(self.manifest.held)
        texts = (entry for entry in self.manifest.params if entry.type == "string" and entry.key in params)
        before.learn([Field(entry.path, "string", params[entry.key]) for entry in texts])
        return before.name

    @cached_property
    def _tags_before(self) -> dict[str, str]:
        """As they were when the run was brought."""
        return {
            name: tag_value(str(field.value))
            for field in self.manifest.held
            if field.path.startswith(TAGS)
            for name in tag_names(field.path.removeprefix(TAGS))
        }


class _MergedRun(RunInMlflow):
    """`RunSink` that drops what is there."""

    def __init__(self, merge: RunMerge) -> None:
        super().__init__(merge.store, merge.run)
        self._merge = merge
        self._folder = PARAMS if merge.manifest.is_native else ""
        self._held: dict[str, NativePoints | None] = {}

    def add_values(self, values: Mapping[str, Value]) -> None:
        """As RunSink."""
        held = self._merge.run.params
        for key, value in values.items():
            if held.get(key, str(value)) != str(value):
                self._merge.differs(self._folder + key, held[key], str(value))
        new = {key: value for key, value in values.items() if key not in held}
        self._merge.count("params", len(new))
        super().add_values(new)

    def add_points(self, metrics: Metrics) -> None:
        """As RunSink."""
        self._read_held(metrics.keys)
        masks = [self._is_new(key, metrics.points().part(rows)) for key, rows in metrics.spans()]
        mask = np.concatenate(masks) if masks else np.zeros(0, np.bool_)
        self._merge.count("points", int(mask.sum()))
        lengths = [int(part.sum()) for part in masks]
        if any(lengths):
            steps, times_ms, values = metrics.points().part(mask)
            keys = [key for key, length in zip(metrics.keys, lengths, strict=True) if length]
            kept = np.array([length for length in lengths if length], np.int64)
            super().add_points(Metrics(keys, kept, steps, times_ms, values))

    def _is_new(self, key: str, points: NativePoints) -> Mask:
        held = self._held.get(key)
        return np.ones(len(points.steps), np.bool_) if held is None else new_rows(points, held)

    def _read_held(self, keys: list[str]) -> None:
        """The histories of these series, and of no others: a series may go on where the last one ended."""
        self._held = {key: points for key, points in self._held.items() if key in keys}
        known = set(self._merge.run.metric_keys)
        missing = [key for key in keys if key in known and key not in self._held]
        parts: dict[str, list[NativePoints]] = {key: [] for key in missing}
        for metrics in self._merge.store.history(self._merge.run, missing, _ROWS) if missing else ():
            for key, rows in metrics.spans():
                if sum(len(part.steps) for part in parts[key]) < MOST_HELD:
                    parts[key].append(metrics.points().part(rows))
        for key, found in parts.items():
            whole = NativePoints(*(np.concatenate(column) for column in zip(*found, strict=True))) if found else None
            self._held[key] = whole


class _MergedFiles:
    """`ArtifactSink` that sends no file that is there. Safe to use from several threads."""

    def __init__(self, merge: RunMerge) -> None:
        self._merge = merge
        self._lock = Lock()
        self._sizes: Mapping[str, int | None] | None = None
        self._before: dict[str, FileEntry] = {entry.artifact: entry for entry in merge.manifest.files}
        self._kept: set[str] = set()
        self._own = {name for entry in merge.manifest.series for name in (entry.artifact, entry.shown)}

    def put(self, file: Path, path: str) -> None:
        """As ArtifactSink. What shardmig made of series and notes is made anew. The manifest comes last of all."""
        if path == MANIFEST:
            self._tell_kept(file)
        if path.startswith(f"{OWN_FOLDER}/"):
            self._merge.artifacts.put(file, path)
        elif path in self._own or path not in self._there() or self._is_new(file, path):
            self._merge.artifacts.put(file, path)
            self._merge.count("files", 1)

    def _there(self) -> Mapping[str, int | None]:
        with self._lock:
            if self._sizes is None:
                self._sizes = self._merge.sizes()
            return self._sizes

    def _is_new(self, file: Path, path: str) -> bool:
        """Did it change in the source, and not here? What changed here is a conflict; where the source has what was
        brought, only another size tells that, so that not all files are fetched."""
        there, before = file_sha256(file), self._before.get(path)
        was = before.sha256 if before is not None else ""
        if was == there and self._there()[path] == file.stat().st_size:
            return False
        here = self._digest_here(path)
        if here in (there, was):
            return here != there
        self._kept.add(path)
        self._merge.differs(path, f"sha256 {here[:16]}", f"sha256 {there[:16]}")
        return False

    def _tell_kept(self, manifest: Path) -> None:
        """Of a file in conflict the manifest tells what it told before, so that the next merge finds the conflict again."""
        with disk_errors("the manifest"):
            told = decode_manifest(manifest.read_bytes(), self._merge.run.id)
            told.files = [self._as_before(entry) if entry.artifact in self._kept else entry for entry in told.files]
            manifest.write_bytes(encode_manifest(told))

    def _as_before(self, entry: FileEntry) -> FileEntry:
        before = self._before.get(entry.artifact)
        size, sha256 = (before.size_bytes, before.sha256) if before is not None else (-1, "")
        return msgspec.structs.replace(entry, size_bytes=size, sha256=sha256)

    def _digest_here(self, path: str) -> str:
        with TemporaryDirectory(prefix="shardmig-") as folder:
            self._merge.artifacts.get(path, Path(folder, "artifact"))
            return file_sha256(Path(folder, "artifact"))


def conflict(field: str, here: str, there: str) -> Finding:
    """A value that differs was kept as it is here."""
    return Finding("loss", CONFLICT, field, detail=f"MLflow has {here}, the source {there}: nothing was overwritten")


def new_rows(points: NativePoints, held: NativePoints) -> Mask:
    """Which of the points are not among those held. Every NaN is the same."""
    columns = [np.concatenate(pair) for pair in zip(_comparable(points), _comparable(held), strict=True)]
    is_new = np.concatenate([np.ones(len(points.steps), np.bool_), np.zeros(len(held.steps), np.bool_)])
    order = np.lexsort((is_new, *columns))  # of equal rows, those held come first
    begins = np.ones(len(order), np.bool_)
    begins[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    groups = np.cumsum(begins) - 1
    is_group_new = is_new[order][begins]
    found = np.empty(len(order), np.bool_)
    found[order] = is_group_new[groups]
    return found[: len(points.steps)]


def _comparable(points: NativePoints) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    values = np.where(np.isnan(points.values), np.nan, points.values + 0.0)  # -0.0 is 0.0
    yield from (points.steps, points.times_ms, values.view(np.int64))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
