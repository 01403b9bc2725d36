"""Which runs a trace was linked to after it was made, beside the run that it was made in.

A database tells the runs of a trace. A server tells only the traces of a run: a source asks for every run that there
is, once, since a trace may be linked to runs of any experiment; a target only for those that it linked itself, which a tag of
the trace names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from shardmig.adapters.mlflow.objects.base import TAGS
from shardmig.adapters.mlflow.objects.stores import EXPERIMENTS_IN_SEARCH, Stores, batches
from shardmig.adapters.mlflow.objects.tag_lists import id_tags, ids_told
from shardmig.adapters.mlflow.source.listing import engine_of, runs_of_traces
from shardmig.records import Finding

LINKED: Final = "shardmig.linked_runs"
"""Tags of a trace, see `tag_lists`: MLflow's ids of the runs that shardmig linked it to."""
LINKED_PROMPTS: Final = "mlflow.linkedPrompts"
"""Tag of a trace: names and versions of prompts, as JSON."""
RUN: Final = "mlflow.sourceRun"
"""Metadata of a trace: the run that it was made in."""


class TraceLinks:
    """Links of traces to runs in one MLflow."""

    def __init__(self, stores: Stores, *, is_target: bool) -> None:
        self._stores = stores
        self._is_target = is_target
        self._traces: dict[str, dict[str, set[str]]] = {}
        self._expected: dict[str, list[str] | None] = {}

    def expect(self, trace_ids: Sequence[str]) -> None:
        """These are asked about next: in a database one look for all of them."""
        self._expected = dict.fromkeys(trace_ids)

    def forget(self, trace_id: str) -> None:
        """It is written to: what was found of it holds no longer."""
        if trace_id in self._expected:
            self._expected[trace_id] = None

    def link(self, trace_id: str, run_ids: list[str], tags: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        """Link a trace that has these tags; the tags that remember it."""
        for run_id in run_ids:
            self._stores.tracking.link_traces_to_run([trace_id], run_id)
            self._traces.pop(run_id, None)
        return id_tags(LINKED, [*ids_told(LINKED, tags), *run_ids], tags) if run_ids else {}

    def link_prompts(self, trace_id: str, linked: str) -> Iterator[Finding]:
        """Link a trace to versions of prompts. `linked`: the tag LINKED_PROMPTS."""
        from mlflow.entities.model_registry import PromptVersion

        version: Any = PromptVersion  # abstract to a type checker only
        try:
            versions = [version(one["name"], int(one["version"]), "") for one in _entries(linked)]
        except ValueError as error:
            detail = f"it cannot be read ({error}), so the trace is linked to no prompt: servers cut such tags"
            yield Finding("approximation", "prompts-not-linked", TAGS + LINKED_PROMPTS, detail=detail)
            return
        if versions:
            self._stores.tracking.link_prompts_to_trace(trace_id, versions)

    def runs_of(self, info: Any) -> list[str]:
        """The runs that a trace was linked to."""
        if not self._stores.links_traces:
            return []
        if info.trace_id in self._expected and (engine := engine_of(self._stores)) is not None:
            return self._expected_of(info.trace_id, engine)
        by_trace = getattr(self._stores.tracking, "search_entities_by_source", None)
        if by_trace is not None:
            return list(by_trace(info.trace_id, "trace", "run").to_list())
        return self._linked_here(info) if self._is_target else self._by_trace.get(info.trace_id, [])

    def _expected_of(self, trace_id: str, engine: Any) -> list[str]:
        """Once: it may be linked afterwards."""
        if self._expected[trace_id] is None:
            asked = [id_ for id_, runs in self._expected.items() if runs is None]
            linked = runs_of_traces(engine, asked)
            self._expected |= {id_: linked.get(id_, []) for id_ in asked}
        return self._expected.pop(trace_id) or []

    def _linked_here(self, info: Any) -> list[str]:
        return [run for run in ids_told(LINKED, info.tags) if info.trace_id in self._traces_of(run, info.experiment_id)]

    def _traces_of(self, run: str, experiment: str) -> set[str]:
        """Those of this experiment that the run has."""
        known = self._traces.setdefault(run, {})
        if experiment not in known:
            known[experiment] = set(self._linked_to(run, [experiment]))
        return known[experiment]

    @cached_property
    def _by_trace(self) -> dict[str, list[str]]:
        """The runs of each trace that was linked to any."""
        experiments = [str(one.experiment_id) for one in self._stores.experiments()]
        searched = list(batches(experiments, EXPERIMENTS_IN_SEARCH))
        found: dict[str, list[str]] = {}
        for run in self._stores.search_runs(""):
            for trace in chain.from_iterable(self._linked_to(run.info.run_id, some) for some in searched):
                found.setdefault(trace, []).append(run.info.run_id)
        return found

    def _linked_to(self, run: str, experiments: list[str]) -> Iterator[str]:
        """Traces of these experiments. The search finds those that were made in the run, too."""
        for page in self._stores.trace_pages(experiments, f"attributes.run_id = '{run}'"):
            yield from (info.trace_id for info in page if info.trace_metadata.get(RUN) != run)


def prompts_in(linked: object) -> set[str]:
    """The names of the prompts in a tag LINKED_PROMPTS; none where it cannot be read."""
    try:
        return {one["name"] for one in _entries(linked)}
    except ValueError:  # whoever links the trace tells of it
        return set()


def with_prompts_named(tags: dict[str, str], named: Callable[[str], str]) -> dict[str, str]:
    """The tags of a trace with prompts called as they are here. `named`: by their names in the source."""
    try:
        linked = _entries(tags.get(LINKED_PROMPTS, ""))
    except ValueError:  # see `TraceLinks.link_prompts`
        return tags
    here = [one | {"name": named(one["name"])} for one in linked]
    return tags if here == linked else tags | {LINKED_PROMPTS: json.dumps(here)}


def _entries(linked: object) -> list[dict[str, Any]]:
    """What a tag LINKED_PROMPTS lists: of each prompt its name, version, and whatever else. Raises ValueError for another tag."""
    try:
        entries: list[dict[str, Any]] = [dict(one) for one in json.loads(str(linked or "[]"))]
        for one in entries:
            one["name"] = str(one["name"])
            int(one["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(repr(error)) from error
    return entries
