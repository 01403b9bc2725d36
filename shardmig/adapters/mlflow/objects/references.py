"""From an object to another one: what the archive calls it, and which one that is in this MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from shardmig.adapters.base import migration_key
from shardmig.adapters.mlflow.objects.base import Facts
from shardmig.adapters.mlflow.objects.changes import decode
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.errors import Permanent
from shardmig.records import Field, Finding, MigrationKey, ProjectId, RunId, RunRef, Scope, TargetRunId

NOT_HERE: Final = "reference-not-here"
TOLD_BY_NAME: Final[frozenset[Scope]] = frozenset({"experiments", "registered_models", "prompts"})
"""Scopes whose objects are told by their names, which two sources may both have."""
CREATED: Final = "shardmig.created"
"""Tag: when the original of a copy that is told by its name was created, or that of a version that a merge appended. One that
was begun and is cut is known again by that."""
CREATION: Final = "sys/creation_time"


class Here(NamedTuple):
    """What a target knows of itself. `find`: which whole run or object carries a migration key; `experiment`: the active
    experiment of a project, made if need be; `experiment_named`: how it is called; `models`: {old: new} name of registered
    models and prompts."""

    find: Callable[[MigrationKey], TargetRunId | None]
    experiment: Callable[[ProjectId], str]
    experiment_named: Callable[[ProjectId], str]
    models: Mapping[str, str]


class Identity(NamedTuple):
    """What an object is called in an archive. `project` is "" where the object itself is gone."""

    project: ProjectId
    id: RunId


def was_brought(tags: Mapping[str, str]) -> bool:
    """Did shardmig write the object with these tags?"""
    return all(tags.get(key) for key in (provenance.KEY, provenance.STATE, provenance.PROJECT, provenance.RUN_ID))


def identity_of(tags: Mapping[str, str]) -> Identity:
    """What an object that shardmig wrote was called before."""
    return Identity(ProjectId(tags[provenance.PROJECT]), RunId(tags[provenance.RUN_ID]))


def creation_of(tags: Mapping[str, str], name: str, created_ms: int | None) -> int | None:
    """When the original of a copy was created; None: nobody knows. `created_ms`: when the copy itself was."""
    if (text := tags.get(CREATED, "")).isdecimal():
        return int(text)
    given = next((change.value for change in decode(tags, name) if change.path == CREATION), None)
    if isinstance(given, int):
        return given
    return created_ms if tags.get(provenance.STATE) == provenance.COMPLETE else None


class NamedVersion(NamedTuple):
    """A version of a registered model, by its URI."""

    name: str
    number: str


def registered_of(source: str | None) -> NamedVersion | None:
    """The version of a registered model that a version was copied from."""
    if source is None or not source.startswith("models:/") or source.startswith("models:/m-"):
        return None
    name, _, number = source.removeprefix("models:/").rpartition("/")
    return NamedVersion(name, number) if name else None


class References:
    """Both ways, in a target; from an object to its name in an archive in a source, which has no `here`.

    `missing` collects the keys of what was asked for and is not here."""

    def __init__(self, stores: Stores, here: Here | None = None) -> None:
        self._stores = stores
        self._here = here
        self.missing: list[MigrationKey] = []
        self._identities: dict[tuple[Scope, str], Identity] = {}
        self._found: dict[MigrationKey, TargetRunId] = {}
        self._experiments: dict[str, ProjectId] = {}
        self._expected: dict[MigrationKey, RunRef] = {}

    def expect(self, runs: Iterable[RunRef]) -> None:
        """These are asked for next: of two originals that have one key, which one is meant."""
        self._expected |= {migration_key(run): run for run in runs}

    def suppose(self, runs: Iterable[RunRef]) -> None:
        """These are meant by their keys, unless somebody told otherwise."""
        self._expected = {migration_key(run): run for run in runs if run.created_ms} | self._expected

    def expected(self, key: MigrationKey) -> RunRef | None:
        """The object that is meant by a key, where somebody told."""
        return self._expected.get(key)

    def is_meant(self, key: MigrationKey, created_ms: int | None) -> bool:
        """May the object that is meant by a key be the one that was created then? Two sources, or one in which it was deleted and
        made again, have two objects of one key; when each was created never changes."""
        run = self._expected.get(key)
        return run is None or not run.created_ms or not created_ms or run.created_ms == created_ms

    @property
    def is_target(self) -> bool:
        """Is this the MLflow that is written?"""
        return self._here is not None

    def fields(self, folder: str, scope: Scope, id_: str | None) -> Iterator[Field]:
        """A reference as fields `<folder>/project` and `<folder>/id`; none for none."""
        if id_:
            identity = self.identity(scope, id_)
            yield from (Field(f"{folder}/{name}", "string", text) for name, text in identity._asdict().items() if text)

    def identity(self, scope: Scope, id_: str) -> Identity:
        """What the archive calls the run, logged model or trace that MLflow calls `id_`."""
        if (scope, id_) not in self._identities:
            self._identities[scope, id_] = self._identity(scope, id_)
        return self._identities[scope, id_]

    def project_of(self, experiment_id: str) -> ProjectId:
        """The name of an experiment."""
        if experiment_id not in self._experiments:
            found = self._stores.tracking.get_experiment(experiment_id)
            self._experiments[experiment_id] = ProjectId(found.name)
        return self._experiments[experiment_id]

    def here(self, made_of: Facts, folder: str, scope: Scope) -> TargetRunId | None:
        """What MLflow calls the object that the fields below `folder` name; None: there is none here."""
        project, id_ = made_of.text(f"{folder}/project"), made_of.text(f"{folder}/id")
        if not project or not id_:
            return None
        key = migration_key(RunRef(project=ProjectId(project), id=RunId(id_), scope=scope))
        found = self._found.get(key) or self.find(key)
        if found is None:
            self.missing.append(key)
        else:
            self._found[key] = found
        return found

    def wait_for(self, entity: RunRef) -> bool:
        """What refers to this entity is to be written again once that is here. One that is here already is not waited for: that
        another worker ended it meanwhile may be why."""
        self.suppose([entity])
        if self.find(key := migration_key(entity)) is not None:
            return False
        self.missing.append(key)
        return True

    def names_of(self, experiment_ids: Iterable[str]) -> list[str]:
        """The names of these experiments; one that is gone keeps its id."""
        names = set()
        for id_ in experiment_ids:
            try:
                with mlflow_errors(f"experiment {id_}"):
                    names.add(str(self.project_of(id_)))
            except Permanent:
                names.add(id_)
        return sorted(names)

    def experiments(self, projects: Iterable[str]) -> tuple[list[str], list[Finding]]:
        """The ids of the experiments here, and which of them are not here."""
        ids, findings = [], []
        for project in projects:
            entity = RunRef(project=ProjectId(project), id=RunId(project), scope="experiments")
            id_ = self._experiment_here(entity.project)
            if id_ is None and not self.wait_for(entity):
                id_ = self._experiment_here(entity.project)
            if id_ is not None:
                ids.append(id_)
                continue
            detail = f"experiment {project!r} is not in the target: its name is kept in a tag"
            findings.append(Finding("approximation", NOT_HERE, "experiments", detail=detail))
        return ids, findings

    def _experiment_here(self, project: ProjectId) -> str | None:
        name = self.experiment_named(project)
        found: Any = self._stores.tracking.get_experiment_by_name(name)
        is_here = found is not None and found.name == name  # some databases do not tell upper from lower case
        return str(found.experiment_id) if is_here else None

    def find(self, key: MigrationKey) -> TargetRunId | None:
        """Which whole run or object carries a migration key."""
        return self._here.find(key) if self._here is not None else None

    def experiment(self, project: ProjectId) -> str:
        """The id of the experiment that holds what came from a project. For targets only."""
        assert self._here is not None
        return self._here.experiment(project)

    def experiment_named(self, project: ProjectId) -> str:
        """The name of that experiment. For targets only."""
        assert self._here is not None
        return self._here.experiment_named(project)

    def model_named(self, name: str) -> str:
        """What a registered model or prompt of the source is called here. For targets only."""
        assert self._here is not None
        return self._here.models.get(name, name)

    def _identity(self, scope: Scope, id_: str) -> Identity:
        get = {"runs": self._run, "logged_models": self._logged_model, "traces": self._trace}[scope]
        try:
            with mlflow_errors(f"{scope} {id_}"):
                tags, experiment_id = get(id_)
                return identity_of(tags) if was_brought(tags) else Identity(self.project_of(experiment_id), RunId(id_))
        except Permanent:
            return Identity(ProjectId(""), RunId(id_))

    def _run(self, id_: str) -> tuple[dict[str, str], str]:
        run: Any = self._stores.tracking.get_run(id_)
        return dict(run.data.tags), str(run.info.experiment_id)

    def _logged_model(self, id_: str) -> tuple[dict[str, str], str]:
        model: Any = self._stores.tracking.get_logged_model(id_)
        return dict(model.tags), str(model.experiment_id)

    def _trace(self, id_: str) -> tuple[dict[str, str], str]:
        info: Any = self._stores.tracking.get_trace_info(id_)
        return dict(info.tags), str(info.experiment_id)


def not_here(folder: str, made_of: Facts) -> Finding:
    """Of a reference that leads to nothing in the target."""
    detail = f"{made_of.text(f'{folder}/id')} is not in the target: its id is kept in a tag"
    return Finding("approximation", NOT_HERE, f"{folder}/id", detail=detail)
