"""The read side over a server: an experiment is a run, `<workspace>/<project>` its project.

A run that shardmig itself wrote is told by its key, and given as what it was before, with what people added; see `added`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.comet.experiment import KEY_PREFIX
from shardmig.adapters.comet.remote import Metadata, RemoteExperiment
from shardmig.adapters.comet.rest import RestClient
from shardmig.adapters.comet.source.added_remote import AddedOnServer, BroughtExperiment
from shardmig.adapters.comet.source.options import SourceOptions
from shardmig.adapters.comet.source.reader import RULES
from shardmig.adapters.comet.source.remote import RemoteReading
from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.reading import RunReader, beside_original, brought, then_added
from shardmig.adapters.staging import staging_folder
from shardmig.errors import BadInput, Permanent, about_run
from shardmig.records import Piece, ProjectId, RunId, RunRef, Selection
from shardmig.selection import Matcher

_PAGE: Final = 1000


class _Workspaces(msgspec.Struct, rename="camel"):
    workspace_names: list[str] = []


class _Project(msgspec.Struct, rename="camel"):
    project_name: str


class _Projects(msgspec.Struct):
    projects: list[_Project] = []


class _Experiments(msgspec.Struct):
    experiments: list[Metadata] = []


class ServerSource:
    """Read side of a server."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._client = RestClient(options)

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """As ReadSide: Comet's own projects, and those of the runs that were brought here."""
        matcher = Matcher(selection)
        names = {*self._projects, *(run.project for run in self._brought)}
        yield from (name for name in sorted(names) if matcher.wants_project(name))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide."""
        matcher = Matcher(selection)
        own: list[RunRef] = []
        if project in self._projects:
            own = [run for run in self._experiments(project) if not run.id.startswith(KEY_PREFIX)]
        originals = {run.entity for run in own}
        copies = [beside_original(run, run.locator, originals) for run in self._brought if run.project == project]
        yield from filter(matcher.wants_run, [*own, *copies])

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """As ReadSide; none can be resumed inside."""
        for run in runs:
            with about_run(run.label):
                yield from self._read_run(run, want, files)

    def close(self) -> None:
        """As ReadSide."""
        self._client.close()

    @cached_property
    def _projects(self) -> list[ProjectId]:
        named = self._options.workspace
        workspaces = [named] if named else self._client.get("workspaces", _Workspaces).workspace_names
        return [
            ProjectId(f"{workspace}/{project.project_name}")
            for workspace in sorted(workspaces)
            for project in self._client.get("projects", _Projects, workspaceName=workspace).projects
        ]

    @cached_property
    def _brought(self) -> list[RunRef]:
        """The runs that shardmig wrote, under their original projects and ids. A project that cannot be listed is told
        when it is asked for itself, and stops no other."""
        found: list[RunRef] = []
        for project in self._projects:
            with suppress(Permanent):
                found += [self._as_it_was(run) for run in self._experiments(project) if run.id.startswith(KEY_PREFIX)]
        return found

    def _as_it_was(self, run: RunRef) -> RunRef:
        try:
            others = RemoteExperiment(self._client, run.id).others
        except Permanent:  # reading it will say why
            return run
        if provenance.PROJECT not in others or provenance.RUN_ID not in others:
            return run
        return msgspec.structs.replace(
            run, project=ProjectId(others[provenance.PROJECT]), id=RunId(others[provenance.RUN_ID])
        )

    def _experiments(self, project: ProjectId) -> Iterator[RunRef]:
        """Every experiment of a project of Comet's, archived ones too; the earliest first."""
        workspace, _, name = project.rpartition("/")
        found: dict[str, Metadata] = {}
        for archived in (False, True):
            page = 0
            while page := page + 1:
                where = {"workspaceName": workspace, "projectName": name, "archived": archived}
                answer = self._client.get("experiments", _Experiments, **where, page=page, size=_PAGE)
                new = {one.experiment_key: one for one in answer.experiments if one.experiment_key not in found}
                for one in new.values():
                    one.archived = archived
                found |= new
                if not new or len(answer.experiments) < _PAGE:  # older servers give all of them at once
                    break
        for one in sorted(found.values(), key=lambda one: (one.start_time_millis or 0, one.experiment_key)):
            yield RunRef(
                project=project,
                id=RunId(one.experiment_key),
                created_ms=one.start_time_millis,
                archived=one.archived,
                locator=one.experiment_key,
                fingerprint=_fingerprint(one),
            )

    def _read_run(self, run: RunRef, want: Want, files: FileSink) -> Iterator[Piece]:
        key = run.locator or run.id
        with staging_folder() as staging:
            if key.startswith(KEY_PREFIX):
                yield from self._restored(run, BroughtExperiment(self._client, key, staging), want, files, staging)
                return
            experiment = RemoteExperiment(self._client, key)
            experiment.look_up()
            reading = RemoteReading(run, experiment, want, staging, system_metrics=self._wants_system_metrics)
            yield from (Piece(run, chunk) for chunk in reading.chunks(files))

    @property
    def _wants_system_metrics(self) -> bool:
        return self._options.system_metrics == "yes"

    def _restored(
        self, run: RunRef, experiment: BroughtExperiment, want: Want, files: FileSink, staging: Path
    ) -> Iterator[Piece]:
        """The run that was brought, then what people added to it."""
        experiment.look_up()
        if experiment.others.get(provenance.STATE) != provenance.COMPLETE:
            raise BadInput(f"experiment {experiment.id} was never loaded to its end", hint="load it again")
        reader = RunReader(experiment.whole, experiment, want, staging, RULES)
        added = AddedOnServer(
            run, experiment, reader.manifest, want, staging, system_metrics=self._wants_system_metrics
        )
        own = brought(reader.pieces(files, run), run, experiment.others.get(provenance.DIGEST, ""), want)
        yield from then_added(own, lambda: added.content(files), added.findings, added.learn)


def _fingerprint(listed: Metadata) -> str:
    """Changes with what a listing tells of an experiment: not with its tags, facts and parameters."""
    told = [listed.experiment_name, listed.file_name, listed.start_time_millis, listed.has_crashed, listed.error]
    return f"{listed.end_time_millis}:{listed.running}:{digest_of(repr(told))}"
