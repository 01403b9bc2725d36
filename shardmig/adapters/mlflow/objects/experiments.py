"""Experiments: with runs, without any, deleted.

    MLflow                      field
    id, name                    sys/id, sys/name
    created                     sys/creation_time
    deleted                     sys/trashed
    where artifacts lie         sys/mlflow/artifact_uri
    tag                         tags/<key>, string

In the target an experiment is found by its name: the runs that it holds may have made it. A deleted one is made last of
all, that is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shardmig.adapters.mlflow import facts as marks
from shardmig.adapters.mlflow.objects.base import LINKING, TAGS, Making, Stored, Tree, scalars, tag_fields, times
from shardmig.adapters.mlflow.objects.references import References
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.records import Field, Finding, MigrationKey, Points, ProjectId, RunId, Scope

DELETED: Final = "sys/trashed"
_OWN: Final = frozenset({"sys/id", "sys/name", "sys/creation_time", "sys/mlflow/artifact_uri", DELETED})


class Experiments:
    """`ObjectClass` of experiments."""

    scope: Scope = "experiments"
    is_linked = False
    keeps_id = False
    completes = False

    def __init__(self, stores: Stores, references: References) -> None:
        self._stores = stores
        self._references = references

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        return map(self._stored, self._stores.experiments())

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass."""
        from mlflow.entities import ViewType

        search = self._stores.tracking.search_experiments
        condition = f"tags.`{provenance.KEY}` = '{key}'"
        found = pages(search, view_type=ViewType.ALL, filter_string=condition, max_results=IN_PAGE)
        copies = map(self._stored, found)
        return [one for one in copies if not one.is_deleted or one.tags.get(marks.LIFECYCLE) == marks.DELETED]

    def get(self, id_: str) -> Stored:
        """As ObjectClass."""
        with mlflow_errors(f"experiment {id_}"):
            return self._stored(self._stores.tracking.get_experiment(id_))

    def fields(self, stored: Stored) -> Iterator[Field]:
        """As ObjectClass."""
        experiment = stored.content
        texts = {
            "sys/id": experiment.experiment_id,
            "sys/name": experiment.name,
            DELETED: stored.is_deleted,
            "sys/mlflow/artifact_uri": experiment.artifact_location,
        }
        yield from scalars(texts)
        yield from times({"sys/creation_time": experiment.creation_time})
        yield from tag_fields(TAGS, experiment.tags)
        yield from self._stores.permissions(self.scope, stored.id)

    def points(self, stored: Stored) -> Iterator[Points]:  # noqa: ARG002
        """As ObjectClass: none."""
        return iter(())

    def trees(self, stored: Stored) -> Iterator[Tree]:  # noqa: ARG002
        """As ObjectClass: none."""
        return iter(())

    def is_volatile(self, path: str) -> bool:  # noqa: ARG002
        """As ObjectClass."""
        return False

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        return path in _OWN

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. One of the name that is there is taken; its own tags stay unless they are set."""
        from mlflow.entities import ExperimentTag

        facts = making.facts
        id_ = self._references.experiment(facts.run.project)
        lifecycle = {marks.LIFECYCLE: marks.DELETED} if facts.holds(DELETED) else {}
        for key, text in (facts.texts(TAGS) | making.tags | lifecycle).items():
            self._stores.tracking.set_experiment_tag(id_, ExperimentTag(key, text))
        return self.get(id_), []

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        if stored.is_deleted:
            self._stores.tracking.restore_experiment(stored.id)
        return self.make(making)

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: nothing does."""

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass. Nothing about a deleted experiment can be changed: it is deleted once it is complete."""
        from mlflow.entities import ExperimentTag

        for key, text in tags.items():
            self._stores.tracking.set_experiment_tag(stored.id, ExperimentTag(key, text))
        if tags.get(provenance.STATE) == provenance.COMPLETE and stored.tags.get(marks.LIFECYCLE) == marks.DELETED:
            self._stores.tracking.delete_experiment(stored.id)

    def discard(self, stored: Stored) -> None:
        """As ObjectClass: what it holds stays, and so does it, but it is no copy any more."""
        if stored.is_deleted:
            self._stores.tracking.restore_experiment(stored.id)
        for key in [key for key in stored.tags if key.startswith(marks.PROVENANCE)]:
            self._stores.tracking.delete_experiment_tag(stored.id, key)

    def _stored(self, experiment: Any) -> Stored:
        tags = dict(experiment.tags)
        is_deleted = experiment.lifecycle_stage == "deleted"
        if (
            tags.get(marks.LIFECYCLE) == marks.DELETED
            and not is_deleted
            and tags.get(provenance.STATE) == provenance.COMPLETE
        ):
            tags[provenance.STATE] = LINKING  # its last step is to come, or was undone
        return Stored(
            id=str(experiment.experiment_id),
            project=ProjectId(experiment.name),
            name=RunId(experiment.name),
            tags=tags,
            content=experiment,
            revision=repr((experiment.name, experiment.lifecycle_stage, sorted(experiment.tags.items()))),
            created_ms=experiment.creation_time,
            is_deleted=is_deleted,
        )
