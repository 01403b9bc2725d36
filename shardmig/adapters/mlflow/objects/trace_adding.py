"""What a merge adds to a trace that somebody changed: what is missing, and nothing is taken away. Idempotent.

What people said of the copy is nowhere else, so such a trace is never removed to be made anew. MLflow changes neither the
metadata nor the state of a trace that is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from shardmig.adapters.mlflow.native import ARTIFACTS
from shardmig.adapters.mlflow.objects.assessments import ASSESSMENTS, assessments_of
from shardmig.adapters.mlflow.objects.base import TAGS, Facts, Making, json_of, texts_of, upload
from shardmig.adapters.mlflow.objects.references import References, not_here
from shardmig.adapters.mlflow.objects.spans import (
    ARTIFACT_LOCATION,
    SPANS_LOCATION,
    go_to_store,
    log_spans,
    spans_of,
)
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.objects.trace_links import LINKED_PROMPTS, TraceLinks, with_prompts_named
from shardmig.records import Finding, Points

LINKED_RUNS = "linked_runs/"
MADE_BY_STORES = (ARTIFACT_LOCATION, SPANS_LOCATION)


def tags_here(facts: Facts, references: References) -> dict[str, str]:
    """The tags that came with a trace, as they are to be here; without those that stores make."""
    tags = {key: text for key, text in facts.texts(TAGS).items() if key not in MADE_BY_STORES}
    return with_prompts_named(tags, references.model_named)


class TraceAdding:
    """One trace here, and what is added to it. `tag` sets tags of the trace."""

    def __init__(
        self,
        stores: Stores,
        references: References,
        links: TraceLinks,
        info: Any,
        tag: Callable[[dict[str, str]], None],
    ) -> None:
        self._stores = stores
        self._references = references
        self._links = links
        self._info = info
        self._tag = tag

    def add(self, making: Making) -> list[Finding]:
        """All that is missing; which references lead to nothing here."""
        facts, held = making.facts, self._info.tags
        tags = tags_here(facts, self._references)
        linked = tags.get(LINKED_PROMPTS, "")
        prompts = (
            self._links.link_prompts(self._info.trace_id, linked) if held.get(LINKED_PROMPTS, "") != linked else ()
        )
        findings = [*self._assess(facts), *self._link(facts), *prompts]
        self._log_spans(making.points, facts)
        self._tag({key: text for key, text in tags.items() if held.get(key) != text})
        return [*findings, *upload(self._stores.artifacts(held[ARTIFACT_LOCATION]), making, ARTIFACTS)]

    def _assess(self, facts: Facts) -> Iterator[Finding]:
        held = {one.assessment_id for one in self._info.assessments}
        fields = [one for one in facts.fields if not one.path.startswith(tuple(f"{ASSESSMENTS}{id_}/" for id_ in held))]
        missing = Facts(facts.run, fields)
        at_once, overriding = assessments_of(missing, self._references, is_server=self._stores.http is not None)
        for one in [*at_once, *overriding]:
            self._stores.tracking.create_assessment(one)
        for id_ in missing.below(ASSESSMENTS):
            folder = f"{ASSESSMENTS}{id_}/run"
            if missing.text(f"{folder}/id") and self._references.here(missing, folder, "runs") is None:
                yield not_here(folder, missing)

    def _link(self, facts: Facts) -> Iterator[Finding]:
        held = self._links.runs_of(self._info)
        known = {self._references.identity("runs", run) for run in held}
        new: list[str] = []
        for name in facts.below(LINKED_RUNS):
            folder = f"{LINKED_RUNS}{name}"
            if (facts.text(f"{folder}/project"), facts.text(f"{folder}/id")) in known:
                continue
            run = self._references.here(facts, folder, "runs")
            if run is None:
                yield not_here(folder, facts)
            elif run not in held:
                new.append(run)
        self._tag(self._links.link(self._info.trace_id, new, self._info.tags))

    def _log_spans(self, points: Iterable[Points], facts: Facts) -> None:
        held = {told["span_id"]: told for told in map(_told, spans_of(self._stores, self._info))}
        new = [text for text in texts_of(points) if held.get(_id_of(text)) != json.loads(text)]
        if not new:
            return
        if go_to_store(self._stores, self._info.trace_id, facts):
            log_spans(self._stores, self._info, facts, iter(new))
            return
        others = [json_of(held[id_]) for id_ in held.keys() - set(map(_id_of, new))]
        log_spans(self._stores, self._info, facts, chain(others, new))


def _told(span: Any) -> Any:
    from mlflow.tracing.utils import TraceJSONEncoder

    return json.loads(json_of(span.to_dict(), cls=TraceJSONEncoder))


def _id_of(text: str) -> Any:
    return json.loads(text).get("span_id")
