"""The read side of W&B: listing and reading, over folders or a server.

A run that shardmig itself wrote is given as what it was before: under its original project and id, restored by `held`, and
with what people added (see `added`). Any other is given by the map of `native`, its project as `entity/project`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Protocol

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.sidecar.reading import brought, then_added
from shardmig.adapters.staging import staging_folder
from shardmig.adapters.wandb.held import run_reader
from shardmig.adapters.wandb.source.added import Added
from shardmig.adapters.wandb.source.foreign import Brought, ForeignRun
from shardmig.adapters.wandb.source.options import SourceOptions
from shardmig.adapters.wandb.source.own import Met, Own
from shardmig.adapters.wandb.source.reading import Reading
from shardmig.errors import about_run
from shardmig.records import End, Header, Piece, ProjectId, RunRef, Selection
from shardmig.selection import Matcher


class Catalogue(Protocol):
    """Where runs are listed."""

    def projects(self) -> Iterator[ProjectId]:
        """Every project, sorted; projects of runs that shardmig brought are the original ones."""
        ...

    def runs(self, project: ProjectId) -> Iterator[RunRef]:
        """Every run of a project, each once, in a stable order. `locator` finds it again."""
        ...

    def open(self, run: RunRef) -> Brought | ForeignRun:
        """A listed run: as Brought if shardmig wrote it. Raises NotFound."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...


class WandbSource:
    """Read side of W&B over any catalogue."""

    def __init__(self, catalogue: Catalogue, options: SourceOptions) -> None:
        self._catalogue = catalogue
        self._options = options

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """As ReadSide."""
        return filter(Matcher(selection).wants_project, self._catalogue.projects())

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide."""
        return filter(Matcher(selection).wants_run, self._catalogue.runs(project))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run; none can be resumed inside."""
        for run in runs:
            with about_run(run.label):
                yield from self._read(run, want, files)

    def close(self) -> None:
        """As ReadSide."""
        self._catalogue.close()

    def _read(self, run: RunRef, want: Want, files: FileSink) -> Iterator[Piece]:
        found = self._catalogue.open(run)
        if not isinstance(found, ForeignRun):
            yield from self._restored(run, found, want, files)
            return
        yield Piece(run, Header(run, "wandb", version("wandb")))
        with staging_folder() as staging:
            reading = Reading(run, found, want, self._options, staging)
            for chunk in reading.chunks(files):
                yield Piece(run, chunk)
            yield Piece(run, End(reading.findings()))

    def _restored(self, run: RunRef, found: Brought, want: Want, files: FileSink) -> Iterator[Piece]:
        """The run that was brought, then what people added to it."""
        block = found.stored.block
        assert block is not None
        with staging_folder() as staging, staging_folder() as of_met:
            met = Met(of_met)
            with run_reader(found.stored, want, met) as (reader, held):
                own = Own(reader.manifest, held, block, met)
                added = Added(run, found.others(own), own, want, self._options, staging)
                pieces = brought(reader.pieces(files, run), run, block.digest, want)
                yield from then_added(pieces, lambda: added.chunks(files), added.findings, added.learn)
