"""Which projects and runs there are.

Runs are listed by their id on the server, which is unique: pages in the order of creation times, as the vendor's
client asks for them, may give a run twice and another one never where times are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from shardmig.adapters.neptune3.client import Client
from shardmig.adapters.neptune3.options import Neptune3Options
from shardmig.adapters.neptune3.protocol import body, parsed
from shardmig.adapters.neptune_server import ProjectPage, visible_projects
from shardmig.errors import Unavailable
from shardmig.records import ProjectId, RunId, RunRef, Selection

_RUNS_PER_PAGE: Final = 10_000
_SEARCH: Final = "retrieval.search_leaderboard_entries_proto"
_ATTRIBUTES: Final = (
    "sys/id",
    "sys/custom_run_id",
    "sys/creation_time",
    "sys/modification_time",
    "sys/archived",
    "sys/trashed",
    "sys/forking/parent",
    "sys/diagnostics/attributes/total_series_datapoints",
)


def projects(client: Client, options: Neptune3Options, selection: Selection) -> Iterator[ProjectId]:
    """The projects that are named, else those that the token opens and the options mean."""
    yield from options.named_projects(selection) or visible_projects(partial(_project_page, client), options)


def runs(client: Client, project: ProjectId, query: str) -> Iterator[RunRef]:
    """All runs of a project that fulfil the query, by the server's ids. Raises Unavailable when runs disappear
    meanwhile, which moves the pages: the listing has to be done again."""
    ids: set[RunId] = set()
    last, offset = "", 0
    while True:
        # Each page begins with the last run of the one before: if it does not, pages have moved.
        entries = _page(client, project, query, max(0, offset - 1))
        if offset and (not entries or entries[0]["sys/id"] != last):
            raise Unavailable(f"runs of {project} were removed while they were listed")
        fresh = entries[1:] if offset else entries
        for entry in fresh:
            ref = _ref(project, entry, ids)
            ids.add(ref.id)
            yield ref
        if not fresh:
            return
        last, offset = fresh[-1]["sys/id"], offset + len(fresh)


def _project_page(client: Client, query: Mapping[str, Any]) -> ProjectPage:
    content = client.get("projects", "/api/backend/v1/projects", query)
    try:
        return msgspec.json.decode(content, type=ProjectPage)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the list of projects cannot be read: {error}") from error


def _page(client: Client, project: ProjectId, query: str, offset: int) -> list[dict[str, Any]]:
    asked: dict[str, Any] = {
        "attributeFilters": [{"path": path} for path in _ATTRIBUTES],
        "pagination": {"limit": _RUNS_PER_PAGE, "offset": offset},
        "experimentLeader": False,
        "sorting": {"dir": "ascending", "sortBy": {"name": "sys/id", "type": "string"}},
    }
    if query:
        asked["query"] = {"query": query}
    request = body("SearchLeaderboardEntriesParamsDTO", asked)
    read = partial(parsed, "leaderboard_entries.ProtoLeaderboardEntriesSearchResultDTO")
    answer = client.ask(f"runs of {project}", _SEARCH, read, project_identifier=project, type=["run"], body=request)
    return [{attribute.name: _value(attribute) for attribute in entry.attributes} for entry in answer.entries]


def _value(attribute: Any) -> Any:
    properties = f"{attribute.type}_properties"
    return getattr(attribute, properties).value if attribute.type in ("string", "bool", "int", "datetime") else None


def _ref(project: ProjectId, entry: dict[str, Any], taken: set[RunId]) -> RunRef:
    server_id = entry["sys/id"]
    run_id = entry.get("sys/custom_run_id") or server_id
    if run_id in taken:  # the id that the server gave one run is what a user called another one
        run_id = f"{run_id} ({server_id})"
    modified_ms = entry.get("sys/modification_time")
    return RunRef(
        project=project,
        id=RunId(run_id),
        created_ms=entry.get("sys/creation_time"),
        archived=bool(entry.get("sys/archived") or entry.get("sys/trashed")),
        parent=RunId(parent) if (parent := entry.get("sys/forking/parent")) else None,
        locator=server_id,
        fingerprint="" if modified_ms is None else str(modified_ms),
        weight=entry.get("sys/diagnostics/attributes/total_series_datapoints") or 0,
    )
