"""The facts of a run (its `sys/*` fields) in the places where MLflow has its own for them.

    MLflow                 from
    start time             sys/creation_time, else the listing's creation time, else 0
    end time               start + sys/running_time (s) or sys/running_time_seconds, else sys/modification_time,
                           else the last point's time; never before the start; none while RUNNING
    status                 FAILED if sys/failed; RUNNING if sys/state is active or running; else FINISHED
    run name               sys/custom_run_id, else the run id
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

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from shardmig.adapters.mlflow.naming import Naming, run_name, without_control_characters
from shardmig.adapters.mlflow.store import Status, StoredRun
from shardmig.records import Field, Finding, RunRef, TargetRunId

KEY: Final = "shardmig.key"
STATE: Final = "shardmig.state"
DIGEST: Final = "shardmig.digest"
INTENT: Final = "shardmig.intent"
PROVENANCE: Final = "shardmig."
COMPLETE: Final = "complete"
LOADING: Final = "loading"
PROJECT: Final = "shardmig.project"
RUN_ID: Final = "shardmig.run_id"
LIFECYCLE: Final = "shardmig.lifecycle"
DELETED: Final = "deleted"
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
_ACTIVE_STATES: Final = frozenset({"active", "running", "idle"})
_PATHS: Final = frozenset(
    {
        "sys/creation_time",
        "sys/modification_time",
        "sys/running_time",
        "sys/running_time_seconds",
        "sys/failed",
        "sys/state",
        "sys/custom_run_id",
        "sys/name",
        "sys/experiment/name",
        "sys/owner",
        "sys/tags",
        "sys/group_tags",
        *_TEXT_TAGS.values(),
    }
)


class RunFacts:
    """What the scalar fields of one run say of the run itself."""

    def __init__(self, run: RunRef) -> None:
        self.run = run
        self._values: dict[str, Field] = {}

    def learn(self, fields: Iterable[Field]) -> None:
        """Take the facts out of some scalar fields."""
        for field in fields:
            if field.path in _PATHS:
                self._values[field.path] = field

    @property
    def sys_name(self) -> str:
        """The experiment's name in Neptune; "" = none."""
        return self._text("sys/name") or self._text("sys/experiment/name")

    @property
    def is_deleted(self) -> bool:
        """Is it to be deleted in MLflow, as it was where it came from?"""
        return False

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return run_name(self._wanted_name)

    @property
    def is_renamed(self) -> bool:
        """Does MLflow not hold the run's name as it is?"""
        return self.name != self._wanted_name

    @property
    def user(self) -> str:
        """Who executed the run."""
        return without_control_characters(self._text("sys/owner"))[:256]

    @property
    def start_ms(self) -> int:
        """When the run began."""
        created = self._number("sys/creation_time")
        return max(0, int(created if created is not None else self.run.created_ms or 0))

    @property
    def status(self) -> Status:
        """How the run ended."""
        failed = self._values.get("sys/failed")
        if failed is not None and failed.value is True:
            return "FAILED"
        return "RUNNING" if self._text("sys/state").lower() in _ACTIVE_STATES else "FINISHED"

    def end_ms(self, last_point_ms: int | None) -> int | None:
        """When the run ended. `last_point_ms`: the greatest time of its points, None if it has none."""
        if self.status == "RUNNING":
            return None
        running_s = self._number("sys/running_time")
        if running_s is None:
            running_s = self._number("sys/running_time_seconds")
        if running_s is not None:
            return self.start_ms + max(0, round(running_s * 1000))
        modified = self._number("sys/modification_time")
        end = int(modified) if modified is not None else last_point_ms
        return None if end is None else max(self.start_ms, end)

    def tags(self, naming: Naming, parent: TargetRunId | None) -> dict[str, str]:
        """MLflow's own tags, and one for each of Neptune's."""
        tags = {"mlflow.user": self.user, PARENT: parent or ""}
        tags |= {tag: self._text(path) for tag, path in _TEXT_TAGS.items()}
        for path, folder in (("sys/tags", "tags"), ("sys/group_tags", "group_tags")):
            tags |= {naming.key(f"{folder}/{tag}"): tag for tag in self._texts(path)}
        return {key: tag_value(value) for key, value in tags.items() if value}

    def findings(self, parent: TargetRunId | None) -> Iterator[Finding]:  # noqa: ARG002 (NativeFacts has some)
        """What MLflow does not keep of the run itself."""
        return iter(())

    @property
    def _wanted_name(self) -> str:
        return self._text("sys/custom_run_id") or self.run.id

    def _text(self, path: str) -> str:
        field = self._values.get(path)
        return "" if field is None or isinstance(field.value, list) else str(field.value)

    def _texts(self, path: str) -> list[str]:
        field = self._values.get(path)
        return field.value if field is not None and isinstance(field.value, list) else []

    def _number(self, path: str) -> float | None:
        field = self._values.get(path)
        return field.value if field is not None and isinstance(field.value, (int, float)) else None


def is_deleted_copy(run: StoredRun) -> bool:
    """Was it, deleted in its source, deleted here last of all?"""
    return run.tags.get(LIFECYCLE) == DELETED


def is_native_copy(run: StoredRun) -> bool:
    """Did it come from MLflow? Then its tags are fields."""
    return run.tags.get("shardmig.source", "").partition(" ")[0] == "mlflow"


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
