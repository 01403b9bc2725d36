"""Neptune's model registry in MLflow's: a registered model for each model, a version for each of its versions.

Both are runs as well, which hold all that Neptune had of them, exact; what is registered points there.

    MLflow                      from
    registered model            the model: its name is sys/id, its description sys/description, a tag for each of sys/tags
    version                     the version of it whose sys/id ends with that number; its run and source are the run here
    stage                       sys/stage of the version

A model is written behind its versions (the planner sees to that), in one go, because MLflow counts versions: they are made
in their order, and one that is not here leaves a gap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from shardmig.adapters.mlflow import facts
from shardmig.adapters.mlflow.facts import RunFacts
from shardmig.adapters.mlflow.objects.registered import make_gap
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.mlflow.store import RunStore, StoredRun
from shardmig.adapters.sidecar import provenance
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import Finding, MigrationKey

MODELS: Final = "models"
VERSIONS: Final = "model_versions"
FACT: Final = "registered_model"
_NUMBER: Final = re.compile(r"-(\d{1,5})$")
_REFUSED: Final = re.compile(r"[/:.%\"']")
_STAGES: Final = {"staging": "Staging", "production": "Production", "archived": "Archived"}


def registered_name(run_id: str) -> str:
    """What a model is called in MLflow's registry, which takes no slashes and colons."""
    return _REFUSED.sub("_", run_id)


class NeptuneRegistry:
    """Registers models whose versions are in the target already."""

    def __init__(self, stores: Stores, store: RunStore) -> None:
        self._stores = stores
        self._store = store

    def register(self, run: StoredRun, key: MigrationKey, told: RunFacts) -> list[Finding]:
        """Register one model with the versions that are here. One that was registered before is made anew. Raises
        TargetConflict where another model has its name."""
        name = registered_name(told.run.id)
        versions = self._versions(told)
        with mlflow_errors(f"registering {name}"):
            if (held := self._key_of(name)) is not None:
                if held != key:
                    raise TargetConflict(
                        f"MLflow has another registered model {name!r}", run=told.run.label, hint="rename or delete it"
                    )
                self._stores.registry.delete_registered_model(name)
            self._create(name, key, run, told)
            for number in range(1, max(versions, default=0) + 1):
                if number in versions:
                    self._create_version(name, number, versions[number])
                else:
                    make_gap(self._stores, name, number)
        listed = ", ".join(map(str, sorted(versions))) or "none"
        return [Finding("note", "model-registered", detail=f"{name}, versions: {listed}")]

    def registered(self, run: StoredRun) -> str:
        """The name under which a model is registered; "" = it is not."""
        name = registered_name(run.tags.get(provenance.RUN_ID, ""))
        return name if self._key_of(name) == run.tags.get(provenance.KEY) else ""

    def _versions(self, told: RunFacts) -> dict[int, StoredRun]:
        """The runs of this model's versions, by number."""
        found = {}
        for run in self._runs_of_versions:
            is_its = run.params.get("sys/model_id") == told.run.id and run.tags[provenance.PROJECT] == told.run.project
            number = _NUMBER.search(run.tags.get(provenance.RUN_ID, ""))
            if is_its and number is not None:
                found[int(number[1])] = run
        return found

    @cached_property
    def _runs_of_versions(self) -> list[StoredRun]:
        """Of all models: asked once, because the planner has every version written before the first model."""
        experiments = [experiment.id for experiment in self._store.experiments() if not experiment.is_deleted]
        return [
            run
            for run in self._store.search_runs(experiments, only_migrated=True)
            if run.tags.get(provenance.SCOPE) == VERSIONS
            and run.tags.get(provenance.STATE) == provenance.COMPLETE
            and not run.is_deleted
        ]

    def _key_of(self, name: str) -> str | None:
        """The key of the registered model of that name; "" = it did not come from here, None = there is none."""
        try:
            with mlflow_errors(f"registered model {name}"):
                model = self._stores.registry.get_registered_model(name)
        except NotFound:
            return None
        return str(dict(model.tags).get(provenance.KEY, ""))

    def _create(self, name: str, key: MigrationKey, run: StoredRun, told: RunFacts) -> None:
        from mlflow.entities.model_registry import RegisteredModelTag

        tags: Mapping[str, str] = {
            provenance.KEY: key,
            provenance.PROJECT: told.run.project,
            provenance.RUN_ID: told.run.id,
            "shardmig.run": run.id,
            **dict.fromkeys(told.texts("sys/tags"), ""),
        }
        entries = [RegisteredModelTag(tag, facts.tag_value(text)) for tag, text in tags.items()]
        self._stores.registry.create_registered_model(name, entries, told.text("sys/description") or None)

    def _create_version(self, name: str, number: int, run: StoredRun) -> None:
        from mlflow.entities.model_registry import ModelVersionTag

        tags = [ModelVersionTag(key, run.tags[key]) for key in (provenance.KEY, provenance.RUN_ID) if key in run.tags]
        description = run.params.get("sys/description") or None
        registry = self._stores.registry
        registry.create_model_version(name, run.artifact_uri, run_id=run.id, tags=tags, description=description)
        if stage := _STAGES.get(run.params.get("sys/stage", "").lower()):
            registry.transition_model_version_stage(name, str(number), stage, archive_existing_versions=False)
