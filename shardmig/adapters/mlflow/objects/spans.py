"""The spans of a trace: read from wherever they are stored, and stored there again.

A server derives the id of a trace from its spans: those of a trace with another id are written as `traces.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np

from shardmig.adapters.mlflow.artifacts import refuse_behind_server
from shardmig.adapters.mlflow.objects.base import SERIES_POINTS, TAGS, Facts, json_of
from shardmig.adapters.mlflow.objects.stores import Stores, batches
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.errors import AdapterError, BadInput, NotFound, Permanent, settled, settled_each
from shardmig.records import Finding, Points, Steps, StringPoints, Texts

SPANS: Final = "spans"
SPANS_FILE: Final = "traces.json"
ARTIFACT_LOCATION: Final = "mlflow.artifactLocation"
SPANS_LOCATION: Final = "mlflow.trace.spansLocation"
SPANS_IN_REQUEST: Final = 200
_CHARACTERS_IN_REQUEST: Final = 4_000_000
"""Of JSON, where the spans of several traces go together."""
TRACKING_STORE: Final = "TRACKING_STORE"
_ARCHIVED: Final = "ARCHIVE_REPO"
_IN_STORE: Final = (TRACKING_STORE, _ARCHIVED)
_SIZES: Final = "mlflow.trace.sizeStats"
_ENDED: Final = ("OK", "ERROR")
_DERIVED_ID: Final = re.compile(r"tr-[0-9a-f]{32}")


def span_points(found: Iterable[Any]) -> Iterator[Points]:
    """All spans of a trace, by their start."""
    from mlflow.tracing.utils import TraceJSONEncoder

    spans = sorted(found, key=lambda span: (span.start_time_ns, span.span_id))
    for start in range(0, len(spans), SERIES_POINTS):
        part = spans[start : start + SERIES_POINTS]
        texts = [json_of(one.to_dict(), sort_keys=True, cls=TraceJSONEncoder) for one in part]
        yield StringPoints(
            [SPANS],
            np.array([len(part)], np.int64),
            Steps(np.arange(start, start + len(part), dtype=np.int64)),
            np.array([span.start_time_ns // 1_000_000 for span in part], np.int64),
            Texts.from_list(texts),
        )


def go_to_store(stores: Stores, trace_id: str, facts: Facts) -> bool:
    """Are the spans of a trace to be among MLflow's rows, as they were, or in a file?"""
    is_in_store = facts.text(TAGS + SPANS_LOCATION) in _IN_STORE
    return is_in_store and (stores.http is None or _DERIVED_ID.fullmatch(trace_id) is not None)


def log_spans(stores: Stores, info: Any, facts: Facts, texts: Iterator[str]) -> None:
    """Write the spans of a trace that was made. Idempotent."""
    if go_to_store(stores, info.trace_id, facts):
        for batch in batches(texts, SPANS_IN_REQUEST):
            _write_rows(stores, info.experiment_id, batch)
        return
    with TemporaryDirectory(prefix="shardmig-") as folder:
        local = Path(folder, SPANS_FILE)
        if _write(texts, local):
            stores.artifacts(info.tags[ARTIFACT_LOCATION]).put(local, SPANS_FILE)


class TraceSpans(NamedTuple):
    """The spans of one trace that take one request."""

    trace_id: str
    experiment: str
    texts: list[str]


def log_together(stores: Stores, traces: Iterable[TraceSpans]) -> dict[str, AdapterError]:
    """Write the spans of several traces that were made, those of one experiment in one request if they fit. Which traces did
    not get theirs: what fails is tried for each trace alone. Idempotent."""
    by_experiment: dict[str, list[TraceSpans]] = {}
    for one in traces:
        by_experiment.setdefault(one.experiment, []).append(one)
    failed: dict[str, AdapterError] = {}
    for together in chain.from_iterable(map(_requests, by_experiment.values())):
        error = settled(_log, stores, together)
        if isinstance(error, AdapterError):
            alone = settled_each(lambda one: _log(stores, [one]), together) if len(together) > 1 else [error]
            results = zip(together, alone, strict=True)
            failed |= {one.trace_id: error for one, error in results if error is not None}
    return failed


def _log(stores: Stores, traces: Sequence[TraceSpans]) -> None:
    with mlflow_errors(f"spans of {len(traces)} traces"):
        _write_rows(stores, traces[0].experiment, chain.from_iterable(one.texts for one in traces))


def _requests(traces: Iterable[TraceSpans]) -> Iterator[list[TraceSpans]]:
    """What goes together, one trace at least."""
    batch: list[TraceSpans] = []
    size = 0
    for one in traces:
        own = sum(map(len, one.texts))
        if batch and size + own > _CHARACTERS_IN_REQUEST:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += own
    if batch:
        yield batch


def _write_rows(stores: Stores, experiment: str, texts: Iterable[str]) -> None:
    stores.tracking.log_spans(experiment, [_span(text) for text in texts])


def spans_of(stores: Stores, info: Any) -> list[Any]:
    """The spans of a trace, wherever they are stored."""
    if info.tags.get(SPANS_LOCATION) in _IN_STORE:
        trace = stores.tracking.get_trace(info.trace_id, allow_partial=True)
        spans = list(trace.data.spans) if trace is not None else []
        if not spans and info.tags[SPANS_LOCATION] == _ARCHIVED and _count_of(info) != 0:
            # MLflow tells no spans where it cannot read them, whatever the reason (3.17.2).
            _tell(stores, NotFound("MLflow moved the spans into its archive, and gives none of them from there"))
        return spans
    if (uri := info.tags.get(ARTIFACT_LOCATION)) is None:
        return []
    with TemporaryDirectory(prefix="shardmig-") as folder:
        local = Path(folder, SPANS_FILE)
        try:
            if stores.is_far(uri):
                refuse_behind_server(uri, stores.http)
            stores.artifacts(uri).get(SPANS_FILE, local)
        except (NotFound, BadInput) as error:
            if _has_spans(info) or not isinstance(error, NotFound):
                _tell(stores, error)
            return []
        try:
            return [_span(json.dumps(one)) for one in json.loads(local.read_bytes())["spans"]]
        except (ValueError, KeyError) as error:
            raise BadInput(f"{SPANS_FILE} of {info.trace_id} cannot be read: {error!r}", field=SPANS) from error


def _count_of(info: Any) -> int | None:
    """How many spans MLflow counted; None: it did not."""
    try:
        return int(json.loads(info.trace_metadata[_SIZES])["num_spans"])
    except (KeyError, ValueError, TypeError):
        return None


def _has_spans(info: Any) -> bool:
    """Are there to be some, if they are in a file? Not of a trace in progress; and shardmig writes no file for none."""
    return str(info.state.value) in _ENDED and provenance.KEY not in info.tags


def _tell(stores: Stores, error: Permanent) -> None:
    """A loss, unless something was told of the spans already: what an export left out."""
    if all(finding.field != SPANS for finding in stores.lost):
        stores.lost.append(Finding("loss", "artifact-unreadable", SPANS, detail=error.message))


def _span(text: str) -> Any:
    from mlflow.entities import Span

    try:
        return Span.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"a span cannot be read: {error!r}", field=SPANS) from error


def _write(texts: Iterator[str], path: Path) -> int:
    """How many there were."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"spans": [')
        for count, text in enumerate(texts, 1):
            file.write(f"{', ' if count > 1 else ''}{text}")
        file.write("]}")
    return count
