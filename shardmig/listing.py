"""What a source lists for a request: the runs of every selected project, or why a project could not be listed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from shardmig import codec, planner
from shardmig.adapters.base import ReadSide
from shardmig.adapters.registry import open_source
from shardmig.errors import Permanent, UsageError
from shardmig.planner import Request
from shardmig.records import AdapterSpec, Counters, Failure, MigrationId, Progress, ProjectId, RunRef
from shardmig.worker.task import failure_of

_MOST_PROJECTS_NAMED: Final = 20
_TELL_EVERY_S: Final = 0.5


class Listing:
    """One listing of a source, which is opened now: wrong options are refused before anything is made. `runs` closes it, or
    `close`. `refused` holds the projects that could not be listed, once `runs` is used up.

    `home`: where the listing of an archive is remembered for the next one, if it is to be. `observe` is told how far it is,
    about twice a second while runs come. Raises as `open_source`.
    """

    def __init__(
        self, request: Request, home: Path | None = None, observe: Callable[[Progress], None] | None = None
    ) -> None:
        self._request = request
        self._observe = observe
        self._source: ReadSide | None = open_source(_remembering(request.source, home))
        self.refused: dict[ProjectId, Failure] = {}

    def runs(self) -> Iterator[RunRef]:
        """Every selected run. A project that cannot be listed does not stop the others.

        Raises UsageError for a project that was named and is not there, and what a project raises if no project can
        be listed at all.
        """
        if self._observe is None:
            return self._runs()
        return _watched(self._runs(), planner.migration_id(self._request), self._observe)

    def _runs(self) -> Iterator[RunRef]:
        source = self._source
        assert source is not None
        try:
            projects = self._projects(source)
            for project in projects:
                try:
                    yield from source.list_runs(project, self._request.selection)
                except Permanent as error:
                    self.refused[project] = failure_of(error)
                    if len(self.refused) == len(projects):
                        raise
        finally:
            self.close()

    def close(self) -> None:
        """Close the source and let go of it: it may remember every run. Idempotent."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _projects(self, source: ReadSide) -> list[ProjectId]:
        selection = self._request.selection
        projects = list(source.list_projects(selection))
        if unknown := set(selection.projects) - set(projects):
            every = source.list_projects(msgspec.structs.replace(selection, projects=()))
            raise UsageError(
                f"the source has no project {', '.join(sorted(unknown))}",
                hint=f"it has: {', '.join(itertools.islice(every, _MOST_PROJECTS_NAMED)) or 'none'}",
            )
        return projects


def _watched(runs: Iterator[RunRef], migration: MigrationId, observe: Callable[[Progress], None]) -> Iterator[RunRef]:
    started_s = told_s = time.monotonic()

    def tell(count: int) -> None:
        took_s = told_s - started_s
        observe(Progress(migration=migration, phases=[], elapsed_s=took_s, eta_s=None, moved=Counters(), listed=count))

    tell(0)
    for count, run in enumerate(runs, 1):
        if (now_s := time.monotonic()) - told_s >= _TELL_EVERY_S:
            told_s = now_s
            tell(count)
        yield run


def _remembering(source: AdapterSpec, home: Path | None) -> AdapterSpec:
    if source.name != "archive" or home is None:
        return source
    name = blake2b(codec.encode(source), digest_size=6).hexdigest()
    return AdapterSpec(source.name, source.options | {"memory": str(home / f"listing-{name}")})
