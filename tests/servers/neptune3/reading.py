"""The read side: search, attribute definitions and values, series, in the server's protobuf and JSON answers."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tests.servers.neptune3 import nql
from tests.servers.neptune3.messages import attributes, entries, series
from tests.servers.neptune3.store import MICRO, SERIES_TYPES, Point, Project, Run, Store

MAX_FLOAT_POINTS = 1_000_000
MAX_SERIES = 2_000


class Refused(Exception):
    """The server answers with this status and error type."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type


class Pages(msgspec.Struct):
    """How much one answer holds at most, whatever the client asks for."""

    entries: int = 10_000
    values: int = 10_000
    points: int = 10_000


class Reader:
    """Answers questions about a store. Series in `broken` are refused with the status given there; of those in `withheld_after` only points up
    to that step are given. `garbled`: how often the end of an answer about such a series is missing. `wants_types`:
    attributes are given only by type."""

    def __init__(self, store: Store, pages: Pages) -> None:
        self._store = store
        self.pages = pages
        self.broken: dict[str, int] = {}
        self.withheld_after: dict[str, int] = {}
        self.garbled: dict[str, int] = {}
        self.wants_types = False

    def search(self, project_name: str, body: dict[str, Any]) -> bytes:
        """Runs of a project: filtered, sorted, one page."""
        project = self._project(project_name)
        found = [run for run in project.runs.values() if not run.values["sys/trashed"][1]]
        if body.get("experimentLeader"):
            found = [run for run in found if "sys/experiment/is_head" in run.values]
        if query := (body.get("query") or {}).get("query"):
            try:
                condition = nql.parse(query)
                found = [run for run in found if condition(run)]
            except nql.BadQuery as error:
                raise Refused(422, "NQL_QUERY_ERROR", str(error)) from error
        _sort(found, body.get("sorting") or {})
        answer = entries.ProtoLeaderboardEntriesSearchResultDTO(matching_item_count=len(found))
        paths = [one["path"] for one in body.get("attributeFilters") or []]
        page = body.get("pagination") or {}
        offset = page.get("offset", 0)
        for run in found[offset : offset + min(page.get("limit", 100), self.pages.entries)]:
            entry = answer.entries.add(experiment_id=run.uuid, type="run", project_name=project.name)
            for path in paths:
                if path in run.values:
                    _add_attribute(entry.attributes, run, path, run.values[path][0])
        return bytes(answer.SerializeToString())

    def definitions(self, body: dict[str, Any]) -> dict[str, Any]:
        """Names and types of the attributes of some runs."""
        projects = [self._project(name) for name in body["projectIdentifiers"] if name in self._store.projects]
        holders = body.get("experimentIdsFilter")
        runs = [
            run
            for project in projects
            for run in (project.runs.values() if holders is None else filter(None, map(project.find, holders)))
        ]
        found = sorted({pair for run in runs for pair in run.attributes().items() if _is_asked(body, *pair)})
        page, token = self._page(found, body)
        return {"entries": [{"name": name, "type": kind} for name, kind in page], "nextPage": {"nextPageToken": token}}

    def attributes(self, project_name: str, body: dict[str, Any]) -> bytes:
        """Values of attributes, run after run."""
        project = self._project(project_name)
        holders = body.get("experimentIdsFilter") or []
        if self.wants_types and not body.get("attributeFilter"):
            raise Refused(400, "BAD_REQUEST", "name the types")
        found = [
            (run, path, kind)
            for run in filter(None, map(project.find, holders))
            for path, kind in sorted(run.attributes().items())
            if _is_asked(body, path, kind)
        ]
        page, token = self._page(found, body)
        answer = attributes.ProtoQueryAttributesResultDTO()
        entry: Any = None
        for run, path, kind in page:
            if entry is None or entry.experimentShortId != run.sys_id:
                entry = answer.entries.add(experimentId=run.uuid, experimentShortId=run.sys_id)
            _add_attribute(entry.attributes, run, path, kind)
        if token is not None:
            answer.nextPage.nextPageToken = token
        return bytes(answer.SerializeToString())

    def float_series(self, body: dict[str, Any]) -> bytes:
        """Points of float series; of those that do not exist, nothing."""
        limit = body.get("perSeriesPointsLimit", 1_000)
        if limit * len(body["requests"]) > MAX_FLOAT_POINTS:
            raise Refused(400, "BAD_REQUEST", "too many points")
        answer = series.ProtoFloatSeriesValuesResponseDTO()
        for request in body["requests"]:
            points = self._points(request, body, "floatSeries", after=request.get("afterStep"))
            if points is None:
                continue
            one = answer.series.add(requestId=request["requestId"])
            one.series.total_item_count = len(points)
            values = one.series.values
            for point in points[:limit]:
                values.add(
                    timestamp_millis=point.time_ms,
                    step=point.step / MICRO,
                    value=point.value,
                    is_preview=point.completion is not None,
                    completion_ratio=point.completion or 0.0,
                )
        return self._sent(answer, body)

    def other_series(self, body: dict[str, Any]) -> bytes:
        """Points of string, histogram and file series: as many as a page holds, the first series first."""
        if len(body["requests"]) > MAX_SERIES:
            raise Refused(400, "BAD_REQUEST", "too many series")
        left = self.pages.points
        answer = series.ProtoSeriesValuesResponseDTO()
        for request in body["requests"]:
            token = (request.get("searchAfter") or {}).get("token")
            points = self._points(request, body, None, after=float(token) if token else None)
            if points is None:
                continue
            one = answer.series.add(requestId=request["requestId"])
            page = points[:left]
            if not left:
                continue
            left -= len(page)
            for point in page:
                _add_point(one.seriesValues.values, point)
            one.searchAfter.finished = len(page) == len(points)
            one.searchAfter.token = repr(page[-1].step / MICRO) if page else "0"
        return self._sent(answer, body)

    def _sent(self, answer: Any, body: dict[str, Any]) -> bytes:
        content = bytes(answer.SerializeToString())
        for path in {request["series"]["attribute"] for request in body["requests"]} & self.garbled.keys():
            if self.garbled[path]:
                self.garbled[path] -= 1
                return content[:-3]
        return content

    def _points(
        self, request: dict[str, Any], body: dict[str, Any], kind: str | None, *, after: float | None
    ) -> list[Point] | None:
        asked = request["series"]
        holder = asked["holder"]["identifier"]
        run = self._project("/".join(holder.removeprefix("CUSTOM/").split("/")[:2])).find(holder)
        path = asked["attribute"]
        if path in self.broken:
            raise Refused(self.broken[path], "BROKEN", f"series {path} cannot be read")
        if run is None or (own := run.attributes().get(path)) is None or (kind or own) != own:
            return None
        points = run.points(path, inherited=asked.get("lineage") == "FULL", previews=bool(asked.get("includePreview")))
        if points is None or own not in SERIES_TYPES:
            return None
        if path in self.withheld_after:
            points = [point for point in points if point.step <= self.withheld_after[path] * MICRO]
        bounds = body.get("stepRange") or {}
        if (low := bounds.get("from")) is not None:
            points = points[bisect_left(points, low * MICRO, key=_step) :]
        if (high := bounds.get("to")) is not None:
            points = points[: bisect_right(points, high * MICRO, key=_step)]
        if body.get("order") == "descending":
            points = points if after is None else points[: bisect_left(points, round(after * MICRO), key=_step)]
            return points[::-1]
        if after is not None:
            points = points[bisect_right(points, round(after * MICRO), key=_step) :]
        return points

    def _project(self, name: str) -> Project:
        if name in self._store.denied or name not in self._store.projects:
            raise Refused(403, "ACCESS_DENIED", f"no access to {name}")
        return self._store.projects[name]

    def _page(self, found: list[Any], body: dict[str, Any]) -> tuple[list[Any], str | None]:
        page = body.get("nextPage") or {}
        start = int(page.get("nextPageToken") or 0)
        end = start + min(page.get("limit") or 10_000, self.pages.values)
        return found[start:end], str(end) if end < len(found) else None


def _step(point: Point) -> int:
    return point.step


def _sort(runs: list[Run], sorting: dict[str, Any]) -> None:
    path = (sorting.get("sortBy") or {}).get("name", "sys/creation_time")
    held = [run.values[path][1] for run in runs if path in run.values]
    smallest = min(held, default=0)
    runs.sort(
        key=lambda run: (path in run.values, run.values[path][1] if path in run.values else smallest),
        reverse=sorting.get("dir", "descending") == "descending",
    )


def _is_asked(body: dict[str, Any], path: str, kind: str) -> bool:
    names = body.get("attributeNamesFilter")
    if names is not None and path not in names:
        return False
    kinds = body.get("attributeFilter")
    if kinds and kind not in {one["attributeType"] for one in kinds}:
        return False
    alternatives = (body.get("attributeNameFilter") or {}).get("mustMatchAny")
    if alternatives is None:
        return True
    return any(
        all(re.search(regex, path) for regex in one.get("mustMatchRegexes") or [])
        and not any(re.search(regex, path) for regex in one.get("mustNotMatchRegexes") or [])
        for one in alternatives
    )


_PROPERTIES = {
    "int": "int_properties",
    "float": "float_properties",
    "string": "string_properties",
    "bool": "bool_properties",
    "datetime": "datetime_properties",
}
_SERIES_PROPERTIES = {
    "floatSeries": "float_series_properties",
    "stringSeries": "string_series_properties",
    "histogramSeries": "histogram_series_properties",
    "fileRefSeries": "file_ref_series_properties",
}


def _add_attribute(target: Any, run: Run, path: str, kind: str) -> None:
    attribute = target.add(name=path, type=kind)
    if kind in SERIES_TYPES:
        properties = getattr(attribute, _SERIES_PROPERTIES[kind])
        _describe_series(properties, run, path)
        return
    value = run.values[path][1]
    if kind == "stringSet":
        attribute.string_set_properties.value.extend(value)
    elif kind == "fileRef":
        reference = attribute.file_ref_properties
        reference.path, reference.sizeBytes, reference.mimeType = value
    elif kind in _PROPERTIES:
        properties = getattr(attribute, _PROPERTIES[kind])
        properties.attribute_name = path
        properties.value = value


def _describe_series(properties: Any, run: Run, path: str) -> None:
    properties.attribute_name = path
    points = run.points(path, inherited=True, previews=True) or []
    if points:
        properties.last_step = points[-1].step / MICRO
    own = run.series.get(path)
    if own is not None and own.type == "floatSeries":
        properties.has_preview = bool(own.previews)
        properties.last = points[-1].value


def _add_point(values: Any, point: Point) -> None:
    added = values.add(timestamp_millis=point.time_ms, step=point.step / MICRO)
    match point.value:
        case str(text):
            added.object.stringValue = text
        case (str(path), int(size), str(mime_type)):
            added.object.fileRef.path = path
            added.object.fileRef.sizeBytes = size
            added.object.fileRef.mimeType = mime_type
        case (str(kind), tuple(edges), tuple(counts)):
            added.object.histogram.type = kind
            added.object.histogram.edges.extend(edges)
            added.object.histogram.values.extend(counts)


def project_list(store: Store, workspace: str | None, offset: int, limit: int) -> dict[str, Any]:
    """The projects that the caller may see, as the backend lists them."""
    names: Iterable[str] = sorted(name for name in store.projects if name not in store.denied)
    visible = [name for name in names if workspace is None or name.startswith(f"{workspace}/")]
    return {
        "entries": list(_project_entries(store, visible[offset : offset + limit])),
        "matchingItemCount": len(visible),
        "totalItemCount": len(store.projects),
    }


def _project_entries(store: Store, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        workspace, _, short = name.partition("/")
        yield {
            "id": f"id-of-{name}",
            "name": short,
            "organizationName": workspace,
            "projectKey": store.projects[name].key,
            "version": 3,
        }
