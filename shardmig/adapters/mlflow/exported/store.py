"""What a source asks of a run store, over a folder of mlflow-export-import, in any of its layouts.

`experiment.json` and `run.json` are looked for at any depth: the layouts of its commands and versions differ in nothing
else that matters here. A run that lies there twice (below `experiments/` and beside a model) counts once. A run that is
listed and has no file, because its export failed or was cut, is listed and fails. So is a document that lists runs and
cannot be read itself, under its path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.adapters.mlflow.exported.catalogue import Documents
from shardmig.adapters.mlflow.exported.document import Document, opened
from shardmig.adapters.mlflow.facts import RUN_NAME
from shardmig.adapters.mlflow.histories import History
from shardmig.adapters.mlflow.store import Dataset, Experiment, LatestPoint, StoredRun
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.provenance import KEY
from shardmig.errors import BadInput, NotFound
from shardmig.records import Finding, TargetRunId

RUN: Final = "run.json"
EXPERIMENT: Final = "experiment.json"
_POINTS_AT_ONCE: Final = 10_000
_OTHER: Final = ("model_id", "dataset_name", "dataset_digest")
_INT64: Final = range(-(2**63), 2**63)


class _Told(NamedTuple):
    """What an `experiment.json` says. `damage`: why it says no more."""

    number: str
    facts: dict[str, Any]
    runs: list[Any]
    permissions: Any
    damage: BadInput | None


class ExportedStore:
    """`lost` collects what cannot be read of the run at hand. Memory: the list of runs, and 100,000 points a series."""

    def __init__(self, documents: Documents) -> None:
        self._root = documents.root
        self._documents = documents
        self.lost: list[Finding] = []

    def experiments(self) -> Iterator[Experiment]:
        """As ReadStore. An experiment that was not exported itself is called by its id."""
        for number in sorted(set(self._experiments) | set(self._runs_of), key=_in_order):
            given = self._experiments[number].facts if number in self._experiments else {}
            yield Experiment(
                id=number,
                name=str(given.get("name") or self.named_only(number).name),
                is_deleted=given.get("lifecycle_stage") == "deleted",
                artifact_location=str(given.get("artifact_location") or ""),
                created_ms=given.get("creation_time"),
                tags=_texts(given.get("tags")),
            )

    def named_only(self, number: str) -> Experiment:
        """An experiment that was not exported itself."""
        return Experiment(id=number, name=f"experiment {number}")

    def has_experiment(self, number: str) -> bool:
        """Was the experiment itself exported?"""
        return number in self._experiments

    def require_experiment(self, number: str) -> None:
        """Raises BadInput for an experiment whose own document is damaged."""
        if number in self._experiments and (damage := self._experiments[number].damage) is not None:
            raise BadInput(damage.message, hint=damage.hint)

    def permissions(self, number: str) -> Any:
        """Who may do what with an experiment, as Databricks tells it; None: nothing is told."""
        return self._experiments[number].permissions if number in self._experiments else None

    def search_runs(self, experiments: Sequence[str], *, only_migrated: bool) -> Iterator[StoredRun]:
        """As ReadStore. The runs of one experiment are held while they are sorted."""
        for number in experiments:
            runs = [self._listed(number, run_id) for run_id in self._runs_of.get(number, {})]
            runs.sort(key=lambda run: (run.start_ms or 0, run.id))
            yield from (run for run in runs if not only_migrated or KEY in run.tags)

    def get_run(self, run_id: TargetRunId) -> StoredRun:
        """As ReadStore. Raises BadInput for a run whose export failed or was cut."""
        for number, runs in self._runs_of.items():
            if run_id in runs:
                return self._run(number, run_id)
        raise NotFound(f"{self._root} has no run {run_id}")

    def artifact_uri(self, run: StoredRun) -> str:
        """Where the artifacts of a run lay in the MLflow that was exported."""
        return str(_info(self._file(run.experiment_id, run.id)).get("artifact_uri") or "")

    def history(self, run: StoredRun, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        """As ReadStore, but points that were logged twice come twice."""
        histories = {key: History(key, may_repeat=True) for key in keys}
        try:
            with opened(self._file(run.experiment_id, run.id)) as document:
                for key in _metrics(document, {}):
                    if key in histories:
                        self._add(key, document.items(), histories[key])
                    else:
                        document.value()
            for key in keys:
                yield from histories[key].in_order(rows)
        finally:
            for history in histories.values():
                history.close()

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _told(self) -> dict[Path, _Told]:
        """What each `experiment.json` says."""
        return {path: _told_of_experiment(path) for path in self._documents.named(EXPERIMENT)}

    @cached_property
    def _experiments(self) -> dict[str, _Told]:
        """By id; a whole document counts before a damaged one."""
        found: dict[str, _Told] = {}
        for told in self._told.values():
            if told.damage is None or told.number not in found:
                found[told.number] = told
        return found

    @cached_property
    def _runs_of(self) -> dict[str, dict[str, Path | None]]:
        """The file of each run, by experiment and run; None: it was listed and is not there."""
        found: dict[str, dict[str, Path | None]] = {}
        held: set[str] = set()
        for path in self._documents.named(RUN):
            info = _info(path)
            run_id = str(info.get("run_id") or path.parent.name)
            if run_id not in held:
                found.setdefault(str(info.get("experiment_id") or ""), {})[run_id] = path
                held.add(run_id)
        for path, told in self._told.items():
            for run_id in map(str, told.runs):
                if run_id not in held:
                    found.setdefault(told.number, {})[run_id] = None
            if told.damage is not None:
                found.setdefault(told.number, {})[self._documents.called(path)] = path
        return found

    def _file(self, number: str, run_id: str) -> Path:
        path = self._runs_of[number][run_id]
        if path in self._told and (damage := self._told[path].damage) is not None:
            raise BadInput(damage.message, run=run_id, hint=damage.hint)
        if path is None:
            raise BadInput(
                f"{self._root} lists run {run_id} and does not have it",
                run=run_id,
                hint="its export failed or was cut; if its MLflow still exists, read that: --source mlflow URI",
            )
        return path

    def _listed(self, number: str, run_id: str) -> StoredRun:
        try:
            return self._run(number, run_id)
        except BadInput:
            return StoredRun.unread(run_id, number)

    def _run(self, number: str, run_id: str) -> StoredRun:
        path = self._file(number, run_id)
        latest: list[LatestPoint] = []
        points = 0
        told: dict[str, Any] = {}
        with opened(path) as document:
            for key in _metrics(document, told):
                series = document.value()
                latest.append(_latest(key, series))
                points += len(series) if isinstance(series, list) else 0
        info, tags = told.get("info") or {}, _texts(told.get("tags"))
        inputs, outputs = told.get("inputs") or {}, told.get("outputs") or {}
        return StoredRun(
            id=TargetRunId(run_id),
            experiment_id=number,
            name=str(info.get("run_name") or tags.get(RUN_NAME, "")),
            user=str(info.get("user_id") or ""),
            status=str(info.get("status") or ""),
            start_ms=info.get("start_time"),
            end_ms=info.get("end_time"),
            artifact_uri=str(path.parent / "artifacts"),
            tags=tags,
            params=_texts(told.get("params")),
            metric_keys=sorted(point.key for point in latest),
            is_deleted=info.get("lifecycle_stage") == "deleted",
            datasets=[_dataset(one) for one in inputs.get("dataset_inputs") or ()],
            model_inputs=[str(one.get("model_id")) for one in inputs.get("model_inputs") or ()],
            model_outputs=[
                (str(one.get("model_id")), int(one.get("step") or 0)) for one in outputs.get("model_outputs") or ()
            ],
            latest=latest,
            points=points,
        )

    def _add(self, key: str, points: Iterator[Any], history: History) -> None:
        bad = named = 0
        waiting: list[tuple[int, int, float]] = []
        for point in points:
            try:
                waiting.append(_point(point))
            except (TypeError, ValueError, KeyError):
                bad += 1
                continue
            named += any(point.get(name) for name in _OTHER)
            if len(waiting) == _POINTS_AT_ONCE:
                history.add(*zip(*waiting, strict=True))
                waiting = []
        if waiting:
            history.add(*zip(*waiting, strict=True))
        if bad:
            self.lost.append(Finding("loss", "bad-point", f"metrics/{key}", bad, "not value, timestamp and step"))
        if named:
            detail = "the model or dataset that a point was computed on: no field holds it"
            self.lost.append(Finding("approximation", "point-dataset", f"metrics/{key}", named, detail))


def _metrics(document: Document, told: dict[str, Any]) -> Iterator[str]:
    """Walk through a document's part `mlflow`: yields the keys of `metrics`, whose values are to be taken or entered;
    everything else goes to `told`."""
    for part in document.members():
        if part != "mlflow":
            document.value()
            continue
        for name in document.members():
            if name == "metrics":
                yield from document.members()
            else:
                told[name] = document.value()


def _told_of_experiment(path: Path) -> _Told:
    """Of a document that was cut, what stands before the cut."""
    told: dict[str, Any] = {}
    info: Any = None
    damage = None
    try:
        with opened(path) as document:
            for part in document.members():
                if part == "mlflow":
                    for name in document.members():
                        told[name] = document.value()  # one by one: what was read before the cut is kept
                elif part == "info":
                    info = document.value()
                else:
                    document.value()
    except BadInput as error:
        damage = error
    facts = told.get("experiment")
    if not isinstance(facts, dict):
        damage = damage or BadInput(f"{path} tells of no experiment", hint="was its export cut short?")
        facts = {}
    failed = info.get("failed_runs") if isinstance(info, dict) else None
    runs = [*(told.get("runs") or ()), *(failed or ())]
    return _Told(str(facts.get("experiment_id") or path.parent.name), facts, runs, told.get("permissions"), damage)


def _latest(key: str, series: Any) -> LatestPoint:
    """The last of the points that can be read."""
    points = []
    for point in series if isinstance(series, list) else ():
        with suppress(TypeError, ValueError, KeyError):
            points.append(_point(point))
    return LatestPoint(key, *max(points, key=_by_place)) if points else LatestPoint(key)


def _by_place(point: tuple[int, int, float]) -> tuple[int, int, bool, float]:
    step, time_ms, value = point
    return step, time_ms, math.isnan(value), value


def _info(path: Path) -> dict[str, Any]:
    """What a run's file says of the run itself, which stands before its metrics; nothing for a file that is damaged."""
    try:
        with opened(path) as document:
            for part in document.members():
                if part != "mlflow":
                    document.value()
                    continue
                for name in document.members():
                    told = document.value()
                    if name == "info":
                        return dict(told)
    except BadInput:
        return {"experiment_id": _folder_of_experiment(path)}
    return {}


def _folder_of_experiment(path: Path) -> str:
    """`<experiment>/<run>/run.json`, or `<experiment>/runs/<run>/run.json`."""
    folder = path.parent.parent
    return folder.parent.name if folder.name == "runs" else folder.name


def _point(point: Mapping[str, Any]) -> tuple[int, int, float]:
    step, time_ms = int(point["step"] or 0), int(point["timestamp"])
    if step not in _INT64 or time_ms not in _INT64:
        raise ValueError(point)
    return step, time_ms, float(point["value"])


def _dataset(given: Mapping[str, Any]) -> Dataset:
    dataset = given.get("dataset") or {}
    texts = {name: str(dataset.get(name) or "") for name in ("source_type", "source", "schema", "profile")}
    tags = {str(tag["key"]): str(tag["value"]) for tag in given.get("tags") or ()}
    return Dataset(name=str(dataset.get("name") or ""), digest=str(dataset.get("digest") or ""), tags=tags, **texts)


def _texts(given: Any) -> dict[str, str]:
    """Texts by name; some documents list them as key and value."""
    if isinstance(given, list):
        given = {one["key"]: one["value"] for one in given}
    return {str(key): str(text) for key, text in (given or {}).items()}


def _in_order(number: str) -> tuple[int, str]:
    return (int(number), "") if number.isdecimal() else (2**63, number)
