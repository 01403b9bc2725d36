"""Which experiment holds which run, and which teamspace which project.

Lightning finds an experiment by name only, and its name tells whose run it is only to whom knows the run. So the
experiments of the teamspaces are listed once, and what is written or removed afterwards is entered here. Another worker's
runs may be missing then; its own a worker always asks for by name too, before it makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from urllib.parse import quote

from shardmig import logs
from shardmig.adapters.litlogger.answers import Stream, Teamspace
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.naming import teamspace_name
from shardmig.adapters.litlogger.options import TargetOptions
from shardmig.adapters.sidecar import provenance
from shardmig.errors import BadInput, Denied, NotFound
from shardmig.records import MigrationKey, ProjectId, TargetRunId


class Catalog:
    """The experiments that carry a migration key."""

    def __init__(self, cloud: Cloud, options: TargetOptions) -> None:
        self._cloud = cloud
        self._options = options
        self._teamspaces: list[Teamspace] | None = None
        self._owners: dict[str, str] = {}
        self._places: dict[str, list[TargetRunId]] | None = None

    def home(self, project: ProjectId) -> Teamspace:
        """The teamspace for the runs of a project, made if need be. Raises Denied."""
        wanted = self._options.teamspace or teamspace_name(project)
        if (found := self._find(wanted)) is None:
            shown = self._options.teamspace or project
            made = self._cloud.create_teamspace(wanted, shown, self._options.organization)
            self._teamspaces = self._cloud.teamspaces()  # another worker may have made it too: both take the same one
            if (found := self._find(wanted)) is None:
                self._teamspaces.append(made)
                found = made
        return found

    def teamspace(self, teamspace_id: str) -> Teamspace:
        """One by its id. Raises NotFound."""
        for teamspace in self._known():
            if teamspace.project_id == teamspace_id:
                return teamspace
        return self._cloud.teamspace(teamspace_id)

    def cluster(self, teamspace_id: str) -> str:
        """Where its drive lies, for experiments that do not say so."""
        settings = self._cloud.teamspace(teamspace_id).project_settings
        return "" if settings is None else settings.preferred_cluster

    def url(self, stream: Stream) -> str:
        """Where people look at an experiment, as litlogger builds it; "" where the teamspace's owner is not known."""
        teamspace = self.teamspace(stream.project_id)
        if teamspace.owner_id not in self._owners:
            self._owners[teamspace.owner_id] = self._cloud.owner_name(teamspace)
        owner = self._owners[teamspace.owner_id]
        return f"{self._cloud.url}/{owner}/{teamspace.name}/experiments/{quote(stream.name)}" if owner else ""

    def find(self, key: MigrationKey) -> list[Stream]:
        """The experiments of this key, as they are now."""
        if self._places is None:
            self._places = {}
            for stream in self._streams():
                if (held := stream.metadata.get(provenance.KEY)) is not None:
                    self._places.setdefault(held, []).append(id_of(stream))
        found = []
        for place in self._places.get(key, []):
            try:
                found.append(self.stream(place))
            except NotFound:
                continue
        return [stream for stream in found if stream.metadata.get(provenance.KEY) == key]

    def stream(self, place: TargetRunId) -> Stream:
        """One experiment. Raises NotFound."""
        teamspace_id, _, stream_id = place.partition("/")
        if not stream_id:
            raise BadInput(f"{place!r} is no experiment of Lightning")
        return self._cloud.stream(teamspace_id, stream_id)

    def enter(self, key: MigrationKey, stream: Stream) -> None:
        """An experiment was found or made."""
        if self._places is None:  # the listing to come will have it
            return
        places = self._places.setdefault(key, [])
        if id_of(stream) not in places:
            places.append(id_of(stream))

    @cached_property
    def _owner(self) -> str:
        """Whose teamspaces are taken alone; "" = those of everybody. One that is named by itself may be anybody's."""
        return "" if self._options.teamspace else self._cloud.organization_id(self._options.organization)

    def _streams(self) -> Iterator[Stream]:
        for teamspace in self._known():
            try:
                yield from self._cloud.streams(teamspace.project_id)
            except (Denied, NotFound) as error:
                logs.get_logger().info(logs.Event.PROJECT_SKIPPED, project=teamspace.name, reason=error.message)

    def _known(self) -> list[Teamspace]:
        if self._teamspaces is None:
            self._teamspaces = self._cloud.teamspaces()
        if not self._options.teamspace:
            return self._teamspaces
        return [one for one in self._teamspaces if _is_called(one, self._options.teamspace)]

    def _find(self, wanted: str) -> Teamspace | None:
        owner = self._owner
        names = (one for one in self._known() if _is_called(one, wanted) and owner in ("", one.owner_id))
        return min(names, key=lambda one: (one.name != wanted, one.project_id), default=None)


def id_of(stream: Stream) -> TargetRunId:
    """How a target run is named: teamspace and stream."""
    return TargetRunId(f"{stream.project_id}/{stream.id}")


def _is_called(teamspace: Teamspace, wanted: str) -> bool:
    return wanted in (teamspace.name, teamspace.project_id)
