"""The facts of a run (its `sys/*` fields) in the places where Comet has its own for them.

    Comet                    from
    start                    sys/creation_time, else the listing's creation time, else 0
    end                      start + sys/running_time (s) or sys/running_time_seconds, else sys/modification_time, else the
                             last point's time; never before the start. A run that goes on ends with its last point
    Name (other)             sys/custom_run_id, else the run id
    tags                     sys/tags and sys/group_tags
    error of the experiment  when sys/failed: Comet has no other place for a failed run
    status (other)           failed if sys/failed; running if sys/state is active or running; else finished
    user, description, source, git.commit, git.branch, git.origin, fork.parent, fork.step (others)
                             sys/owner, sys/description, source_code/*, sys/forking/*
    parent (other)           the parent's experiment key
    shardmig.* (others)      provenance: where the run came from and how it was written

Every fact is a parameter as well, under its own field name, exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from shardmig.adapters.comet.experiment import About
from shardmig.adapters.comet.fit import cut
from shardmig.adapters.comet.naming import one_line, project_name, utf8
from shardmig.adapters.comet.options import CometOptions, filled
from shardmig.records import Field, RunRef, TargetRunId

NAME: Final = "Name"
PARENT: Final = "parent"
STATUS: Final = "status"

_OTHERS: Final = {
    "user": "sys/owner",
    "description": "sys/description",
    "source": "source_code/entrypoint",
    "git.commit": "source_code/commit/commit_id",
    "git.branch": "source_code/branch",
    "git.origin": "source_code/remote/origin",
    "fork.parent": "sys/forking/parent",
    "fork.step": "sys/forking/step",
}
SET_BY_COMET: Final = frozenset({"offline_experiment"})
_ACTIVE_STATES: Final = frozenset({"active", "running", "idle"})


class RunFacts:
    """What the scalar fields of one run say of the run itself."""

    def __init__(self, run: RunRef, options: CometOptions) -> None:
        self.run = run
        self._options = options
        self._values: dict[str, Field] = {}

    def learn(self, fields: Iterable[Field]) -> None:
        """Take the facts out of some scalar fields."""
        for field in fields:
            if field.path.startswith(("sys/", "source_code/")):
                self._values[field.path] = field

    @property
    def workspace(self) -> str:
        """Of the experiment; "" = the default one of the key's owner."""
        return filled(self._options.workspace, self.run.project, self._sys_name)

    @property
    def project(self) -> str:
        """Of the experiment."""
        return project_name(self.wanted_project)

    @property
    def wanted_project(self) -> str:
        """What the template says."""
        return filled(self._options.project, self.run.project, self._sys_name) or self.run.project

    @property
    def tags(self) -> list[str]:
        """Of the experiment: one line each."""
        tags = [*self._texts("sys/tags"), *self._texts("sys/group_tags")]
        return sorted({cut(one_line(utf8(tag))) for tag in tags} - {""})

    @property
    def start_ms(self) -> int:
        """When the run began."""
        created = self._number("sys/creation_time")
        return max(0, int(created if created is not None else self.run.created_ms or 0))

    @property
    def status(self) -> str:
        """How the run ended."""
        failed = self._values.get("sys/failed")
        if failed is not None and failed.value is True:
            return "failed"
        return "running" if self._text("sys/state").lower() in _ACTIVE_STATES else "finished"

    def end_ms(self, last_point_ms: int | None) -> int:
        """When the run ended. `last_point_ms`: the greatest time of its points, None if it has none."""
        running_s = self._number("sys/running_time")
        if running_s is None:
            running_s = self._number("sys/running_time_seconds")
        if running_s is not None and self.status != "running":
            return self.start_ms + max(0, round(running_s * 1000))
        modified = self._number("sys/modification_time")
        end = int(modified) if modified is not None else last_point_ms
        return self.start_ms if end is None else max(self.start_ms, end)

    def others(self, parent: TargetRunId | None) -> dict[str, str]:
        """Facts that have no other place."""
        others = {NAME: self._text("sys/custom_run_id") or self.run.id, STATUS: self.status, PARENT: parent or ""}
        others |= {key: self._text(path) for key, path in _OTHERS.items()}
        return {key: other_value(value) for key, value in others.items() if value}

    @property
    def _sys_name(self) -> str:
        return self._text("sys/name") or self._text("sys/experiment/name")

    def _text(self, path: str) -> str:
        field = self._values.get(path)
        return "" if field is None or isinstance(field.value, list) else str(field.value)

    def _texts(self, path: str) -> list[str]:
        field = self._values.get(path)
        return field.value if field is not None and isinstance(field.value, list) else []

    def _number(self, path: str) -> float | None:
        field = self._values.get(path)
        return field.value if field is not None and isinstance(field.value, (int, float)) else None


def failed_in(source: str) -> str:
    """The error that the experiment of a failed run shows."""
    return f"failed in {source or 'its source'}"


def other_value(text: str) -> str:
    """The value of an "other": at most 1000 characters."""
    return cut(utf8(text))


def expected_facts(run: RunFacts, parent: TargetRunId | None, last_point_ms: int | None) -> dict[str, str]:
    """`WriteSide.expected_facts`."""
    facts = {
        "start_time": str(run.start_ms),
        "end_time": str(run.end_ms(last_point_ms)),
        "experiment": run.project,
        "workspace": run.workspace,
    }
    return _set_facts(facts, run.others(parent), run.tags)


def held_facts(about: About, *, names_workspace: bool) -> dict[str, str]:
    """`WriteSide.read_facts`: without what Comet or shardmig made by itself."""
    facts = {
        "start_time": str(about.start_ms),
        "end_time": "" if about.end_ms is None else str(about.end_ms),
        "experiment": about.project,
        "workspace": about.workspace if names_workspace else "",
    }
    return _set_facts(facts, about.others, about.tags)


def _set_facts(facts: dict[str, str], others: Mapping[str, str], tags: Iterable[str]) -> dict[str, str]:
    for key, value in others.items():
        if not key.startswith("shardmig.") and key not in SET_BY_COMET:
            facts["name" if key == NAME else key] = value
    facts |= {f"tag:{tag}": tag for tag in tags}
    return {name: value for name, value in facts.items() if value}
