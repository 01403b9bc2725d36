"""Experiments: with runs, without any, deleted.

    MLflow                      field
    id, name                    sys/id, sys/name
    created                     sys/creation_time
    deleted                     sys/trashed
    where artifacts lie         sys/mlflow/artifact_uri
    tag                         tags/<key>, string

In the target an experiment is found by its name: the runs that it holds may have made it, or somebody whose it is, or
another source that has one of this name (see `shared`). A
deleted one is made last of all, that is deleted, unless it holds what did not come from there: MLflow deletes the runs of
an experiment with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from shardmig.adapters.mlflow import facts as marks
from shardmig.adapters.mlflow.objects import shared
from shardmig.adapters.mlflow.objects.base import LINKING, TAGS, Making, Stored, Tree, scalars, tag_fields, times
from shardmig.adapters.mlflow.objects.references import References
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.errors import TargetConflict
from shardmig.records import Field, Finding, MigrationKey, Points, ProjectId, RunId, Scope

DELETED: Final = "sys/trashed"
THEIRS: Final = "shardmig.theirs"
"""Tag: the names of those tags that had other values when the experiment was taken, as JSON. They are somebody's and stay,
even if it is written anew."""
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
        """As ObjectClass: in the experiment that has the name which this one would have here now."""
        copies = [self._seen(one, key) for one in self._candidates(key)]
        whole = [one for one in copies if one.tags.get(provenance.KEY) == key]
        return [one for one in whole if not one.is_deleted or one.tags.get(marks.LIFECYCLE) == marks.DELETED]

    def _candidates(self, key: MigrationKey) -> Iterator[Any]:
        from mlflow.entities import ViewType

        if (meant := self._references.expected(key)) is not None:
            name = self._references.experiment_named(meant.project)
            found: Any = self._stores.tracking.get_experiment_by_name(name)
            yield from [found] if found is not None and found.name == name else []
            return
        condition = f"tags.`{provenance.KEY}` = '{key}'"
        search = self._stores.tracking.search_experiments
        for one in pages(search, view_type=ViewType.ALL, filter_string=condition, max_results=IN_PAGE):
            if one.name == self._references.experiment_named(ProjectId(one.tags[provenance.PROJECT])):
                yield one

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
        yield from tag_fields(TAGS, stored.tags)
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
        """As ObjectClass. One of the name that is there is taken; its own tags stay."""
        facts = making.facts
        key = making.tags[provenance.KEY]
        stored = self._held(self._references.experiment(facts.run.project), key)
        texts = facts.texts(TAGS)
        theirs = _theirs(stored, texts)
        brought = {key: text for key, text in texts.items() if key not in theirs}
        lifecycle = {marks.LIFECYCLE: marks.RESTORED} if marks.LIFECYCLE in stored.tags else {}
        if facts.holds(DELETED):
            self._refuse_others(stored, facts.run.project)
            lifecycle = {marks.LIFECYCLE: marks.DELETED}
        # First of all whose the tags are: who is cut behind it has not taken them for its own.
        notes = {THEIRS: json.dumps(theirs)} | shared.brought(brought)
        self._set_tags(stored, notes | brought | making.tags | lifecycle)
        return self._held(stored.id, key), []

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass."""
        self._restore(stored)
        return self.make(making)

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: nothing does."""

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass. Nothing about a deleted experiment can be changed: it is restored, and deleted once it is complete."""
        is_last = tags.get(provenance.STATE) == provenance.COMPLETE
        is_to_go = is_last and stored.tags.get(marks.LIFECYCLE) == marks.DELETED
        self._restore(stored)
        if is_to_go:
            self._refuse_others(stored, stored.tags.get(provenance.PROJECT, ""))
        self._set_tags(stored, tags)
        if is_to_go:
            self._stores.tracking.delete_experiment(stored.id)

    def discard(self, stored: Stored) -> None:
        """As ObjectClass: what it holds stays, and so does it, but it is no copy any more."""
        self._restore(stored)
        self._set_tags(stored, {THEIRS: stored.tags.get(THEIRS, "[]")})
        for tag in self._place(stored).cleared([THEIRS]):
            self._stores.tracking.delete_experiment_tag(stored.id, tag)

    def _restore(self, stored: Stored) -> None:
        """Make it active, if it is not since `stored` was read."""
        if stored.is_deleted and self.get(stored.id).is_deleted:
            self._stores.tracking.restore_experiment(stored.id)

    def _set_tags(self, stored: Stored, tags: Mapping[str, str]) -> None:
        from mlflow.entities import ExperimentTag

        for key, text in self._place(stored, tags.get(provenance.KEY)).put(tags).items():
            self._stores.tracking.set_experiment_tag(stored.id, ExperimentTag(key, text))

    def _refuse_others(self, stored: Stored, project: str) -> None:
        """Raise TargetConflict if it holds what did not come from this project, or did from another source that has one of
        this name: it would be deleted with it."""
        is_brought = self._place(stored).is_alone and all(
            tags.get(provenance.KEY) and marks.tag_value(tags.get(provenance.PROJECT, "")) == marks.tag_value(project)
            for tags in self._contents(stored.id)
        )
        if not is_brought:
            raise TargetConflict(
                f"experiment {stored.name!r} was deleted in the source, but holds what did not come from there",
                hint="delete it yourself, or copy to others with --name-prefix",
            )

    def _contents(self, id_: str) -> Iterator[Mapping[str, str]]:
        """The tags of each run, logged model and trace that is active in it; of a run that was copied as an active one none:
        MLflow deletes the runs of an experiment with it, so it is of a source that has its own still."""
        from mlflow.entities import ViewType

        tracking = self._stores.tracking
        chosen = {"filter_string": "", "run_view_type": ViewType.ACTIVE_ONLY}
        for run in pages(tracking.search_runs, experiment_ids=[id_], max_results=IN_PAGE, **chosen):
            yield run.data.tags if run.data.tags.get(marks.LIFECYCLE) == marks.DELETED else {}
        for model in pages(tracking.search_logged_models, experiment_ids=[id_], max_results=IN_PAGE):
            yield model.tags
        traces = chain.from_iterable(self._stores.trace_pages([id_], None))
        yield from (trace.tags for trace in traces)

    def _held(self, id_: str, key: str) -> Stored:
        """An experiment here, as the copy with this key sees it."""
        return self._seen(self.get(id_).content, key)

    def _seen(self, experiment: Any, key: str) -> Stored:
        return self._stored(experiment, shared.Place(self._references, experiment, key).seen())

    def _place(self, stored: Stored, key: str | None = None) -> shared.Place:
        return shared.Place(self._references, stored.content, key or stored.tags.get(provenance.KEY))

    def _stored(self, experiment: Any, seen: Mapping[str, str] | None = None) -> Stored:
        """`seen`: its tags, as far as they are not all meant."""
        tags = dict(experiment.tags if seen is None else seen)
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


def theirs_of(tags: Mapping[str, str]) -> list[str]:
    """Which tags of an experiment are somebody's. None of any other object."""
    names: list[str] = json.loads(tags.get(THEIRS, "[]"))
    return names


def _theirs(stored: Stored, brought: Mapping[str, str]) -> list[str]:
    """Which tags are somebody's: those that had other values before the experiment was taken, unless it came from here, and
    those that another copy brought."""
    held, every = stored.tags, stored.content.tags
    known = theirs_of(held)
    is_taken = provenance.KEY in held or THEIRS in held
    unseen = [
        key for key, text in brought.items() if (not is_taken or key not in held) and every.get(key, text) != text
    ]
    return sorted({*known, *unseen})
