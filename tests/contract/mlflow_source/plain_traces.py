"""Traces of some spans each, many of them: made under ids that count up."""

from __future__ import annotations

import json
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Span, TraceInfo, TraceLocation, TraceState
from mlflow.tracing.utils import build_otel_context
from opentelemetry.sdk.trace import ReadableSpan

SPANS: Final = 6
_START_MS: Final = 1_700_000_000_000


def make_trace(client: MlflowClient, experiment: str, number: int) -> None:
    """The trace of this number, from 1 on, with its spans."""
    trace_id = f"tr-{number:032x}"
    location = TraceLocation.from_experiment_id(experiment)
    tags = {"mlflow.traceName": f"trace {number}", "team": "a"}
    info = TraceInfo(trace_id, location, _START_MS + number, TraceState.OK, "asked", "said", None, 12, {}, tags)
    store = client._tracking_client.store
    store.start_trace(info)
    store.log_spans(experiment, [_span(trace_id, number, one) for one in range(SPANS)])


def _span(trace_id: str, number: int, one: int) -> Span:
    start_ns = (_START_MS + number) * 1_000_000
    attributes = {"mlflow.traceRequestId": json.dumps(trace_id), "mlflow.spanInputs": json.dumps("x" * 200)}
    context = build_otel_context(number, number * SPANS + one + 1)
    parent = build_otel_context(number, number * SPANS + 1) if one else None
    return Span(
        ReadableSpan(f"span {one}", context, parent, attributes=attributes, start_time=start_ns, end_time=start_ns)
    )
