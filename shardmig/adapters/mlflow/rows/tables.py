"""MLflow's tables as far as a copy must know them. The columns come from the installed MLflow itself."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import mlflow.store.model_registry.dbmodels.models
import mlflow.store.tracking.dbmodels.models
import mlflow.store.workspace.dbmodels.models  # noqa: F401 (all three fill the metadata)
from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY
from mlflow.store.db.base_sql_model import Base
from mlflow.tracing.constant import TraceTagKey
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION
from sqlalchemy import JSON, Boolean, Date, LargeBinary, Table, Text, UniqueConstraint

MAX_KEY: Final = 256
"""Texts up to this length are small."""

VOLATILE: Final = frozenset({"jobs", "job_locks", "scheduler_leases", "sql_trace_rollup_rebuild_queue"})
"""What a running server is doing: of no use in another one."""

COUNTED: Final = frozenset(
    {"sql_assessment_daily_rollups", "sql_span_cost_daily_rollups", "sql_trace_metric_daily_rollups"}
)
"""Their id is a counter that nothing refers to: the target gives its own."""

SEEDED: Final[dict[str, tuple[str, Any]]] = {"experiments": ("experiment_id", 0), "workspaces": ("name", "default")}
"""The one row that MLflow gives each of these in every new database, told by a column and its value."""

URIS: Final[dict[str, tuple[str, ...]]] = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "workspaces": ("default_artifact_root", "trace_archival_location"),
}
"""Columns that say where files lie."""

URI_TAGS: Final[dict[str, tuple[str, ...]]] = {"trace_tags": (MLFLOW_ARTIFACT_LOCATION, TraceTagKey.ARCHIVE_LOCATION)}
"""Tables of (key, value) in which the values of these keys say where files lie."""

EXPERIMENT_LISTS: Final[dict[str, str]] = {"registered_model_tags": PROMPT_EXPERIMENT_IDS_TAG_KEY}
"""Tables of (key, value) in which the value of this key is a list of experiment ids between commas."""


@cache
def copied() -> tuple[Table, ...]:
    """The tables that are copied; those that others refer to come first."""
    return tuple(table for table in Base.metadata.sorted_tables if table.name not in VOLATILE)


@cache
def columns(table: Table) -> tuple[str, ...]:
    """The columns that are copied: all but those that the database computes."""
    counters = {"id"} if table.name in COUNTED else set()
    return tuple(column.name for column in table.columns if column.computed is None and column.name not in counters)


@cache
def page_rows(table: Table) -> int:
    """Rows that are held at a time: few where a row may be large."""
    longest = [getattr(table.columns[name].type, "length", 0) or 0 for name in columns(table)]
    kinds = [table.columns[name].type for name in columns(table)]
    if any(isinstance(kind, Text | JSON | LargeBinary) for kind in kinds):
        return 500
    return 50_000 if max(longest) <= MAX_KEY else 5_000


@cache
def key(table: Table) -> tuple[str, ...]:
    """The columns that tell a row from every other."""
    return tuple(column.name for column in table.primary_key.columns)


@cache
def own_keys(table: Table) -> tuple[tuple[str, ...], ...]:
    """What no two rows may have in common. Left out are keys that hold the key of an owner: such rows meet only where
    their owners meet, which are in these tables too. Experiments own nothing: that of two databases may become one."""
    unique = [one.columns for one in table.constraints if isinstance(one, UniqueConstraint)]
    unique += [one.columns for one in table.indexes if one.unique]
    keys = [key(table), *(tuple(column.name for column in one) for one in unique)]
    owners = [set(one.column_keys) for one in table.foreign_key_constraints if one.referred_table.name != "experiments"]
    known = set(columns(table))
    return tuple(one for one in keys if known.issuperset(one) and not any(owner.issubset(one) for owner in owners))


@cache
def flags(table: Table) -> tuple[int, ...]:
    """Positions of truth values among `columns`."""
    return tuple(at for at, name in enumerate(columns(table)) if isinstance(table.columns[name].type, Boolean))


@cache
def texts(table: Table) -> frozenset[str]:
    """Columns of JSON documents and days, which only some databases have types for: their texts are copied."""
    return frozenset(name for name in columns(table) if isinstance(table.columns[name].type, JSON | Date))
