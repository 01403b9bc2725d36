"""The facts of a run (its `sys/*` fields, see `run_facts`) in the places where MLflow has its own for them.

    MLflow                 from
    user, mlflow.user      sys/owner
    mlflow.note.content    sys/description
    mlflow.source.name     source_code/entrypoint
    mlflow.source.git.*    commit, branch and repoURL: source_code/commit/commit_id, source_code/branch and
                           source_code/remote/origin
    mlflow.parentRunId     the parent's run in this target
    tags/<tag>             each of sys/tags, with the tag itself as value; group_tags/<tag> likewise
    shardmig.*             provenance: where the run came from and how it was written

Every fact is a param as well, under its own field name, exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from shardmig.adapters import run_facts
from shardmig.adapters.mlflow.naming import Naming, run_name, without_control_characters
from shardmig.adapters.mlflow.store import Status, StoredRun
from shardmig.adapters.sidecar import provenance
from shardmig.records import Finding, TargetRunId

PROVENANCE: Final = "shardmig."
LIFECYCLE: Final = "shardmig.lifecycle"
DELETED: Final = "deleted"
RESTORED: Final = "restored"
"""Of a copy that was deleted and is merged with: what brings more deletes it again last of all, if its source still is."""
DISCARDED: Final = "discarded"
"""Of a deleted run that is no copy any more."""
PARENT: Final = "mlflow.parentRunId"
RUN_NAME: Final = "mlflow.runName"
MAX_TAG: Final = 8000

_TEXT_TAGS: Final = {
    "mlflow.note.content": "sys/description",
    "mlflow.source.name": "source_code/entrypoint",
    "mlflow.source.git.commit": "source_code/commit/commit_id",
    "mlflow.source.git.branch": "source_code/branch",
    "mlflow.source.git.repoURL": "source_code/remote/origin",
    "shardmig.fork.parent": "sys/forking/parent",
    "shardmig.fork.step": "sys/forking/step",
}


class RunFacts(run_facts.RunFacts):
    """What the scalar fields of one run say of the run itself, in MLflow's terms."""

    @property
    def is_deleted(self) -> bool:
        """Is it to be deleted in MLflow, as it was where it came from?"""
        return False

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return run_name(self.wanted_name)

    @property
    def is_renamed(self) -> bool:
        """Does MLflow not hold the run's name as it is?"""
        return self.name != self.wanted_name

    @property
    def user(self) -> str:
        """Who executed the run."""
        return without_control_characters(self.text("sys/owner"))[:256]

    @property
    def status(self) -> Status:
        """How the run ended."""
        return self.outcome

    def end_ms(self, last_point_ms: int | None) -> int | None:
        """When the run ended."""
        return self.ended_ms(last_point_ms)

    def tags(self, naming: Naming, parent: TargetRunId | None) -> dict[str, str]:
        """MLflow's own tags, and one for each of Neptune's."""
        tags = {"mlflow.user": self.user, PARENT: parent or ""}
        tags |= {tag: self.text(path) for tag, path in _TEXT_TAGS.items()}
        for path, folder in (("sys/tags", "tags"), ("sys/group_tags", "group_tags")):
            tags |= {naming.key(f"{folder}/{tag}"): tag for tag in self.texts(path)}
        return {key: tag_value(value) for key, value in tags.items() if value}

    def findings(self, parent: TargetRunId | None) -> Iterator[Finding]:  # noqa: ARG002 (NativeFacts has some)
        """What MLflow does not keep of the run itself."""
        return iter(())


def is_deleted_copy(run: StoredRun) -> bool:
    """Was it, deleted in its source, deleted here last of all?"""
    return run.tags.get(LIFECYCLE) == DELETED


def is_native_copy(run: StoredRun) -> bool:
    """Did it come from MLflow? Then its tags are fields."""
    return run.tags.get(provenance.SOURCE, "").partition(" ")[0] == "mlflow"


def tag_value(text: str) -> str:
    """A tag's value: at most 8000 characters that every SQL store takes."""
    return without_control_characters(text)[:MAX_TAG]


def expected_facts(
    run: RunFacts, naming: Naming, experiment: str, parent: TargetRunId | None, last_point_ms: int | None
) -> dict[str, str]:
    """`WriteSide.expected_facts`."""
    end_ms = run.end_ms(last_point_ms)
    facts = {
        "status": run.status,
        "start_time": str(run.start_ms),
        "end_time": "" if end_ms is None else str(end_ms),
        "name": run.name,
        "user": run.user,
        "experiment": experiment,
        "lifecycle": DELETED if run.is_deleted else "",
    }
    return _set_facts(facts, run.tags(naming, parent))


def held_facts(run: StoredRun, experiment: str) -> dict[str, str]:
    """`WriteSide.read_facts`: without what MLflow or shardmig made by itself."""
    facts = {
        "status": run.status,
        "start_time": "" if run.start_ms is None else str(run.start_ms),
        "end_time": "" if run.end_ms is None else str(run.end_ms),
        "name": run.name,
        "user": run.user,
        "experiment": experiment,
    }
    if run.is_deleted:
        facts["lifecycle"] = DELETED
    return _set_facts(facts, run.tags if not is_native_copy(run) else {PARENT: run.tags.get(PARENT, "")})


def _set_facts(facts: dict[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    facts["parent"] = tags.get(PARENT, "")
    for key, value in tags.items():
        is_own = key.startswith(PROVENANCE) and not key.startswith(f"{PROVENANCE}fork.")
        if not is_own and key not in (PARENT, RUN_NAME):
            facts[f"tag:{key}"] = value
    return {name: value for name, value in facts.items() if value}
