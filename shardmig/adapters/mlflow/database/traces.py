"""Traces into their tables, several in one transaction: MLflow's own store takes one for each, and ten times as long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from mlflow.store.tracking.dbmodels.models import SqlTraceInfo, SqlTraceMetadata, SqlTraceTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.utils.sql_trace_rollups import rollups_enabled
from mlflow.store.tracking.utils.trace_analytics import (
    PROMOTED_TRACE_METADATA_KEYS,
    analytics_columns_from_metadata,
    validate_trace_name,
)
from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy import Connection, Table, insert

from shardmig.adapters.mlflow.database.facts import artifact_root

if TYPE_CHECKING:
    from mlflow.entities import TraceInfo

_TRACES: Final = cast("Table", SqlTraceInfo.__table__)
_TAGS: Final = cast("Table", SqlTraceTag.__table__)
_METADATA: Final = cast("Table", SqlTraceMetadata.__table__)


def may_insert(info: TraceInfo) -> bool:
    """Can a trace be written as rows? Assessments, and the sums that some servers keep of traces, are left to MLflow."""
    return not info.assessments and not rollups_enabled()


def insert_traces(connection: Connection, infos: Sequence[TraceInfo]) -> None:
    """New traces without spans, each row as MLflow's start_trace writes it. Raises what `artifact_root` raises of their
    experiments, and MlflowException for a name that is too long; a trace that is there already breaks the transaction."""
    roots = {id_: artifact_root(connection, id_) for id_ in {_experiment(info) for info in infos}}
    for info in infos:
        connection.execute(insert(_TRACES), _row(info))
    connection.execute(insert(_TAGS), [row for info in infos for row in _tags(info, roots[_experiment(info)])])
    connection.execute(insert(_METADATA), [row for info in infos for row in _metadata(info)])


def _experiment(info: TraceInfo) -> str:
    return str(info.experiment_id)


def _row(info: TraceInfo) -> dict[str, Any]:
    return {
        "request_id": info.trace_id,
        "experiment_id": int(_experiment(info)),
        "timestamp_ms": info.request_time,
        "execution_time_ms": info.execution_duration,
        "status": info.state.value,
        "client_request_id": info.client_request_id,
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "trace_name": validate_trace_name(info.tags.get(TraceTagKey.TRACE_NAME)),
        **analytics_columns_from_metadata(info.trace_metadata),
    }


def _tags(info: TraceInfo, root: str) -> Iterator[dict[str, str]]:
    folders = SqlAlchemyStore.TRACE_FOLDER_NAME, info.trace_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME
    tags = info.tags | {MLFLOW_ARTIFACT_LOCATION: append_to_uri_path(root, *folders)}
    tags.pop(TraceTagKey.TRACE_NAME, None)  # a column
    return _pairs(info, tags)


def _metadata(info: TraceInfo) -> Iterator[dict[str, str]]:
    own = {key: text for key, text in info.trace_metadata.items() if key not in PROMOTED_TRACE_METADATA_KEYS}  # columns
    return _pairs(info, own | {TraceMetadataKey.TRACE_INFO_FINALIZED: "true"})


def _pairs(info: TraceInfo, texts: dict[str, str]) -> Iterator[dict[str, str]]:
    return ({"request_id": info.trace_id, "key": key, "value": text} for key, text in texts.items())
