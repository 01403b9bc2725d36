"""Logged models: what training made, with params, metrics and files of its own.

    MLflow                      field
    id, name                    sys/id, sys/name
    created, updated            sys/creation_time, sys/modification_time
    type, status                sys/mlflow/model_type, sys/mlflow/status, sys/mlflow/status_message
    where its files lie         sys/mlflow/artifact_uri
    param, tag                  params/<key>, tags/<key>, string
    run that made it            source_run/project, source_run/id
    metric                      evaluations/<name>/metrics/<key>, float_series; the name is a digest of the run and dataset that
                                it was measured with: evaluations/<name>/run/project, run/id, dataset/name, dataset/digest
    file                        artifacts/<path>, file

Which runs have the model as input or output is a field of those runs: they wait for it with a tag of shardmig's own,
and are linked once it is there. The tag `mlflow.modelVersions` is left out: it repeats what registered models say.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np

from shardmig.adapters.mlflow.native import ARTIFACTS, PARAMS
from shardmig.adapters.mlflow.objects.base import (
    TAGS,
    Facts,
    Making,
    Stored,
    Tree,
    json_of,
    scalars,
    tag_fields,
    times,
    upload,
)
from shardmig.adapters.mlflow.objects.fit import sent_values
from shardmig.adapters.mlflow.objects.links import RunLinks, delete_again, log_to_run
from shardmig.adapters.mlflow.objects.model_versions import MODEL_VERSIONS
from shardmig.adapters.mlflow.objects.references import References, not_here
from shardmig.adapters.mlflow.objects.stores import EXPERIMENTS_IN_SEARCH, IN_PAGE, Stores, batches, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.names import digest_of
from shardmig.errors import BadInput
from shardmig.records import Field, Finding, FloatPoints, MigrationKey, Points, RunId, Scope, Steps

EVALUATIONS: Final = "evaluations/"
CALLED: Final = "shardmig.evaluations"
"""Tag of a copy: how its evaluations are called in its archive. Archives that are older number them; so do copies without it."""
_NAMED: Final = "named"
_NUMBERED: Final = "numbered"
METRICS_IN_BATCH: Final = 1000
_OWN: Final = ("sys/id", "sys/creation_time", "sys/mlflow/artifact_uri", "sys/mlflow/status_message")


_Measured = tuple[str, str, int, int]
"""What tells a metric of a model from others: key, run, step and time."""


class _Evaluation(NamedTuple):
    """Who measured something of a model, on what: MLflow's id of the run, and what the archive calls it."""

    project: str
    run: str
    dataset: str
    digest: str
    run_id: str

    @property
    def name(self) -> str:
        """Of its fields: the same wherever it is, and no number."""
        return f"e-{digest_of(json_of(self[:-1]))}"


class LoggedModels:
    """`ObjectClass` of logged models."""

    scope: Scope = "logged_models"
    is_linked = True
    keeps_id = False
    completes = False

    def __init__(self, stores: Stores, references: References) -> None:
        self._stores = stores
        self._references = references

    def all(self) -> Iterator[Stored]:
        """As ObjectClass. Deleted ones are left out."""
        return self._search("")

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass."""
        return list(self._search(f"tags.`shardmig.key` = '{key}'"))

    def get(self, id_: str) -> Stored:
        """As ObjectClass."""
        with mlflow_errors(f"logged model {id_}"):
            return self._stored(self._stores.tracking.get_logged_model(id_), is_deleted=False)

    def fields(self, stored: Stored) -> Iterator[Field]:
        """As ObjectClass."""
        model = stored.content
        texts = {
            "sys/id": model.model_id,
            "sys/name": model.name,
            "sys/mlflow/model_type": model.model_type,
            "sys/mlflow/status": str(model.status),
            "sys/mlflow/status_message": model.status_message,
            "sys/mlflow/artifact_uri": model.artifact_location,
        }
        yield from scalars(texts)
        changed = model.last_updated_timestamp
        yield from times({"sys/creation_time": model.creation_timestamp, "sys/modification_time": changed})
        yield from (Field(PARAMS + key, "string", text) for key, text in model.params.items())
        yield from tag_fields(TAGS, {key: text for key, text in model.tags.items() if key != MODEL_VERSIONS})
        yield from self._references.fields("source_run", "runs", model.source_run_id)
        for folder, (evaluation, _) in self._evaluations(stored).items():
            parts = {"run/project": evaluation.project, "run/id": evaluation.run}
            parts |= {"dataset/name": evaluation.dataset, "dataset/digest": evaluation.digest}
            yield from scalars({f"{folder}/{name}": text for name, text in parts.items()})

    def points(self, stored: Stored) -> Iterator[Points]:
        """As ObjectClass."""
        for folder, (_, measured) in sorted(self._evaluations(stored).items()):
            by_key: dict[str, list[Any]] = defaultdict(list)
            for metric in measured:
                by_key[metric.key].append(metric)
            for key, metrics in sorted(by_key.items()):
                metrics.sort(key=lambda metric: (metric.step, metric.timestamp, metric.value))
                yield _points(f"{folder}/metrics/{key}", metrics)

    def trees(self, stored: Stored) -> Iterator[Tree]:
        """As ObjectClass."""
        yield Tree(ARTIFACTS, stored.content.artifact_location)

    def is_volatile(self, path: str) -> bool:
        """As ObjectClass."""
        return path == "sys/modification_time"

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        return path in _OWN

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. Metrics are logged to the runs that measured them, where they are already."""
        from mlflow.entities import LoggedModelParameter, LoggedModelTag

        facts = making.facts
        run = self._references.here(facts, "source_run", "runs")
        findings = [not_here("source_run", facts)] if run is None and facts.text("source_run/id") else []
        tags = facts.texts(TAGS) | making.tags | {CALLED: _called(facts)}
        model = self._stores.tracking.create_logged_model(
            experiment_id=self._references.experiment(facts.run.project),
            name=facts.text("sys/name"),
            source_run_id=run,
            tags=[LoggedModelTag(key, text) for key, text in tags.items()],
            params=[LoggedModelParameter(key, text) for key, text in facts.texts(PARAMS).items()],
            model_type=facts.text("sys/mlflow/model_type") or None,
        )
        findings += upload(self._stores.artifacts(model.artifact_location), making, ARTIFACTS)
        findings += self._log_metrics(model.model_id, making, frozenset())
        self._finalize(model.model_id, facts.text("sys/mlflow/status"), "PENDING")
        return self.get(model.model_id), findings

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass: tags, new params, status, metrics and files. Nobody can change its name and type, nor a param."""
        from mlflow.entities import LoggedModelParameter

        facts, model = making.facts, stored.content
        new = [LoggedModelParameter(key, text) for key, text in facts.texts(PARAMS).items() if key not in model.params]
        if new:
            self._stores.tracking.log_logged_model_params(stored.id, new)
        tags = facts.texts(TAGS) | {CALLED: _called(facts)}
        self.tag(stored, {key: text for key, text in tags.items() if stored.tags.get(key) != text})
        findings = list(upload(self._stores.artifacts(model.artifact_location), making, ARTIFACTS))
        findings += self._log_metrics(stored.id, making, {_measured(one) for one in model.metrics or ()})
        self._finalize(stored.id, facts.text("sys/mlflow/status"), str(model.status))
        return self.get(stored.id), findings

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: to the runs that wait for it."""
        RunLinks(self._stores).link_model(old, stored.id)

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass."""
        from mlflow.entities import LoggedModelTag

        entries = [LoggedModelTag(key, text) for key, text in tags.items()]
        self._stores.tracking.set_logged_model_tags(stored.id, entries)

    def discard(self, stored: Stored) -> None:
        """As ObjectClass."""
        self._stores.tracking.delete_logged_model(stored.id)

    def _search(self, condition: str) -> Iterator[Stored]:
        experiments = {one.experiment_id: one.lifecycle_stage == "deleted" for one in self._stores.experiments()}
        for ids in batches(experiments, EXPERIMENTS_IN_SEARCH):
            search = self._stores.tracking.search_logged_models
            for model in pages(search, experiment_ids=list(ids), filter_string=condition or None, max_results=IN_PAGE):
                yield self._stored(model, is_deleted=experiments[str(model.experiment_id)])

    def _stored(self, model: Any, *, is_deleted: bool) -> Stored:
        own = (model.name, str(model.status), sorted(model.tags.items()), sorted(model.params.items()))
        changed = (model.status_message, model.last_updated_timestamp)
        measured = [
            (*_measured(one), repr(one.value), one.dataset_name, one.dataset_digest) for one in model.metrics or ()
        ]
        beyond = blake2b(repr(sorted(map(repr, measured))).encode(), digest_size=8).hexdigest()
        return Stored(
            id=model.model_id,
            project=self._references.project_of(model.experiment_id),
            name=RunId(model.model_id),
            tags=dict(model.tags),
            content=model,
            revision=repr((own, changed, sorted(map(repr, measured)))),
            created_ms=model.creation_timestamp,
            is_deleted=is_deleted,
            beyond=beyond if measured else "",
        )

    def _evaluations(self, stored: Stored) -> dict[str, tuple[_Evaluation, list[Any]]]:
        """By the folders of their fields: who measured, and the metrics."""
        found: dict[_Evaluation, list[Any]] = defaultdict(list)
        for metric in stored.content.metrics or ():
            project, run = self._references.identity("runs", metric.run_id) if metric.run_id else ("", "")
            known = (metric.dataset_name or "", metric.dataset_digest or "")
            found[_Evaluation(project, run, *known, metric.run_id or "")].append(metric)
        is_numbered = self._references.is_target and stored.tags.get(CALLED, _NUMBERED) == _NUMBERED
        folders: dict[str, tuple[_Evaluation, list[Any]]] = {}
        for number, evaluation in enumerate(sorted(found)):
            name = str(number) if is_numbered else evaluation.name
            while f"{EVALUATIONS}{name}" in folders:  # of a run and of a copy of it
                name += "~"
            folders[f"{EVALUATIONS}{name}"] = evaluation, found[evaluation]
        return folders

    def _finalize(self, model_id: str, status: str, held: str) -> None:
        from mlflow.entities import LoggedModelStatus

        if status not in ("", "PENDING", "UNSPECIFIED", held):
            self._stores.tracking.finalize_logged_model(model_id, LoggedModelStatus(status))

    def _log_metrics(self, model_id: str, making: Making, held: Collection[_Measured]) -> Iterator[Finding]:
        from mlflow.entities import Metric

        unchanged = set()
        for points in making.points:
            for path, series in points.series():
                folder, _, key = path.partition("/metrics/")
                run = self._references.here(making.facts, f"{folder}/run", "runs")
                if not isinstance(series, FloatPoints) or not key:
                    raise BadInput(f"{path} is no metric of a logged model", field=path)
                if run is None:
                    detail = "the run that measured it is not in the target: load it, too"
                    yield Finding("loss", "metrics-without-run", path, len(series.times_ms), detail)
                    continue
                name, digest = _dataset(making.facts, folder)
                rows = self._rows(series, run, key)
                metrics = [Metric(key, *row, model_id, name, digest, run) for row in rows]
                new = [one for one in metrics if _measured(one) not in held]
                if new:
                    log_to_run(self._stores, run, partial(self._log_batches, new))
                else:
                    unchanged.add(run)
        for run in unchanged:
            delete_again(self._stores, self._stores.tracking.get_run(run))

    def _rows(self, series: FloatPoints, run: str, key: str) -> Iterator[tuple[float, int, int]]:
        """Value, time and step of each point. MLflow tells 0 of a model where its run has NaN, and logging that 0 would give
        the run a point that it never had: what the run has is sent."""
        is_nan = set()
        if (series.values == 0).any():
            history = self._stores.tracking.get_metric_history(run, key)
            is_nan = {(one.timestamp, one.step) for one in history if math.isnan(one.value)}
        units = series.steps.units.tolist()
        for value, *at in zip(sent_values(series.values).tolist(), series.times_ms.tolist(), units, strict=True):
            yield math.nan if value == 0 and tuple(at) in is_nan else value, *at

    def _log_batches(self, metrics: list[Any], run: Any) -> None:
        for batch in batches(metrics, METRICS_IN_BATCH):
            self._stores.tracking.log_batch(run.info.run_id, batch, [], [])


def _called(facts: Facts) -> str:
    return _NUMBERED if any(name.isdecimal() for name in facts.below(EVALUATIONS)) else _NAMED


def _measured(metric: Any) -> _Measured:
    return metric.key, metric.run_id, metric.step, metric.timestamp


def _dataset(facts: Facts, folder: str) -> tuple[str | None, str | None]:
    return facts.text(f"{folder}/dataset/name") or None, facts.text(f"{folder}/dataset/digest") or None


def _points(path: str, metrics: list[Any]) -> FloatPoints:
    steps, moments = ([getattr(one, name) for one in metrics] for name in ("step", "timestamp"))
    return FloatPoints(
        [path],
        np.array([len(metrics)], np.int64),
        Steps(np.array(steps, np.int64)),
        np.array(moments, np.int64),
        np.array([one.value for one in metrics], np.float64),
    )
