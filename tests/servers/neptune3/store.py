"""What the server holds: projects, runs, typed attributes, series with lineage. `dump` is the oracle of tests."""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

MICRO = 1_000_000
SERIES_TYPES = ("floatSeries", "stringSeries", "histogramSeries", "fileRefSeries")


@dataclass
class Point:
    """One point of a series. `step` in millionths; `completion` is None for a committed point."""

    step: int
    time_ms: int
    value: Any
    completion: float | None = None


@dataclass
class Series:
    """The own points of a run's series, committed ones and previews behind them."""

    type: str
    committed: list[Point] = field(default_factory=list)
    previews: list[Point] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last committed step, -1 if there is none."""
        return self.committed[-1].step if self.committed else -1


@dataclass
class Run:
    """One run: single values by path as (type, value), series by path."""

    sys_id: str
    custom_id: str | None
    uuid: str
    parent: Run | None = None
    fork_step: int = 0
    values: dict[str, tuple[str, Any]] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The custom run id, else the id that the server gave."""
        return self.custom_id if self.custom_id is not None else self.sys_id

    def type_of(self, path: str) -> str | None:
        """The own type of a path, None if the run has no such attribute."""
        if path in self.values:
            return self.values[path][0]
        return self.series[path].type if path in self.series else None

    def attributes(self) -> dict[str, str]:
        """Path to type, with the series that are inherited."""
        found = {path: kind for path, (kind, _) in self.values.items()}
        for run, cut in self.lineage():
            for path, series in run.series.items():
                if cut is None or (series.committed and series.committed[0].step <= cut):
                    found.setdefault(path, series.type)
        return found

    def points(self, path: str, *, inherited: bool, previews: bool) -> list[Point] | None:
        """Points in step order; None if neither this run nor (when asked) an ancestor has the series."""
        parts: list[list[Point]] = []
        for run, cut in self.lineage() if inherited else [(self, None)]:
            series = run.series.get(path)
            if series is None:
                continue
            if cut is None:
                parts.append(series.committed + (series.previews if previews else []))
            else:
                parts.append(series.committed[: bisect_right(series.committed, cut, key=lambda point: point.step)])
        return [point for part in reversed(parts) for point in part] if parts else None

    def lineage(self) -> Iterator[tuple[Run, int | None]]:
        """This run, then its ancestors with the step up to which their points are inherited."""
        run: Run | None = self
        cut: int | None = None
        while run is not None:
            yield run, cut
            cut = run.fork_step if cut is None else min(cut, run.fork_step)
            run = run.parent


class Project:
    """Runs by the id that the server gave, and by custom run id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = name.rpartition("/")[2][:3].upper()
        self.runs: dict[str, Run] = {}
        self.by_custom_id: dict[str, Run] = {}

    def find(self, holder: str) -> Run | None:
        """By `ws/proj/SYS-1` or `CUSTOM/ws/proj/<run id>`."""
        custom = f"CUSTOM/{self.name}/"
        if holder.startswith(custom):
            return self.by_custom_id.get(holder.removeprefix(custom))
        return self.runs.get(holder.removeprefix(f"{self.name}/"))

    def create(
        self,
        custom_id: str | None,
        *,
        created_ms: int | None = None,
        name: str = "",
        parent: Run | None = None,
        fork_step: int = 0,
    ) -> Run:
        """A run with the attributes that the server itself sets."""
        now_ms = time.time_ns() // 1_000_000
        created_ms = now_ms if created_ms is None else created_ms
        run = Run(f"{self.key}-{len(self.runs) + 1}", custom_id, str(uuid.uuid4()), parent, fork_step)
        run.values = _own_values(run, created_ms, now_ms)
        if custom_id is not None:
            self.by_custom_id[custom_id] = run
        if name:
            run.values |= {
                "sys/name": ("string", name),
                "sys/experiment/name": ("string", name),
                "sys/experiment/is_head": ("bool", True),
            }
        self.runs[run.sys_id] = run
        return run


def _own_values(run: Run, created_ms: int, now_ms: int) -> dict[str, tuple[str, Any]]:
    values: dict[str, tuple[str, Any]] = {
        "sys/id": ("string", run.sys_id),
        "sys/creation_time": ("datetime", created_ms),
        "sys/modification_time": ("datetime", now_ms),
        "sys/ping_time": ("datetime", now_ms),
        "sys/owner": ("string", "tester"),
        "sys/archived": ("bool", False),
        "sys/trashed": ("bool", False),
        "sys/failed": ("bool", False),
        "sys/size": ("int", 0),
        "sys/running_time_seconds": ("float", 0.0),
        "sys/forking/depth": ("int", sum(1 for _ in run.lineage()) - 1),
        "sys/diagnostics/run_uuid": ("string", run.uuid),
    }
    if run.custom_id is not None:
        values["sys/custom_run_id"] = ("string", run.custom_id)
    if run.parent is not None:
        values["sys/forking/parent"] = ("string", run.parent.id)
        values["sys/forking/step"] = ("float", run.fork_step / MICRO)
    return values


class Store:
    """All projects of one workspace server. `lock` guards every access."""

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        self.denied: set[str] = set()
        self.objects: dict[tuple[str, str], bytes] = {}
        self.lock = threading.RLock()

    def project(self, name: str) -> Project:
        """The project, made if it is new."""
        return self.projects.setdefault(name, Project(name))

    def dump(self, project: str, run_id: str, *, lineage: bool = False) -> dict[tuple[str, str], Any]:
        """The oracle: (path, type) to the value, or to rows (step, time_ms, value). File contents as bytes."""
        with self.lock:
            run = next(run for run in self.projects[project].runs.values() if run.id == run_id)
            found: dict[tuple[str, str], Any] = {}
            for path, (kind, value) in run.values.items():
                found[path, kind] = self._content(project, kind, value)
            for path, kind in run.attributes().items():
                points = run.points(path, inherited=lineage, previews=False) if kind in SERIES_TYPES else None
                if points:
                    found[path, kind] = [
                        (Decimal(point.step) / MICRO, point.time_ms, self._content(project, kind, point.value))
                        for point in points
                    ]
            return found

    def _content(self, project: str, kind: str, value: Any) -> Any:
        if kind in ("fileRef", "fileRefSeries"):
            return self.objects.get((project, value[0]))
        return sorted(value) if kind == "stringSet" else value
