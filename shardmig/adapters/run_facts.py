"""What the `sys/*` fields of a run say of the run itself, in words that every target has a place for.

start         sys/creation_time, else the listing's creation time, else 0
end           start + sys/running_time (s) or sys/running_time_seconds, else sys/modification_time,
              else the last point's time; never before the start; none while it runs
status        FAILED if sys/failed; RUNNING if sys/state is active, running or idle; else FINISHED
name          sys/custom_run_id, else the run id
user          sys/owner
description   sys/description
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from shardmig.adapters.base import FACT_NAMESPACES
from shardmig.records import Field, RunRef

Status = Literal["RUNNING", "FINISHED", "FAILED"]

_ACTIVE_STATES: Final = frozenset({"active", "running", "idle"})


class RunFacts:
    """What the scalar fields of one run say of the run itself. Memory: its fields below FACT_NAMESPACES."""

    def __init__(self, run: RunRef) -> None:
        self.run = run
        self._values: dict[str, Field] = {}

    def learn(self, fields: Iterable[Field]) -> None:
        """Take the facts out of some scalar fields."""
        self._values |= {field.path: field for field in fields if field.path.startswith(FACT_NAMESPACES)}

    @property
    def sys_name(self) -> str:
        """The experiment's name in Neptune; "" = none."""
        return self.text("sys/name") or self.text("sys/experiment/name")

    @property
    def wanted_name(self) -> str:
        """The run's name, before any limit of a target."""
        return self.text("sys/custom_run_id") or self.run.id

    @property
    def start_ms(self) -> int:
        """When the run began."""
        created = self.number("sys/creation_time")
        return max(0, int(created if created is not None else self.run.created_ms or 0))

    @property
    def is_failed(self) -> bool:
        """Did the run fail?"""
        failed = self._values.get("sys/failed")
        return failed is not None and failed.value is True

    @property
    def is_active(self) -> bool:
        """Was it still running when it was exported?"""
        return not self.is_failed and self.text("sys/state").lower() in _ACTIVE_STATES

    @property
    def is_trashed(self) -> bool:
        """Was it deleted where it came from?"""
        trashed = self._values.get("sys/trashed")
        return trashed is not None and trashed.value is True

    @property
    def outcome(self) -> Status:
        """How the run ended."""
        return "FAILED" if self.is_failed else "RUNNING" if self.is_active else "FINISHED"

    def ended_ms(self, last_point_ms: int | None) -> int | None:
        """When the run ended. `last_point_ms`: the greatest time of its points, None if it has none."""
        if self.is_active:
            return None
        running_s = self.number("sys/running_time")
        if running_s is None:
            running_s = self.number("sys/running_time_seconds")
        if running_s is not None:
            return self.start_ms + max(0, round(running_s * 1000))
        modified = self.number("sys/modification_time")
        end = int(modified) if modified is not None else last_point_ms
        return None if end is None else max(self.start_ms, end)

    def text(self, path: str) -> str:
        """A fact as text; "" = none."""
        field = self._values.get(path)
        return "" if field is None or isinstance(field.value, list) else str(field.value)

    def texts(self, path: str) -> list[str]:
        """A fact that is a set of texts."""
        field = self._values.get(path)
        return field.value if field is not None and isinstance(field.value, list) else []

    def number(self, path: str) -> float | None:
        """A fact that is a number; None = none."""
        field = self._values.get(path)
        return field.value if field is not None and isinstance(field.value, (int, float)) else None
