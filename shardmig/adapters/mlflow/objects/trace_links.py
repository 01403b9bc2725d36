"""Which runs a trace was linked to after it was made, beside the run that it was made in.

A database tells the runs of a trace. A server tells only the traces of a run: a source asks for every run of the
experiment, once; a target only for those that it linked itself, which a tag of the trace names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from shardmig.adapters.mlflow.objects.base import TAGS
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages
from shardmig.adapters.mlflow.objects.tag_lists import id_tags, ids_told
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
        self._traces: dict[str, set[str]] = {}
        self._runs: dict[str, list[str]] = {}
        self._experiments: dict[str, str] = {}

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
            entries = json.loads(linked) if linked else []
            versions = [version(one["name"], int(one["version"]), "") for one in entries]
        except (ValueError, KeyError, TypeError) as error:
            detail = f"it cannot be read ({error!r}), so the trace is linked to no prompt: servers cut such tags"
            yield Finding("approximation", "prompts-not-linked", TAGS + LINKED_PROMPTS, detail=detail)
            return
        if versions:
            self._stores.tracking.link_prompts_to_trace(trace_id, versions)

    def runs_of(self, info: Any) -> list[str]:
        """The runs that a trace was linked to."""
        if not self._stores.links_traces:
            return []
        by_trace = getattr(self._stores.tracking, "search_entities_by_source", None)
        if by_trace is not None:
            return list(by_trace(info.trace_id, "trace", "run").to_list())
        known = ids_told(LINKED, info.tags) if self._is_target else self._runs_in(info.experiment_id)
        return [run for run in known if run != info.trace_metadata.get(RUN) and info.trace_id in self._traces_of(run)]

    def _runs_in(self, experiment: str) -> list[str]:
        from mlflow.entities import ViewType

        if experiment not in self._runs:
            found = pages(
                self._stores.tracking.search_runs,
                experiment_ids=[experiment],
                filter_string="",
                run_view_type=ViewType.ALL,
                max_results=IN_PAGE,
                order_by=[],
            )
            self._runs[experiment] = [run.info.run_id for run in found]
            self._experiments |= dict.fromkeys(self._runs[experiment], experiment)
        return self._runs[experiment]

    def _traces_of(self, run: str) -> set[str]:
        if run not in self._traces:
            experiment = self._experiments.get(run) or str(self._stores.tracking.get_run(run).info.experiment_id)
            self._traces[run] = {info.trace_id for info in self._search(experiment, run)}
        return self._traces[run]

    def _search(self, experiment: str, run: str) -> Iterator[Any]:
        token = None
        while True:
            found, token = self._stores.tracking.search_traces(
                locations=[experiment],
                filter_string=f"attributes.run_id = '{run}'",
                max_results=IN_PAGE,
                page_token=token,
            )
            yield from found
            if not token:
                return
