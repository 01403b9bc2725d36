"""The spans of a trace: read from wherever they are stored, and stored there again.

A server derives the id of a trace from its spans: those of a trace with another id are written as `traces.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from shardmig.adapters.mlflow.objects.base import SERIES_POINTS, TAGS, Facts
from shardmig.adapters.mlflow.objects.stores import Stores, batches
from shardmig.errors import BadInput, NotFound
from shardmig.records import Points, Steps, StringPoints, Texts

SPANS: Final = "spans"
SPANS_FILE: Final = "traces.json"
ARTIFACT_LOCATION: Final = "mlflow.artifactLocation"
SPANS_LOCATION: Final = "mlflow.trace.spansLocation"
SPANS_IN_REQUEST: Final = 200
TRACKING_STORE: Final = "TRACKING_STORE"
_IN_STORE: Final = (TRACKING_STORE, "ARCHIVE_REPO")
_DERIVED_ID: Final = re.compile(r"tr-[0-9a-f]{32}")


def span_points(found: Iterable[Any]) -> Iterator[Points]:
    """All spans of a trace, by their start."""
    from mlflow.tracing.utils import TraceJSONEncoder

    spans = sorted(found, key=lambda span: (span.start_time_ns, span.span_id))
    for start in range(0, len(spans), SERIES_POINTS):
        part = spans[start : start + SERIES_POINTS]
        texts = [json.dumps(one.to_dict(), sort_keys=True, ensure_ascii=False, cls=TraceJSONEncoder) for one in part]
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
            write_spans(stores, info.experiment_id, batch)
        return
    with TemporaryDirectory(prefix="shardmig-") as folder:
        local = Path(folder, SPANS_FILE)
        if _write(texts, local):
            stores.artifacts(info.tags[ARTIFACT_LOCATION]).put(local, SPANS_FILE)


def write_spans(stores: Stores, experiment: str, texts: Iterable[str]) -> None:
    """Spans of one trace or more among MLflow's rows, in one request."""
    stores.tracking.log_spans(experiment, [_span(text) for text in texts])


def spans_of(stores: Stores, info: Any) -> list[Any]:
    """The spans of a trace, wherever they are stored."""
    if info.tags.get(SPANS_LOCATION) in _IN_STORE:
        trace = stores.tracking.get_trace(info.trace_id, allow_partial=True)
        return list(trace.data.spans) if trace is not None else []
    if (uri := info.tags.get(ARTIFACT_LOCATION)) is None:
        return []
    with TemporaryDirectory(prefix="shardmig-") as folder:
        local = Path(folder, SPANS_FILE)
        try:
            stores.artifacts(uri).get(SPANS_FILE, local)
        except NotFound:  # it was never ended
            return []
        try:
            return [_span(json.dumps(one)) for one in json.loads(local.read_bytes())["spans"]]
        except (ValueError, KeyError) as error:
            raise BadInput(f"{SPANS_FILE} of {info.trace_id} cannot be read: {error!r}", field=SPANS) from error


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
