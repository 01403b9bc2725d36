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

A trace that takes one request for all of its spans and needs nothing after them is marked when it is made: the state
WITH_SPANS is complete once MLflow has noted where its spans are, which it does when it takes them.

See `spans`, `assessments` and `trace_links`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from shardmig.adapters.mlflow.native import ARTIFACTS
from shardmig.adapters.mlflow.objects import changes
from shardmig.adapters.mlflow.objects.assessments import assessing_runs, assessment_fields, assessments_of, told
from shardmig.adapters.mlflow.objects.base import (
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
from shardmig.adapters.mlflow.objects.cuts import METADATA_CHARACTERS, TAG_CHARACTERS, cuts
from shardmig.adapters.mlflow.objects.read_ahead import ReadAhead
from shardmig.adapters.mlflow.objects.references import References, not_here
from shardmig.adapters.mlflow.objects.sought import Sought
from shardmig.adapters.mlflow.objects.spans import (
    ARTIFACT_LOCATION,
    SPANS_FILE,
    SPANS_IN_REQUEST,
    SPANS_LOCATION,
    TRACKING_STORE,
    TraceSpans,
    go_to_store,
    log_spans,
    log_together,
    span_points,
    spans_of,
)
from shardmig.adapters.mlflow.objects.starting import start_together
from shardmig.adapters.mlflow.objects.stores import EXPERIMENTS_IN_SEARCH, Stores, batches
from shardmig.adapters.mlflow.objects.trace_adding import LINKED_RUNS, MADE_BY_STORES, TraceAdding, tags_here
from shardmig.adapters.mlflow.objects.trace_links import LINKED_PROMPTS, RUN, TraceLinks
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.mlflow.source.listing import engine_of, runs_of_traces
from shardmig.adapters.sidecar import provenance
from shardmig.errors import AdapterError, NotFound, Permanent
from shardmig.records import Field, Finding, MigrationKey, Points, RunId, RunRef, Scope

METADATA: Final = "metadata/"

_NAME: Final = "mlflow.traceName"
_MODEL: Final = "mlflow.modelId"
_FINALIZED: Final = "mlflow.trace.infoFinalized"
_OWN: Final = frozenset(
    {*(TAGS + key for key in MADE_BY_STORES), *(METADATA + key for key in (RUN, _MODEL, _FINALIZED))}
)

WITH_SPANS: Final = "complete with spans"


class Opened(NamedTuple):
    """A trace that is to be made: its info, and its spans as JSON, some of them taken already. `overriding`: assessments that
    come after the others. `is_one_request`: nothing comes after its spans, which fit into one request."""

    info: Any
    findings: list[Finding]
    leading: list[str]
    spans: Iterator[str]
    overriding: list[Any]
    is_one_request: bool


class Traces:
    """`ObjectClass` of traces."""

    scope: Scope = "traces"
    is_linked = False
    keeps_id = True
    completes = False

    def __init__(self, stores: Stores, references: References) -> None:
        self._stores = stores
        self._references = references
        self._links = TraceLinks(stores, is_target=references.is_target)
        self._sought = Sought(self._infos)
        self._ahead = ReadAhead(stores)
        self._written: dict[str, Any] = {}
        self._folders: dict[str, set[str]] = {}
        self._roots: dict[str, str] = {}

    def expect(self, ids: Sequence[str]) -> None:
        """These are read next, in this order: they may be fetched together."""
        self._ahead.expect(ids)
        self._links.expect(ids)

    def look_up(self, runs: Sequence[RunRef]) -> None:
        """These are looked for and then read or written next, in this order."""
        self._sought.expect(runs)
        self.expect([run.id for run in runs])

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        return self._search(None)

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass."""
        if (id_ := self._sought.id_of(key)) is None:
            return list(self._search(f"tag.`{provenance.KEY}` = '{key}'"))
        info = self._sought.info(id_)
        is_here = info is not None and info.tags.get(provenance.KEY) == key
        return [self._stored(info, is_deleted=False)] if is_here else []

    def of_model(self, model_id: str) -> Iterator[Stored]:
        """Those of a logged model, by MLflow's id of it."""
        return self._search(f"request_metadata.`{_MODEL}` = '{model_id}'")

    def get(self, id_: str) -> Stored:
        """As ObjectClass."""
        if self._sought.is_absent(id_):
            raise NotFound(f"there is no trace {id_}")
        fetched = self._ahead.get(id_)
        if (written := self._written.pop(id_, None)) is not None:
            return self._stored(written, is_deleted=False)
        with mlflow_errors(f"trace {id_}"):
            info = fetched.info if fetched is not None else self._stores.tracking.get_trace_info(id_)
            return self._stored(info, is_deleted=False)

    def fields(self, stored: Stored) -> Iterator[Field]:
        """As ObjectClass."""
        info = stored.content
        if self._stores.http is not None and not self._references.is_target:
            self._stores.lost += cuts(TAGS, info.tags, TAG_CHARACTERS)
            self._stores.lost += cuts(METADATA, info.trace_metadata, METADATA_CHARACTERS)
        return self._fields(info, self._links.runs_of(info))

    def _fields(self, info: Any, linked_runs: Iterable[str]) -> Iterator[Field]:
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
        yield from self._references.fields("run", "runs", info.trace_metadata.get(RUN))
        yield from self._references.fields("model", "logged_models", info.trace_metadata.get(_MODEL))
        linked = sorted(self._references.identity("runs", run) for run in linked_runs)
        for number, identity in enumerate(linked):
            names = {"project": identity.project, "id": identity.id}
            yield from scalars({f"{LINKED_RUNS}{number}/{name}": text for name, text in names.items()})
        for assessment in info.assessments:
            yield from assessment_fields(assessment, self._references)

    def points(self, stored: Stored) -> Iterator[Points]:
        """As ObjectClass."""
        fetched = self._ahead.take(stored.id)
        if fetched is not None and stored.tags.get(SPANS_LOCATION) == TRACKING_STORE:
            return span_points(fetched.data.spans)
        return span_points(spans_of(self._stores, stored.content))

    def trees(self, stored: Stored) -> Iterator[Tree]:
        """As ObjectClass: attachments."""
        location = stored.tags.get(ARTIFACT_LOCATION)
        if location and self._may_have_files(location, stored.id):
            yield Tree(ARTIFACTS, location, frozenset({SPANS_FILE}))

    def is_volatile(self, path: str) -> bool:  # noqa: ARG002
        """As ObjectClass."""
        return False

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        return path in _OWN

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        return self.complete(self.open(making), making)

    def open(self, making: Making) -> Opened:
        """A trace before its first request: what is to be made, with the first spans."""
        facts = making.facts
        trace_id = facts.text("sys/id") or facts.run.id
        experiment = self._references.experiment(facts.run.project)
        findings = [
            not_here(folder, facts)
            for folder, scope in self._folders_of_references(facts)
            if self._references.here(facts, folder, scope) is None
        ]
        first, overriding = assessments_of(facts, self._references, is_server=self._stores.http is not None)
        info = self._info(trace_id, experiment, making, first)
        spans = texts_of(making.points)
        leading = list(islice(spans, SPANS_IN_REQUEST + 1))
        is_one_request = go_to_store(self._stores, trace_id, facts) and 0 < len(leading) <= SPANS_IN_REQUEST
        is_all = not overriding and not making.refs and not self._needs_more(facts)
        if is_one_request and is_all and not making.lost():
            info.tags.update(self._last_tags(info, facts))
        return Opened(info, findings, leading, spans, overriding, is_one_request=is_one_request and is_all)

    def complete(self, opened: Opened, making: Making) -> tuple[Stored, list[Finding]]:
        """Make it, by as many requests as it takes."""
        facts, trace_id = making.facts, opened.info.trace_id
        made = self.start(opened)
        for one in opened.overriding:
            self._stores.tracking.create_assessment(one)
        log_spans(self._stores, made, facts, chain(opened.leading, opened.spans))
        linked = (self._references.here(facts, f"{LINKED_RUNS}{name}", "runs") for name in facts.below(LINKED_RUNS))
        stored = self._stored(made, is_deleted=False)
        self.tag(stored, self._links.link(trace_id, [run for run in linked if run is not None]))
        findings = [
            *opened.findings,
            *self._links.link_prompts(trace_id, opened.info.tags.get(LINKED_PROMPTS, "")),
            *upload(self._stores.artifacts(stored.tags[ARTIFACT_LOCATION]), making, ARTIFACTS),
        ]
        return self.get(trace_id), findings

    def start(self, opened: Opened) -> Any:
        """Make the trace without its spans. Gives its info."""
        self._written_to(opened.info.trace_id)
        return self._stores.tracking.start_trace(opened.info)

    def start_together(self, opened: Sequence[Opened]) -> dict[str, AdapterError]:
        """`start` each. Which traces were not made, and why."""
        for one in opened:
            self._written_to(one.info.trace_id)
        return start_together(self._stores, [one.info for one in opened])

    def log_spans_together(self, started: Sequence[Opened]) -> dict[str, AdapterError]:
        """The spans of traces that take one request each. Which traces did not get theirs, and why. The others are read next,
        together."""
        refused = log_together(
            self._stores, [TraceSpans(one.info.trace_id, one.info.experiment_id, one.leading) for one in started]
        )
        self._written = {}
        with suppress(AdapterError, NotImplementedError):  # then each is read alone
            infos = self._infos([one.info.trace_id for one in started]) if len(started) > 1 else ()
            self._written = {info.trace_id: info for info in infos}
        return refused

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. One that nobody changed is made anew, under its id; to any other only what is missing is added."""
        if making.is_left_alone:
            self.discard(stored)
            return self.make(making)
        tag = partial(self.tag, stored)
        findings = TraceAdding(self._stores, self._references, self._links, stored.content, tag).add(making)
        self._written_to(stored.id)
        return self.get(stored.id), findings

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: nothing does."""

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass."""
        self._written_to(stored.id)
        for key, text in tags.items():
            self._stores.tracking.set_trace_tag(stored.id, key, text)

    def discard(self, stored: Stored) -> None:
        """As ObjectClass."""
        self._written_to(stored.id)
        experiment = stored.content.experiment_id
        self._stores.tracking.delete_traces(experiment_id=experiment, trace_ids=[stored.id])

    def _written_to(self, id_: str) -> None:
        """What was fetched of it before holds no longer."""
        self._sought.forget(id_)
        self._ahead.forget(id_)
        self._links.forget(id_)
        self._written.pop(id_, None)

    def _search(self, condition: str | None) -> Iterator[Stored]:
        experiments = {one.experiment_id: one.lifecycle_stage == "deleted" for one in self._stores.experiments()}
        for ids in batches(experiments, EXPERIMENTS_IN_SEARCH):
            for found in self._stores.trace_pages(ids, condition):
                linked = {} if self._references.is_target else self._linked_runs(found)
                for one in found:
                    is_deleted = experiments[str(one.experiment_id)]
                    yield self._stored(one, is_deleted=is_deleted, linked=linked.get(one.trace_id, ()))

    def _linked_runs(self, infos: Iterable[Any]) -> Mapping[str, Sequence[str]]:
        """The runs that traces were linked to, where that takes one look: in a database."""
        return runs_of_traces(engine_of(self._stores), [one.trace_id for one in infos])

    def _stored(self, info: Any, *, is_deleted: bool, linked: Sequence[str] = ()) -> Stored:
        """`linked`: for the revision."""
        said = [json.dumps(told(one), sort_keys=True, default=str) for one in info.assessments]
        own = (info.state, info.request_time, info.execution_duration, sorted(info.trace_metadata.items()))
        tags = dict(info.tags)
        if tags.get(provenance.STATE) == WITH_SPANS and SPANS_LOCATION in tags:
            tags[provenance.STATE] = provenance.COMPLETE
        return Stored(
            id=info.trace_id,
            project=self._references.project_of(info.experiment_id),
            name=RunId(info.trace_id),
            tags=tags,
            content=info,
            revision=repr((own, sorted(info.tags.items()), sorted(said), list(linked))),
            created_ms=info.request_time,
            is_deleted=is_deleted,
        )

    def _folders_of_references(self, facts: Facts) -> Iterator[tuple[str, Scope]]:
        if facts.text("run/id"):
            yield "run", "runs"
        if facts.text("model/id"):
            yield "model", "logged_models"
        yield from ((f"{LINKED_RUNS}{name}", "runs") for name in facts.below(LINKED_RUNS))
        yield from ((folder, "runs") for folder in assessing_runs(facts))

    def _needs_more(self, facts: Facts) -> bool:
        """Is there something to do after the spans are there, or later?"""
        return bool(facts.below(LINKED_RUNS) or facts.text(TAGS + LINKED_PROMPTS) or self._references.missing)

    def _last_tags(self, info: Any, facts: Facts) -> dict[str, str]:
        """What the trace is marked with in the end, as far as it is known before: none where that takes several tags."""
        expected = copy(info)
        location = f"{self._root(info.experiment_id)}/traces/{info.trace_id}/artifacts"
        expected.tags = info.tags | {ARTIFACT_LOCATION: location, SPANS_LOCATION: TRACKING_STORE}
        expected.trace_metadata = info.trace_metadata | {_FINALIZED: "true"}
        held = self._fields(expected, linked_runs=())  # it is not there yet
        known = changes.encode(changes.changes(facts.fields, held, self.is_volatile))
        return known | {provenance.STATE: WITH_SPANS} if len(known) <= 1 else {}

    def _root(self, experiment: str) -> str:
        """Where an experiment's artifacts lie."""
        if experiment not in self._roots:
            found: Any = self._stores.tracking.get_experiment(experiment)
            self._roots[experiment] = found.artifact_location.rstrip("/")
        return self._roots[experiment]

    def _infos(self, ids: list[str]) -> Iterable[Any]:
        with mlflow_errors("traces"):
            found: Iterable[Any] = self._stores.tracking.batch_get_trace_infos(ids)
        return found

    def _may_have_files(self, location: str, trace_id: str) -> bool:
        """A source asks once which traces of an experiment have a folder: most have none."""
        above, _, rest = location.rpartition(f"/{trace_id}/")
        if self._references.is_target or not above or rest != "artifacts" or not self._stores.is_far(location):
            return True
        if above not in self._folders:
            try:
                self._folders[above] = self._stores.names(above)
            except Permanent:
                return True
        return trace_id in self._folders[above]

    def _info(self, trace_id: str, experiment: str, making: Making, assessments: list[Any]) -> Any:
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        facts = making.facts
        metadata = facts.texts(METADATA)
        for key, folder, scope in ((RUN, "run", "runs"), (_MODEL, "model", "logged_models")):
            found = self._references.here(facts, folder, scope)  # type: ignore[arg-type]
            if key in metadata and found is not None:
                metadata[key] = found
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
            tags=tags_here(facts, self._references) | making.tags,
            assessments=assessments,
        )
