"""The read side over offline archives: an experiment is a run, `<workspace>/<project>` its project.

A run that shardmig itself wrote is given as what it was before: under its original project and id, its fields restored. What
people added to it in archives of their own comes with it; see `added`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.comet.fit import CometRules
from shardmig.adapters.comet.naming import Naming
from shardmig.adapters.comet.offline import ArchivedExperiment
from shardmig.adapters.comet.source.added_archives import AddedInArchives, ContinuedExperiment, own_and_added
from shardmig.adapters.comet.source.archives import ArchiveReading
from shardmig.adapters.comet.source.listing import at, experiments_in
from shardmig.adapters.comet.source.options import SourceOptions
from shardmig.adapters.sidecar.reading import RunReader, brought, then_added
from shardmig.adapters.staging import staging_folder
from shardmig.errors import BadInput, about_run
from shardmig.records import LoadOptions, Piece, ProjectId, RunRef, Selection
from shardmig.selection import Matcher

RULES = CometRules(LoadOptions(), Naming())
"""For reading: neither names nor steps are fitted."""


class ArchiveSource:
    """Read side of offline archives."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """As ReadSide."""
        matcher = Matcher(selection)
        yield from sorted({run.project for run in self._found if matcher.wants_project(run.project)})

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide."""
        matcher = Matcher(selection)
        yield from (run for run in self._found if run.project == project and matcher.wants_run(run))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """As ReadSide; none can be resumed inside."""
        for run in runs:
            with about_run(run.label):
                yield from self._read_run(run, want, files)

    def close(self) -> None:
        """As ReadSide: nothing is open."""

    @cached_property
    def _found(self) -> list[RunRef]:
        return experiments_in(self._options.paths)

    @property
    def _wants_system_metrics(self) -> bool:
        return self._options.system_metrics == "yes"

    def _read_run(self, run: RunRef, want: Want, files: FileSink) -> Iterator[Piece]:
        paths, file = at(run.locator)
        if not file.shardmig:
            reading = ArchiveReading(run, paths, file, want, system_metrics=self._wants_system_metrics)
            yield from (Piece(run, chunk) for chunk in reading.chunks(files))
            return
        if not file.shardmig.is_whole:
            raise BadInput("shardmig did not write this run to its end", hint="load it again")
        own, added = own_and_added(paths)
        if (found := sum(not one.shardmig for one in own.values())) != file.shardmig.numbered:
            raise BadInput(f"{found} of {file.shardmig.numbered} numbered archives of this run are there")
        experiment = ArchivedExperiment(file.offline_id, list(own), list(own)[-1])
        with closing(experiment), staging_folder() as staging:
            held = ContinuedExperiment(experiment, added)
            reader = RunReader(held, experiment, want, staging, RULES)
            more = AddedInArchives(run, held, reader.manifest, want, system_metrics=self._wants_system_metrics)
            pieces = brought(reader.pieces(files, run), run, file.shardmig.digest, want)
            yield from then_added(pieces, lambda: more.content(files), more.findings)
