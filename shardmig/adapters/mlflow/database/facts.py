"""A run's own row, its params and its tags: written as MLflow's store writes them."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.entities import LifecycleStage, SourceType
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shardmig.adapters.mlflow.database.schema import EXPERIMENTS, PARAMS, RUNS, TAGS
from shardmig.adapters.mlflow.store import StoredRun
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import TargetRunId


def artifact_root(connection: Connection, experiment_id: str) -> str:
    """The artifact location of an active experiment. Raises NotFound, and TargetConflict for a deleted one."""
    statement = select(EXPERIMENTS.c.artifact_location, EXPERIMENTS.c.lifecycle_stage)
    row = connection.execute(statement.where(EXPERIMENTS.c.experiment_id == int(experiment_id))).one_or_none()
    if row is None:
        raise NotFound(f"there is no MLflow experiment {experiment_id}")
    if row.lifecycle_stage != LifecycleStage.ACTIVE:
        raise TargetConflict(f"MLflow experiment {experiment_id} is deleted", hint="restore it, or choose another name")
    return str(row.artifact_location)


def require_run(connection: Connection, run_id: TargetRunId) -> None:
    """Raises NotFound for a run that is not there. Inside a transaction on SQLite it then stays until its end."""
    if connection.execute(select(RUNS.c.run_uuid).where(RUNS.c.run_uuid == run_id)).one_or_none() is None:
        raise NotFound(f"MLflow run {run_id} is gone", run=run_id)


def insert_run(connection: Connection, run: StoredRun) -> None:
    """A new run's row, each column as MLflow's create_run fills it."""
    row = {
        "run_uuid": run.id,
        "name": run.name,
        "source_type": SourceType.to_string(SourceType.UNKNOWN),
        "source_name": "",
        "entry_point_name": "",
        "user_id": run.user,
        "status": run.status,
        "start_time": run.start_ms,
        "source_version": "",
        "lifecycle_stage": LifecycleStage.ACTIVE,
        "artifact_uri": run.artifact_uri,
        "experiment_id": int(run.experiment_id),
    }
    connection.execute(insert(RUNS), [row])


def insert_params(connection: Connection, run_id: TargetRunId, params: Mapping[str, str]) -> None:
    """Add params; equal ones may be there already. Raises TargetConflict for another value, as MLflow refuses it."""
    there = dict(
        connection.execute(select(PARAMS.c.key, PARAMS.c.value).where(PARAMS.c.run_uuid == run_id)).tuples().all()
    )
    for key in params.keys() & there.keys():
        if params[key] != there[key]:
            raise TargetConflict("the MLflow run holds another value of this param", run=run_id, field=key)
    new = [{"run_uuid": run_id, "key": key, "value": params[key]} for key in params.keys() - there.keys()]
    if new:
        connection.execute(insert(PARAMS), new)


def set_tags(connection: Connection, run_id: TargetRunId, tags: Mapping[str, str]) -> None:
    """Set or replace tags. A run's name is a tag as well: one changes with the other."""
    if not tags:
        return
    statement = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(TAGS)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[TAGS.c.key, TAGS.c.run_uuid], set_={"value": statement.excluded.value}
        ),
        [{"run_uuid": run_id, "key": key, "value": value} for key, value in tags.items()],
    )
    if name := tags.get(MLFLOW_RUN_NAME):
        connection.execute(update(RUNS).where(RUNS.c.run_uuid == run_id).values(name=name))
