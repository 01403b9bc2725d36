"""Neptune's model registry in MLflow's: a registered model for each model, a version for each of its versions.

Both are runs as well, which hold all that Neptune had of them, exact; what is registered points there.

    MLflow                      from
    registered model            the model: its name is sys/id, its description sys/description, a tag for each of sys/tags
    version                     the version of it whose sys/id ends with that number; its run and source are the run here
    stage                       sys/stage of the version

A model is written behind its versions (the planner sees to that), in one go, because MLflow counts versions: they are made
in their order, and one that is not here leaves a gap. A version that comes after its model, by `retry` say, is added to it;
where its number is used up, the model is made anew with all versions that are here. What people have set meanwhile stays:
stages, descriptions, tags and aliases. A model with versions of others is never made anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Final, NamedTuple

from shardmig.adapters.base import migration_key
from shardmig.adapters.mlflow import facts
from shardmig.adapters.mlflow.facts import RunFacts
from shardmig.adapters.mlflow.objects.registered import make_gap
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.mlflow.store import RunStore, StoredRun
from shardmig.adapters.sidecar import provenance
from shardmig.errors import NotFound, TargetConflict
from shardmig.records import Finding, MigrationKey, ProjectId, RunId, RunRef, Scope

MODELS: Final = "models"
VERSIONS: Final = "model_versions"
SCOPES: Final[frozenset[Scope]] = frozenset({MODELS, VERSIONS})
"""Of the runs that are registered."""
FACT: Final = "registered_model"
_NUMBER: Final = re.compile(r"-(\d{1,5})$")
_REFUSED: Final = re.compile(r"[/:.%\"']")
_STAGES: Final = {"staging": "Staging", "production": "Production", "archived": "Archived"}


def registered_name(run_id: str) -> str:
    """What a model is called in MLflow's registry, which takes no slashes and colons."""
    return _REFUSED.sub("_", run_id)


class _Version(NamedTuple):
    """One version as MLflow is to have it. `stage`: of Neptune or of MLflow, whose words differ in their case only."""

    run_id: str
    source: str
    tags: Mapping[str, str]
    description: str
    stage: str


class _Model(NamedTuple):
    """A registered model as MLflow is to have it, or has it."""

    name: str
    tags: Mapping[str, str]
    description: str
    aliases: Mapping[str, int]
    versions: Mapping[int, _Version]

    @property
    def key(self) -> str:
        """Of the run that it was made of; "" = it did not come from here."""
        return self.tags.get(provenance.KEY, "")


class NeptuneRegistry:
    """Registers models and their versions."""

    def __init__(self, stores: Stores, store: RunStore) -> None:
        self._stores = stores
        self._store = store

    def register(self, run: StoredRun, key: MigrationKey, told: RunFacts) -> list[Finding]:
        """Register one model with the versions that are here; or one version, if its model is registered (else the model
        brings it). Raises TargetConflict where another model has its name, or versions of others are in the way."""
        if told.run.scope == VERSIONS:
            return self._register_version(run, told)
        name = registered_name(told.run.id)
        with mlflow_errors(f"registering {name}"):
            held = self._held(name)
            if held is not None and held.key != key:
                raise TargetConflict(
                    f"MLflow has another registered model {name!r}", run=told.run.label, hint="rename or delete it"
                )
            tags = {
                provenance.KEY: key,
                provenance.PROJECT: told.run.project,
                provenance.RUN_ID: told.run.id,
                "shardmig.run": run.id,
                **dict.fromkeys(told.texts("sys/tags"), ""),
            }
            runs = self._runs_of(told.run.project, told.run.id)
            versions = {number: _version_of(one) for number, one in runs.items()}
            model = _Model(name, tags, told.text("sys/description"), {}, versions)
            if held is not None:
                model = _keeping(held, model)
                self._remove(held, told.run)
            self._make(model, told.run)
        listed = ", ".join(map(str, sorted(versions))) or "none"
        return [Finding("note", "model-registered", detail=f"{name}, versions: {listed}")]

    def registered(self, run: StoredRun) -> str:
        """The name under which a model is registered with all of its versions that are here; "" = it is not. Versions that
        are missing there, or are of other runs, are told beside it."""
        name = registered_name(run.tags.get(provenance.RUN_ID, ""))
        with mlflow_errors(f"registered model {name}"):
            held = self._held(name)
        if held is None or held.key != run.tags.get(provenance.KEY):
            return ""
        there = {number: version.run_id for number, version in held.versions.items()}
        runs = self._runs_of(run.tags.get(provenance.PROJECT, ""), run.tags.get(provenance.RUN_ID, ""))
        wrong = [str(number) for number, one in sorted(runs.items()) if there.get(number) != one.id]
        return f"{name} without {', '.join(wrong)}" if wrong else name

    def _register_version(self, run: StoredRun, told: RunFacts) -> list[Finding]:
        number, model_id = _number_of(told.run.id), told.text("sys/model_id")
        name = registered_name(model_id)
        if number is None or not model_id:
            return []
        with mlflow_errors(f"registering version {number} of {name}"):
            held = self._held(name)
            if held is None or held.key != _key_of_model(told.run.project, model_id):
                return []
            there = held.versions.get(number)
            if there is None or there.run_id != run.id:
                version = _version_of(run)._replace(
                    description=told.text("sys/description"), stage=told.text("sys/stage")
                )
                self._add(held, number, version, told.run)
        return [Finding("note", "model-registered", detail=f"{name}, version: {number}")]

    def _add(self, held: _Model, number: int, version: _Version, ref: RunRef) -> None:
        """Behind the last one if that is its number; else with the whole model made anew."""
        first = max(held.versions, default=0) + 1
        gaps_are_right = all(make_gap(self._stores, held.name, gap) == gap for gap in range(first, number))
        if number >= first and gaps_are_right:
            made = self._create_version(held.name, version)
            if made == number:
                self._set_stage(held.name, number, version)
                return
            self._stores.registry.delete_model_version(held.name, str(made))
        self.__dict__.pop("_runs_of_versions", None)  # others may have come since it was asked for
        runs = self._runs_of(ref.project, held.tags[provenance.RUN_ID])
        versions = {at: _version_of(one) for at, one in runs.items()} | {number: version}
        model = _keeping(held, held._replace(versions=versions))
        self._remove(held, ref)
        self._make(model, ref)

    def _remove(self, held: _Model, ref: RunRef) -> None:
        others = [str(number) for number, one in sorted(held.versions.items()) if provenance.KEY not in one.tags]
        if others:
            detail = f"MLflow's registered model {held.name!r} has versions of others: {', '.join(others)}"
            raise TargetConflict(detail, run=ref.label, hint="rename or delete it")
        self._stores.registry.delete_registered_model(held.name)

    def _make(self, model: _Model, ref: RunRef) -> None:
        from mlflow.entities.model_registry import RegisteredModelTag

        entries = [RegisteredModelTag(tag, facts.tag_value(text)) for tag, text in model.tags.items()]
        self._stores.registry.create_registered_model(model.name, entries, model.description or None)
        for number in range(1, max(model.versions, default=0) + 1):
            version = model.versions.get(number)
            made = self._create_version(model.name, version) if version else make_gap(self._stores, model.name, number)
            if made != number:
                detail = f"MLflow made version {made} of {model.name!r} where {number} was to be"
                raise TargetConflict(detail, run=ref.label, hint="does somebody else register versions there?")
            if version:
                self._set_stage(model.name, number, version)
        for alias, number in model.aliases.items():
            if number in model.versions:
                self._stores.registry.set_registered_model_alias(model.name, alias, str(number))

    def _create_version(self, name: str, version: _Version) -> int:
        """The number that MLflow gave it."""
        from mlflow.entities.model_registry import ModelVersionTag

        made = self._stores.registry.create_model_version(
            name,
            version.source,
            run_id=version.run_id,
            tags=[ModelVersionTag(tag, text) for tag, text in version.tags.items()],
            description=version.description or None,
        )
        return int(made.version)

    def _set_stage(self, name: str, number: int, version: _Version) -> None:
        if stage := _STAGES.get(version.stage.lower()):
            self._stores.registry.transition_model_version_stage(
                name, str(number), stage, archive_existing_versions=False
            )

    def _held(self, name: str) -> _Model | None:
        """The registered model of that name with its versions; None = there is none."""
        registry = self._stores.registry
        try:
            with mlflow_errors(f"registered model {name}"):
                model = registry.get_registered_model(name)
        except NotFound:
            return None
        found = pages(registry.search_model_versions, filter_string=f"name = '{name}'", max_results=IN_PAGE)
        versions = {
            int(one.version): _Version(
                one.run_id or "", one.source or "", dict(one.tags), one.description or "", one.current_stage or ""
            )
            for one in found
        }
        aliases = {alias: int(number) for alias, number in dict(model.aliases).items()}
        return _Model(name, dict(model.tags), model.description or "", aliases, versions)

    def _runs_of(self, project: str, model_id: str) -> dict[int, StoredRun]:
        """The runs of a model's versions, by number."""
        found = {}
        for run in self._runs_of_versions:
            is_its = run.params.get("sys/model_id") == model_id and run.tags[provenance.PROJECT] == project
            number = _number_of(run.tags.get(provenance.RUN_ID, ""))
            if is_its and number is not None:
                found[number] = run
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


def _version_of(run: StoredRun) -> _Version:
    tags: dict[str, str] = {key: run.tags[key] for key in (provenance.KEY, provenance.RUN_ID) if key in run.tags}
    description, stage = (run.params.get(path, "") for path in ("sys/description", "sys/stage"))
    return _Version(run.id, run.artifact_uri, tags, description, stage)


def _keeping(held: _Model, model: _Model) -> _Model:
    """The model with what people have set since it was registered: aliases, and all of a version of the same run."""
    same = {
        number: held.versions[number]
        for number, one in model.versions.items()
        if number in held.versions and held.versions[number].run_id == one.run_id
    }
    return model._replace(aliases=held.aliases, versions={**model.versions, **same})


def _number_of(run_id: str) -> int | None:
    found = _NUMBER.search(run_id)
    return None if found is None else int(found[1])


def _key_of_model(project: ProjectId, model_id: str) -> MigrationKey:
    return migration_key(RunRef(project=project, id=RunId(model_id), scope="models"))
