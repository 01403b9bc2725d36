"""The facts of a run (its `sys/*` fields, see `run_facts`) in the places where W&B has its own for them.

    W&B                    from
    name                   the run's name
    notes                  sys/description
    group                  sys/name, else sys/experiment/name
    tags                   sys/tags and sys/group_tags
    host                   sys/hostname
    job type               the option job-type
    state                  failed (exit code 1), else finished: nothing executes the run any more
    start, end, parent     the config's block `shardmig`: W&B's API dates a run by its upload, and W&B's own forks copy the
                           parent's history, which is here already. The log has the start too

Every fact is a config value as well, under its own field name, exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shardmig.adapters import run_facts
from shardmig.adapters.wandb.naming import MAX_TAG, title
from shardmig.records import Finding, MigrationKey, Scope, TargetRunId

COMPLETE = "complete"
LOADING = "loading"


class Block(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the config's key `shardmig` holds: how the run is found again, whether it is whole, and where it came from."""

    key: MigrationKey
    state: str
    digest: str = ""
    project: str = ""
    run_id: str = ""
    scope: Scope = "runs"
    source: str = ""
    version: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    parent: TargetRunId | None = None
    job_type: str | None = None
    """That the run was given; None: shardmig did not note it then."""

    @property
    def is_complete(self) -> bool:
        """Is the run whole?"""
        return self.state == COMPLETE


class RunFacts(run_facts.RunFacts):
    """What the scalar fields of one run say of the run itself, in W&B's terms."""

    @property
    def name(self) -> str:
        """The run's name in W&B."""
        return title(self.wanted_name) or "_"

    @property
    def group(self) -> str:
        """The run's group: Neptune's experiment."""
        return title(self.sys_name)

    @property
    def notes(self) -> str:
        """The run's description."""
        return self.text("sys/description")

    @property
    def host(self) -> str:
        """Where the run was executed."""
        return title(self.text("sys/hostname"))

    @property
    def tags(self) -> list[str]:
        """The run's tags, each as W&B takes it."""
        return sorted({title(tag, MAX_TAG) for tag in self._wanted_tags} - {""})

    @property
    def state(self) -> str:
        """How the run ended."""
        return "failed" if self.is_failed else "finished"

    def findings(self) -> Iterator[Finding]:
        """What W&B shows otherwise than it was. The exact values are in the config."""
        if self.name != self.wanted_name:
            yield Finding("note", "run-name-changed", detail=f"W&B has {self.name!r}")
        if self.group != self.sys_name:
            yield Finding("note", "group-changed", detail=f"W&B has {self.group!r}")
        if set(self.tags) != set(self._wanted_tags):
            yield Finding("note", "tags-changed", detail=f"W&B takes tags of 1 to {MAX_TAG} characters")
        if self.is_active:
            yield Finding("note", "state-finished", detail="the run was active when it was exported")

    @property
    def _wanted_tags(self) -> list[str]:
        return [*self.texts("sys/tags"), *self.texts("sys/group_tags")]


class HeldFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What W&B says of a run itself."""

    name: str
    project: str
    state: str
    group: str = ""
    notes: str = ""
    job_type: str = ""
    tags: list[str] = []


def expected_facts(
    facts: RunFacts, project: str, job_type: str, parent: TargetRunId | None, last_point_ms: int | None
) -> dict[str, str]:
    """`WriteSide.expected_facts`."""
    held = HeldFacts(
        name=facts.name,
        project=project,
        state=facts.state,
        group=facts.group,
        notes=facts.notes,
        job_type=job_type,
        tags=facts.tags,
    )
    return shown_facts(held, facts.start_ms, facts.ended_ms(last_point_ms), parent)


def shown_facts(
    held: HeldFacts, start_ms: int | None, end_ms: int | None, parent: TargetRunId | None
) -> dict[str, str]:
    """Facts by the names of the contract."""
    facts = {
        "status": held.state,
        "start_time": "" if start_ms is None else str(start_ms),
        "end_time": "" if end_ms is None else str(end_ms),
        "name": held.name,
        "experiment": held.project,
        "group": held.group,
        "notes": held.notes,
        "job_type": held.job_type,
        "parent": parent or "",
        **{f"tag:{tag}": tag for tag in held.tags},
    }
    return {name: value for name, value in facts.items() if value}
