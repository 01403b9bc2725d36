"""Which projects, runs, models and model versions there are.

The server's search shows 10,000 rows of a query and no more. Going on behind the creation time of the last row, as the
client does, loses what was created in the same millisecond; going on by offset loses a row for every run that is deleted
meanwhile. So every page asks for ids greater than the last one seen: ids are unique, and an offset is never needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from shardmig.adapters.neptune2.attributes import Locator, milliseconds
from shardmig.adapters.neptune2.connection import Connection
from shardmig.adapters.neptune2.options import Neptune2Options
from shardmig.adapters.neptune_server import ProjectPage, visible_projects
from shardmig.errors import Unavailable, Unsupported
from shardmig.records import ProjectId, RunId, RunRef, Scope

_PAGE: Final = 1000
_TYPES: Final[dict[Scope, str]] = {"runs": "run", "models": "model", "model_versions": "modelVersion"}
_COLUMNS: Final = ("sys/id", "sys/creation_time", "sys/modification_time", "sys/trashed", "sys/size")


class _Project(msgspec.Struct):
    id: str


class _Value(msgspec.Struct, frozen=True):
    value: Any = None


class _Column(msgspec.Struct, rename="camel"):
    name: str
    string_properties: _Value | None = None
    datetime_properties: _Value | None = None
    bool_properties: _Value | None = None
    float_properties: _Value | None = None


_ABSENT: Final = _Column("")


class _Entry(msgspec.Struct, rename="camel"):
    attributes: list[_Column]
    experiment_id: str


class _Page(msgspec.Struct, rename="camel"):
    matching_item_count: int
    entries: list[_Entry] = []


def projects(connection: Connection, options: Neptune2Options) -> list[ProjectId]:
    """All projects that the token opens and the options mean, sorted."""
    return visible_projects(lambda query: connection.ask("listProjects", ProjectPage, **query), options)


def project_id(connection: Connection, project: ProjectId) -> str:
    """The server's own id of a project. Raises NotFound, Denied."""
    return connection.ask("getProject", _Project, projectIdentifier=project).id


def entities(
    connection: Connection, project: ProjectId, scope: Scope, *, query: str = "", include_trashed: bool
) -> Iterator[RunRef]:
    """Every run, model or model version of a project once, by sys/id. Raises Unavailable if the server shows fewer
    than it counts."""
    where = [f"({query})"] if query else []
    if not include_trashed:
        where.append("(`sys/trashed`:bool = false)")
    search = _Search(connection, project_id(connection, project), scope, where)
    expected = search.page("", 0).matching_item_count
    seen: set[str] = set()
    last = ""
    while True:
        page = search.page(last, _PAGE)
        for entry in page.entries:
            run = _run_ref(entry, project, scope, search.project)
            if run.id in seen:
                raise Unsupported(f"{project}: the server sorts and compares sys/id differently, at {run.id}")
            seen.add(run.id)
            last = run.id
            yield run
        if not page.entries or len(page.entries) >= page.matching_item_count:
            break
    if len(seen) < min(expected, search.page("", 0).matching_item_count):
        raise Unavailable(f"{project}: the server counts {expected} {scope} and shows {len(seen)}")


class _Search:
    def __init__(self, connection: Connection, project: str, scope: Scope, where: list[str]) -> None:
        self._connection = connection
        self.project = project
        self._type = _TYPES[scope]
        self._where = where

    def page(self, after: str, limit: int) -> _Page:
        """Entities with an id greater than `after`."""
        where = [*self._where, f'(`sys/id`:string > "{after}")'] if after else self._where
        body = {
            "sorting": {
                "dir": "ascending",
                "aggregationMode": "none",
                "sortBy": {"name": "sys/id", "type": "string"},
            },
            "attributeFilters": [{"path": path} for path in _COLUMNS],
            "query": {"query": f"({' AND '.join(where)})" if len(where) > 1 else "".join(where)},
            "pagination": {"limit": limit, "offset": 0},
        }
        return self._connection.ask(
            "searchLeaderboardEntries", _Page, body=body, projectIdentifier=self.project, type=[self._type]
        )


def _run_ref(entry: _Entry, project: ProjectId, scope: Scope, project_id: str) -> RunRef:
    columns = {column.name: column for column in entry.attributes}
    created = _moment(columns.get("sys/creation_time"))
    modified = _moment(columns.get("sys/modification_time"))
    id_, size, trashed = (
        properties.value if properties is not None else None
        for properties in (
            columns.get("sys/id", _ABSENT).string_properties,
            columns.get("sys/size", _ABSENT).float_properties,
            columns.get("sys/trashed", _ABSENT).bool_properties,
        )
    )
    if not isinstance(id_, str) or not id_:
        raise Unsupported(f"{project}: the server lists an entity without sys/id", hint=entry.experiment_id)
    return RunRef(
        project=project,
        id=RunId(id_),
        scope=scope,
        created_ms=created,
        archived=trashed is True,
        locator=msgspec.json.encode(Locator(entry.experiment_id, project_id)).decode(),
        fingerprint="" if modified is None else str(modified),
        weight=int(size) // 16 if isinstance(size, int | float) else 0,
    )


def _moment(column: _Column | None) -> int | None:
    known = column.datetime_properties if column is not None else None
    text = known.value if known is not None else None
    return milliseconds(datetime.fromisoformat(text)) if isinstance(text, str) else None
