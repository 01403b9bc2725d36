"""Which run of MLflow a write goes on with: one that is there, whole or in part, or a new one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from shardmig.adapters.mlflow import facts
from shardmig.adapters.mlflow.facts import RunFacts
from shardmig.adapters.mlflow.store import NewRun, RunStore, StoredRun
from shardmig.adapters.sidecar import provenance
from shardmig.errors import TargetConflict
from shardmig.records import Finding, LoadOptions

RULES: Final = 1
"""Of what a run looks like in MLflow. A run half written by other rules is begun anew, not gone on with."""

_MOST_TAGS_AT_CREATION: Final = 100


def is_whole(run: StoredRun) -> bool:
    """Was it written to its end? One that is to be deleted may still be active: who linked an object to it died."""
    return run.tags.get(provenance.STATE) == provenance.COMPLETE


def is_complete(run: StoredRun) -> bool:
    """Is nothing left to be done? A whole run that is to be deleted is complete once it is."""
    return is_whole(run) and run.is_deleted == facts.is_deleted_copy(run)


def intent_of(digest: str, experiment: str, load: LoadOptions, *, is_caseless: bool) -> str:
    """Two loads of equal intent leave the same run behind, so one may go on where the other stopped."""
    decisive = (RULES, digest, experiment, load.step_multiplier, load.allow_step_merge, load.sidecar)
    return blake2b(repr((*decisive, is_caseless)).encode(), digest_size=16).hexdigest()


def choose(store: RunStore, runs: Iterable[StoredRun], digest: str, intent: str, load: LoadOptions) -> StoredRun | None:
    """Of the runs of one key a whole one of this digest, or one to merge with or to leave, or a partial one of this intent.
    The others are discarded. Raises TargetConflict."""
    chosen = None
    for run in sorted(runs, key=is_whole, reverse=True):
        is_other = is_whole(run) and run.tags.get(provenance.DIGEST) != digest
        if is_other and load.on_existing == "fail":
            raise TargetConflict(
                f"MLflow holds this run as {run.id}, whole but with other content",
                hint="--on-existing merge brings what is new, --on-existing replace writes it anew",
            )
        is_kept = not is_other or load.on_existing != "replace"
        wanted = is_kept if is_whole(run) else run.tags.get(provenance.INTENT) == intent
        if chosen is None and wanted:
            chosen = run
        else:
            discard(store, run)
    return chosen


def experiment_id(store: RunStore, name: str) -> str:
    """The active experiment of exactly that name, created if need be. Raises TargetConflict where a database that does not tell
    upper from lower case has another one for it."""
    id_ = store.experiment_id(name)
    found = store.experiment(id_).name
    if found != name:
        raise TargetConflict(
            f"MLflow's database takes experiment {name!r} for {found!r}, which is there: they would be mixed",
            hint="--experiment-rename-file gives one of them another name",
        )
    return id_


def create(store: RunStore, experiment_id: str, run_facts: RunFacts, tags: dict[str, str]) -> StoredRun:
    """A new run with these tags."""
    first = dict(itertools.islice(tags.items(), _MOST_TAGS_AT_CREATION))
    run = store.create_run(
        NewRun(
            experiment_id=experiment_id,
            name=run_facts.name,
            start_ms=run_facts.start_ms,
            user=run_facts.user,
            tags=first,
        )
    )
    if len(first) < len(tags):
        store.set_tags(run, tags)
    return run


def discard(store: RunStore, run: StoredRun) -> None:
    """Delete a run; one that is a deleted copy is marked as none any more."""
    if run.is_deleted:
        if not facts.is_deleted_copy(run):
            return
        store.restore_run(run.id)  # nothing about a deleted run can be changed
    if facts.is_deleted_copy(run):
        store.set_tags(run, {facts.LIFECYCLE: facts.DISCARDED})
    store.delete_run(run.id)


def other_content(run: StoredRun) -> Finding:
    """A whole run was left as it is."""
    return Finding("note", "other-content-kept", detail=f"{run.id} was left as it is (--on-existing skip)")
