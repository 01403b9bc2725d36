"""Traces: what an application did, span by span, and what people and judges said of it. A trace keeps its id.

    MLflow                      field
    id, name                    sys/id, sys/name
    request time                sys/creation_time
    state, duration (ms)        sys/mlflow/state, sys/mlflow/execution_duration
    previews, client's id       sys/mlflow/request_preview, response_preview, client_request_id
    tag, metadata               tags/<key>, metadata/<key>, string; the session is metadata/mlflow.trace.session
    run, logged model           run/project, run/id; model/project, model/id
    links to runs               linked_runs/<n>/project, id
    assessment                  assessments/<id>/name, kind, value, and whole as JSON: json; its run: run/project, run/id
    span                        spans, string_series: one point a span (JSON), with its place as step and its start as time
    attachment                  artifacts/<path>, file

Spans are read from wherever they are stored, the database or `traces.json` among the artifacts, and stored there again.
A server derives the id of a trace from its spans: those of a trace with another id are written as `traces.json`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from shardmig.adapters.mlflow.native import ARTIFACTS
from shardmig.adapters.mlflow.objects.base import (
    SERIES_POINTS,
    TAGS,
    Facts,
    Making,
    Stored,
    Tree,
    scalars,
    tag_fields,
    texts_of,
    times,
    upload,
)
from shardmig.adapters.mlflow.objects.references import References, not_here
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, batches, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.errors import BadInput, NotFound, TargetConflict
from shardmig.records import Field, Finding, MigrationKey, Points, RunId, Scope, Steps, StringPoints, Texts

METADATA: Final = "metadata/"
ASSESSMENTS: Final = "assessments/"
LINKED_RUNS: Final = "linked_runs/"
SPANS: Final = "spans"
SPANS_FILE: Final = "traces.json"
SPANS_IN_REQUEST: Final = 200

_NAME: Final = "mlflow.traceName"
_ARTIFACT_LOCATION: Final = "mlflow.artifactLocation"
_SPANS_LOCATION: Final = "mlflow.trace.spansLocation"
_LINKED_PROMPTS: Final = "mlflow.linkedPrompts"
_RUN: Final = "mlflow.sourceRun"
_MODEL: Final = "mlflow.modelId"
_ASSESSING_RUN: Final = "mlflow.assessment.sourceRunId"
_FINALIZED: Final = "mlflow.trace.infoFinalized"
_IN_STORE: Final = ("TRACKING_STORE", "ARCHIVE_REPO")
_OWN: Final = frozenset(
    {
        TAGS + _ARTIFACT_LOCATION,
        TAGS + _SPANS_LOCATION,
        METADATA + _RUN,
        METADATA + _MODEL,
        METADATA + _FINALIZED,
    }
)
_EXPERIMENTS_IN_SEARCH: Final = 100


class Traces:
    """`ObjectClass` of traces."""

    scope: Scope = "traces"

    def __init__(self, stores: Stores, references: References) -> None:
        self._stores = stores
        self._references = references
        self._linked: dict[str, dict[str, list[str]]] = {}

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        return self._search(None)

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass."""
        return list(self._search(f"tag.`shardmig.key` = '{key}'"))

    def get(self, id_: str) -> Stored:
        """As ObjectClass."""
        with mlflow_errors(f"trace {id_}"):
            return self._stored(self._stores.tracking.get_trace_info(id_), is_deleted=False)

    def fields(self, stored: Stored) -> Iterator[Field]:
        """As ObjectClass."""
        info = stored.content
        texts = {
            "sys/id": info.trace_id,
            "sys/name": info.tags.get(_NAME),
            "sys/mlflow/state": str(info.state.value),
            "sys/mlflow/execution_duration": info.execution_duration,
            "sys/mlflow/request_preview": info.request_preview,
            "sys/mlflow/response_preview": info.response_preview,
            "sys/mlflow/client_request_id": info.client_request_id,
        }
        yield from scalars(texts)
        yield from times({"sys/creation_time": info.request_time})
        yield from tag_fields(TAGS, info.tags)
        yield from (Field(METADATA + key, "string", text) for key, text in info.trace_metadata.items())
        yield from self._references.fields("run", "runs", info.trace_metadata.get(_RUN))
        yield from self._references.fields("model", "logged_models", info.trace_metadata.get(_MODEL))
        linked = sorted(self._references.identity("runs", run) for run in self._runs_linked_to(info))
        for number, identity in enumerate(linked):
            names = {"project": identity.project, "id": identity.id}
            yield from scalars({f"{LINKED_RUNS}{number}/{name}": text for name, text in names.items()})
        for assessment in info.assessments:
            yield from self._assessment_fields(assessment)

    def points(self, stored: Stored) -> Iterator[Points]:
        """As ObjectClass."""
        spans = sorted(self._spans(stored.content), key=lambda span: (span.start_time_ns, span.span_id))
        for start in range(0, len(spans), SERIES_POINTS):
            part = spans[start : start + SERIES_POINTS]
            yield StringPoints(
                [SPANS],
                np.array([len(part)], np.int64),
                Steps(np.arange(start, start + len(part), dtype=np.int64)),
                np.array([span.start_time_ns // 1_000_000 for span in part], np.int64),
                Texts.from_list([self._span_text(span) for span in part]),
            )

    def trees(self, stored: Stored) -> Iterator[Tree]:
        """As ObjectClass: attachments."""
        if location := stored.tags.get(_ARTIFACT_LOCATION):
            yield Tree(ARTIFACTS, location, frozenset({SPANS_FILE}))

    def is_volatile(self, path: str) -> bool:  # noqa: ARG002
        """As ObjectClass."""
        return False

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        return path in _OWN

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        facts = making.facts
        trace_id = facts.text("sys/id")
        self._refuse_foreign(trace_id, making)
        experiment = self._references.experiment(facts.run.project)
        findings = [
            not_here(folder, facts)
            for folder, scope in self._folders_of_references(facts)
            if self._references.here(facts, folder, scope) is None
        ]
        assessments = [self._assessment(facts, f"{ASSESSMENTS}{name}") for name in facts.below(ASSESSMENTS)]
        invalid = {one.assessment_id for one in assessments if one.valid is False}
        overriding = [one for one in assessments if one.overrides in invalid]
        first = [one for one in assessments if one not in overriding]
        made = self._stores.tracking.start_trace(self._info(trace_id, experiment, making, first))
        for one in sorted(overriding, key=lambda one: one.create_time_ms):  # which makes those overridden invalid
            self._stores.tracking.create_assessment(one)
        stored = self._stored(made, is_deleted=False)
        self._log_spans(stored, experiment, making)
        for folder in (f"{LINKED_RUNS}{name}" for name in facts.below(LINKED_RUNS)):
            if (run := self._references.here(facts, folder, "runs")) is not None:
                self._stores.tracking.link_traces_to_run([trace_id], run)
        self._link_prompts(trace_id, facts.text(TAGS + _LINKED_PROMPTS))
        findings += upload(self._stores.artifacts(stored.tags[_ARTIFACT_LOCATION]), making, ARTIFACTS)
        self._linked.clear()
        return self.get(trace_id), findings

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: nothing does."""

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass."""
        for key, text in tags.items():
            self._stores.tracking.set_trace_tag(stored.id, key, text)

    def discard(self, stored: Stored) -> None:
        """As ObjectClass."""
        experiment = stored.content.experiment_id
        self._stores.tracking.delete_traces(experiment_id=experiment, trace_ids=[stored.id])

    def _search(self, condition: str | None) -> Iterator[Stored]:
        experiments = {one.experiment_id: one.lifecycle_stage == "deleted" for one in self._stores.experiments()}
        for ids in batches(experiments, _EXPERIMENTS_IN_SEARCH):
            token = None
            while True:
                found, token = self._stores.tracking.search_traces(
                    locations=ids, filter_string=condition, max_results=IN_PAGE, page_token=token
                )
                yield from (self._stored(one, is_deleted=experiments[str(one.experiment_id)]) for one in found)
                if not token:
                    break

    def _stored(self, info: Any, *, is_deleted: bool) -> Stored:
        told = [json.dumps(one.to_dictionary(), sort_keys=True, default=str) for one in info.assessments]
        own = (info.state, info.request_time, info.execution_duration, sorted(info.trace_metadata.items()))
        return Stored(
            id=info.trace_id,
            project=self._references.project_of(info.experiment_id),
            name=RunId(info.trace_id),
            tags=dict(info.tags),
            content=info,
            revision=repr((own, sorted(info.tags.items()), sorted(told))),
            created_ms=info.request_time,
            is_deleted=is_deleted,
        )

    def _spans(self, info: Any) -> list[Any]:
        location = info.tags.get(_SPANS_LOCATION)
        if location in _IN_STORE:
            trace = self._stores.tracking.get_trace(info.trace_id, allow_partial=True)
            return list(trace.data.spans) if trace is not None else []
        if (uri := info.tags.get(_ARTIFACT_LOCATION)) is None:
            return []
        with TemporaryDirectory(prefix="shardmig-") as folder:
            local = Path(folder, SPANS_FILE)
            try:
                self._stores.artifacts(uri).get(SPANS_FILE, local)
            except NotFound:  # it was never ended
                return []
            return _spans_of_file(local, info.trace_id)

    def _span_text(self, span: Any) -> str:
        from mlflow.tracing.utils import TraceJSONEncoder

        return json.dumps(span.to_dict(), sort_keys=True, ensure_ascii=False, cls=TraceJSONEncoder)

    def _assessment_fields(self, assessment: Any) -> Iterator[Field]:
        folder = f"{ASSESSMENTS}{assessment.assessment_id}"
        whole = assessment.to_dictionary()
        metadata = dict(whole.get("metadata") or {})
        run = metadata.pop(_ASSESSING_RUN, None)
        whole = {name: value for name, value in whole.items() if name not in ("metadata", "run_id")}
        whole |= {"metadata": metadata} if metadata else {}
        kind = next((name for name in ("feedback", "expectation", "issue") if whole.get(name) is not None), "")
        value = whole.get(kind)
        told = value.get("value", value) if isinstance(value, dict) else value
        texts = {
            "name": assessment.name,
            "kind": kind,
            "value": json.dumps(told, sort_keys=True, ensure_ascii=False),
            "json": json.dumps(whole, sort_keys=True, ensure_ascii=False),
        }
        yield from scalars({f"{folder}/{name}": text for name, text in texts.items()})
        yield from self._references.fields(f"{folder}/run", "runs", run)

    def _folders_of_references(self, facts: Facts) -> Iterator[tuple[str, Scope]]:
        if facts.text("run/id"):
            yield "run", "runs"
        if facts.text("model/id"):
            yield "model", "logged_models"
        yield from ((f"{LINKED_RUNS}{name}", "runs") for name in facts.below(LINKED_RUNS))
        for name in facts.below(ASSESSMENTS):
            if facts.text(f"{ASSESSMENTS}{name}/run/id"):
                yield f"{ASSESSMENTS}{name}/run", "runs"

    def _refuse_foreign(self, trace_id: str, making: Making) -> None:
        try:
            there = self.get(trace_id)
        except NotFound:
            return
        if there.tags.get("shardmig.key") != making.tags["shardmig.key"]:
            raise TargetConflict(
                f"a trace {trace_id} is in MLflow already, and did not come from here", hint="delete it first"
            )

    def _info(self, trace_id: str, experiment: str, making: Making, assessments: list[Any]) -> Any:
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        facts = making.facts
        metadata = facts.texts(METADATA)
        for key, folder, scope in ((_RUN, "run", "runs"), (_MODEL, "model", "logged_models")):
            found = self._references.here(facts, folder, scope)  # type: ignore[arg-type]
            if key in metadata and found is not None:
                metadata[key] = found
        left_out = (_ARTIFACT_LOCATION, _SPANS_LOCATION)
        tags = {key: text for key, text in facts.texts(TAGS).items() if key not in left_out}
        return TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=facts.number("sys/creation_time") or 0,
            state=TraceState(facts.text("sys/mlflow/state")),
            request_preview=facts.text("sys/mlflow/request_preview") or None,
            response_preview=facts.text("sys/mlflow/response_preview") or None,
            client_request_id=facts.text("sys/mlflow/client_request_id") or None,
            execution_duration=facts.number("sys/mlflow/execution_duration"),
            trace_metadata=metadata,
            tags=tags | making.tags,
            assessments=assessments,
        )

    def _assessment(self, facts: Facts, folder: str) -> Any:
        from mlflow.entities import Assessment

        whole = json.loads(facts.text(f"{folder}/json"))
        if (old := facts.text(f"{folder}/run/id")) != "":
            run = self._references.here(facts, f"{folder}/run", "runs") or old
            whole["metadata"] = whole.get("metadata", {}) | {_ASSESSING_RUN: run}
        return Assessment.from_dictionary(whole)

    def _log_spans(self, stored: Stored, experiment: str, making: Making) -> None:
        texts = texts_of(making.points)
        is_in_store = making.facts.text(TAGS + _SPANS_LOCATION) in _IN_STORE
        if is_in_store and (self._stores.http is None or self._is_derived(stored.id)):
            for batch in batches(map(_span, texts), SPANS_IN_REQUEST):
                self._stores.tracking.log_spans(experiment, batch)
            return
        with TemporaryDirectory(prefix="shardmig-") as folder:
            local = Path(folder, SPANS_FILE)
            if _write_spans(texts, local):
                self._stores.artifacts(stored.tags[_ARTIFACT_LOCATION]).put(local, SPANS_FILE)

    def _is_derived(self, trace_id: str) -> bool:
        """Is it the id that a server gives a trace by its spans?"""
        digits = trace_id.removeprefix("tr-")
        return trace_id.startswith("tr-") and len(digits) == 32 and all(one in "0123456789abcdef" for one in digits)

    def _link_prompts(self, trace_id: str, linked: str) -> None:
        from mlflow.entities.model_registry import PromptVersion

        try:
            entries = json.loads(linked) if linked else []
        except ValueError:
            return
        version: Any = PromptVersion  # abstract to a type checker only
        versions = [version(one["name"], int(one["version"]), "") for one in entries]
        if versions:
            self._stores.tracking.link_prompts_to_trace(trace_id, versions)

    def _runs_linked_to(self, info: Any) -> list[str]:
        """The runs that a trace was linked to afterwards. A server tells it by run only."""
        if self._by_source is not None:
            found = self._by_source(info.trace_id, "trace", "run")
            return list(found.to_list())
        if info.experiment_id not in self._linked:
            self._linked[info.experiment_id] = self._links_in(info.experiment_id)
        return self._linked[info.experiment_id].get(info.trace_id, [])

    @cached_property
    def _by_source(self) -> Any:
        return getattr(self._stores.tracking, "search_entities_by_source", None)

    def _links_in(self, experiment: str) -> dict[str, list[str]]:
        from mlflow.entities import ViewType

        linked: dict[str, list[str]] = defaultdict(list)
        runs = pages(
            self._stores.tracking.search_runs,
            experiment_ids=[experiment],
            filter_string="",
            run_view_type=ViewType.ALL,
            max_results=IN_PAGE,
            order_by=[],
        )
        for run_id in [run.info.run_id for run in runs]:
            token = None
            while True:
                found, token = self._stores.tracking.search_traces(
                    locations=[experiment],
                    filter_string=f"attributes.run_id = '{run_id}'",
                    max_results=IN_PAGE,
                    page_token=token,
                )
                for one in found:
                    if one.trace_metadata.get(_RUN) != run_id:
                        linked[one.trace_id].append(run_id)
                if not token:
                    break
        return linked


def _span(text: str) -> Any:
    from mlflow.entities import Span

    try:
        return Span.from_dict(json.loads(text))
    except (ValueError, KeyError) as error:
        raise BadInput(f"a span cannot be read: {error}", field=SPANS) from error


def _write_spans(texts: Iterator[str], path: Path) -> int:
    """How many there were."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"spans": [')
        for count, text in enumerate(texts, 1):
            file.write(f"{', ' if count > 1 else ''}{text}")
        file.write("]}")
    return count


def _spans_of_file(path: Path, trace_id: str) -> list[Any]:
    from mlflow.entities import Span

    try:
        return [Span.from_dict(one) for one in json.loads(path.read_bytes())["spans"]]
    except (ValueError, KeyError) as error:
        raise BadInput(f"{SPANS_FILE} of trace {trace_id} cannot be read: {error}", field=SPANS) from error
