"""What a listing tells of changes: fingerprints of runs, and what a database counts without reading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from shardmig.adapters.mlflow.facts import PROVENANCE
from shardmig.adapters.mlflow.store import Experiment, StoredRun

if TYPE_CHECKING:
    from shardmig.adapters.mlflow.objects.stores import Stores

_IDS_IN_QUERY: Final = 500


def fingerprint(run: StoredRun, experiment: Experiment | None) -> str:
    """Changes when a run does, as far as a listing tells: by its facts, params, tags, inputs and outputs, the last point of
    each metric, and the number of points if that is known. `experiment`: the one whose facts the run is read with."""
    facts = (run.name, run.user, run.status, run.start_ms, run.end_ms, run.is_deleted, run.points)
    texts = (sorted(run.params.items()), sorted(run.tags.items()))
    latest = sorted((point.key, point.step, point.time_ms, repr(point.value)) for point in run.latest)
    datasets = sorted((one.name, one.digest, sorted(one.tags.items())) for one in run.datasets)
    linked = (datasets, sorted(run.model_inputs), sorted(run.model_outputs))
    content = repr((facts, texts, latest, linked, _facts_of(experiment)))
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _facts_of(experiment: Experiment | None) -> Any:
    """Without tags of shardmig's own: those of another copy change no run."""
    if experiment is None:
        return None
    tags = sorted((key, text) for key, text in experiment.tags.items() if not key.startswith(PROVENANCE))
    return experiment.is_deleted, experiment.artifact_location, tags


def engine_of(stores: Stores) -> Any:
    """SQLAlchemy's, of MLflow's database; None: it is a server or a folder."""
    return stores.tracking.engine if stores.http is None and "://" in stores.uri else None


def points_of_runs(engine: Any, run_ids: Sequence[str]) -> dict[str, int]:
    """How many points each of these runs has; a run without any is left out. Of each only its own part of an index is read.
    `engine`: of MLflow's database; None = there is none, and nothing is known."""
    if engine is None:
        return {}
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import func, select

    counted = select(SqlMetric.run_uuid, func.count()).group_by(SqlMetric.run_uuid)
    found: dict[str, int] = {}
    with engine.connect() as connection:
        for start in range(0, len(run_ids), _IDS_IN_QUERY):
            asked = SqlMetric.run_uuid.in_(run_ids[start : start + _IDS_IN_QUERY])
            found |= dict(connection.execute(counted.where(asked)).tuples().all())
    return found


def runs_of_traces(engine: Any, trace_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """Which runs each trace was linked to after it was made. `engine` as for `points_of_runs`."""
    if engine is None:
        return {}
    from mlflow.store.tracking.dbmodels.models import SqlEntityAssociation as Link
    from sqlalchemy import select

    to_run = (Link.source_type == "trace") & (Link.destination_type == "run")
    linked = select(Link.source_id, Link.destination_id).where(to_run)
    found: dict[str, list[str]] = {}
    with engine.connect() as connection:
        for start in range(0, len(trace_ids), _IDS_IN_QUERY):
            asked = Link.source_id.in_(trace_ids[start : start + _IDS_IN_QUERY])
            for trace, run in connection.execute(linked.where(asked)):
                found.setdefault(trace, []).append(run)
    return {trace: sorted(runs) for trace, runs in found.items()}
