"""The answers of the server: one method per operation of the Swagger documents, by its name in snake case."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
import zipfile
from collections.abc import Mapping
from typing import Any, Final

from tests.servers.neptune2 import nql
from tests.servers.neptune2.entities import (
    Attribute,
    Entity,
    EntityType,
    Project,
    Refused,
    Series,
    Store,
    StoredFile,
    attribute_dtos,
    properties,
)
from tests.servers.neptune2.operations import execute

SEARCH_WINDOW: Final = 10_000
_PREPARED_AFTER_POLLS: Final = 2
_KINDS: Final = ("string", "datetime", "bool", "float", "int", "file", "artifact", "stringSet", "floatSeries")


class Request:
    """A request as its operation sees it."""

    def __init__(self, query: Mapping[str, list[str]], headers: Mapping[str, str], body: bytes) -> None:
        self._query = query
        self.headers = headers
        self.body = body

    def __getitem__(self, name: str) -> str:
        return self._query.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Values of a repeated parameter."""
        return self._query.get(name, [])

    def number(self, name: str, default: int = 0) -> int:
        """A whole number."""
        return int(self[name] or default)

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Content:
    """An answer that is no JSON."""

    def __init__(self, content: bytes, content_type: str, **headers: str) -> None:
        self.content = content
        self.headers = {"Content-Type": content_type} | {name.replace("_", "-"): text for name, text in headers.items()}


class Api:
    """Neptune's operations over a store. `page`, `entries`: most rows that the server gives at once, 0 = as asked.
    `counted_too_many`: points that it counts and does not have. `cut_short`: how often a part of a file or of a page of points
    is given as if it were the whole, by path. `writes_nulls`: what an attribute does not have is null, and not left out."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.page = 0
        self.entries = 0
        self.counted_too_many = 0
        self.cut_short: dict[str, int] = {}
        self.writes_nulls = False
        self.base_url = ""
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._downloads: dict[str, tuple[int, Attribute]] = {}
        self._damaged: set[str] = set()

    # backend

    def get_client_config(self, _: Request) -> Any:
        """What the client may do here."""
        parts = {"minChunkSize": 1 << 16, "maxChunkSize": 1 << 30, "maxChunkCount": 1000, "maxSinglePartSize": 1 << 16}
        return {
            "apiUrl": self.base_url,
            "applicationUrl": self.base_url,
            "pyLibVersions": {"minCompatibleVersion": "0.14.0"},
            "multiPartUpload": {"enabled": True, **parts},
            "artifacts": {"enabled": True, "apiVersion": 2},
            "sysNameSetByBackend": False,
        }

    def get_project(self, request: Request) -> Any:
        """One project."""
        return self.store.project(request["projectIdentifier"]).dto()

    def list_projects(self, request: Request) -> Any:
        """A page of projects: those of a workspace, if one is named."""
        asked = request["organizationIdentifier"]
        found = [one.dto() for one in self.store.projects.values() if asked in ("", one.workspace)]
        offset, limit = request.number("offset"), request.number("limit", 1000)
        page = found[offset : offset + (min(limit, self.entries) if self.entries else limit)]
        return {"entries": page, "matchingItemCount": len(found), "totalItemCount": len(self.store.projects)}

    def list_organizations(self, _: Request) -> Any:
        """The workspaces."""
        return [{"id": name, "name": name} for name in sorted({one.workspace for one in self.store.projects.values()})]

    # entities

    def create_experiment(self, request: Request) -> Any:
        """A new run, model or model version."""
        asked = request.json
        project = self.store.project(asked["projectIdentifier"])
        type_: EntityType = asked["type"]
        parent = asked["parentId"] if type_ == "modelVersion" else ""
        custom = asked.get("key") or asked.get("customId") or ""
        entity = self.store.add_entity(project, type_, parent=parent, custom_id=custom)
        if asked.get("gitInfo"):
            entity.put("source_code/git", "gitRef", asked["gitInfo"])
        return entity.dto()

    def get_experiment(self, request: Request) -> Any:
        """One entity."""
        return self.store.entity(request["experimentId"]).dto()

    def trash_experiments(self, request: Request) -> Any:
        """Move to the trash."""
        for identifier in request.json:
            self.store.entity(identifier).put("sys/trashed", "bool", True)
        return {"errors": [], "updatedExperimentIdentifiers": request.json}

    def ping(self, _: Request) -> Any:
        """The client lives."""
        return None

    def get_experiment_attributes(self, request: Request) -> Any:
        """The whole entity but series and files."""
        entity = self.store.entity(request["experimentId"])
        return {**entity.dto(), "attributes": self._attributes(attribute_dtos(entity))}

    def execute_operations(self, request: Request) -> Any:
        """What the client logged."""
        entity = self.store.entity(request["experimentId"])
        results = [execute(entity, operation, self.store.now_ms()) for operation in request.json]
        return [error for error in results if error is not None]

    def _attributes(self, dtos: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not self.writes_nulls:
            return dtos
        return [{f"{kind}Properties": None for kind in _KINDS} | dto for dto in dtos]

    # single attributes

    def _one(self, request: Request) -> Any:
        path = request["attribute"]
        return properties(path, self.store.attribute(request["experimentId"], path))

    get_float_attribute = get_int_attribute = get_bool_attribute = get_string_attribute = get_datetime_attribute = _one
    get_string_set_attribute = get_file_attribute = get_artifact_attribute = _one
    get_float_series_attribute = get_string_series_attribute = _one

    def _series_page(self, request: Request, type_: str) -> Any:
        series: Series = self.store.attribute(request["experimentId"], request["attribute"], type_).value
        limit = request.number("limit", 1000)
        start = request.number("offset")
        part = slice(start, start + (min(limit, self.page) if self.page else limit))
        rows = zip(series.times_ms[part], series.steps[part], series.values[part], strict=True)
        values = [{"timestampMillis": time_ms, "step": step, "value": value} for time_ms, step, value in rows]
        answer = {"totalItemCount": len(series.steps) + self.counted_too_many, "values": values}
        if self.cut_short.get(request["attribute"]):
            self.cut_short[request["attribute"]] -= 1
            return Content(json.dumps(answer).encode()[:-9], "application/json")
        return answer

    def get_float_series_values(self, request: Request) -> Any:
        """A page of floats."""
        return self._series_page(request, "floatSeries")

    def get_string_series_values(self, request: Request) -> Any:
        """A page of strings."""
        return self._series_page(request, "stringSeries")

    def get_image_series_values(self, request: Request) -> Any:
        """How many images: the API gives no more."""
        attribute = self.store.attribute(request["experimentId"], request["attribute"], "imageSeries")
        return {"totalItemCount": len(attribute.value.steps)}

    def get_image_series_value(self, request: Request) -> Any:
        """One image by index."""
        attribute = self.store.attribute(request["experimentId"], request["attribute"], "imageSeries")
        images = attribute.value.values
        if request.number("index") >= len(images):
            raise Refused(404, "IMAGE_NOT_FOUND")
        return Content(images[request.number("index")], "image/png")

    # files

    def download_attribute(self, request: Request) -> Any:
        """The content of a file."""
        path = request["attribute"]
        attribute = self.store.attribute(request["experimentId"], path, "file")
        name = properties(path, attribute)["name"]
        disposition = f'attachment; filename="{name}"'
        content = attribute.value.content
        if self.cut_short.get(path):
            self.cut_short[path] -= 1
            content = content[: len(content) // 2]
        return Content(content, "application/octet-stream", Content_Disposition=disposition)

    def ls_file_set_attribute(self, request: Request) -> Any:
        """Names in a file set."""
        attribute = self.store.attribute(request["experimentId"], request["attribute"], "fileSet")
        stamp = {"mtime": "2024-01-01T00:00:00.000Z", "fileType": "file"}
        return [{"name": name, "size": len(content), **stamp} for name, content in sorted(attribute.value.items())]

    def prepare_for_download_file_set_attribute_zip(self, request: Request) -> Any:
        """Ask for a zip."""
        attribute = self.store.attribute(request["experimentId"], request["attribute"], "fileSet")
        number = str(uuid.uuid4())
        self._downloads[number] = (0, attribute)
        if self.cut_short.get(request["attribute"]):
            self.cut_short[request["attribute"]] -= 1
            self._damaged.add(number)
        return {"id": number}

    def get_download_prepare_request(self, request: Request) -> Any:
        """Is the zip ready?"""
        polls, attribute = self._downloads[request["id"]]
        self._downloads[request["id"]] = (polls + 1, attribute)
        if polls + 1 < _PREPARED_AFTER_POLLS:
            return {"id": request["id"]}
        return {
            "id": request["id"],
            "downloadUrl": f"{self.base_url}/api/leaderboard/v1/download/content?id={request['id']}",
        }

    def fetch_download(self, request: Request) -> Any:
        """The zip, with entries for its folders and for its root, as Neptune makes it."""
        _, attribute = self._downloads[request["id"]]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("/", b"")
            for folder in sorted({name.rpartition("/")[0] for name in attribute.value} - {""}):
                archive.writestr(f"{folder}/", b"")
            for name, content in attribute.value.items():
                archive.writestr(name, content)
        content = packed.getvalue()
        if request["id"] in self._damaged:  # of the last file, all that follows its name
            begin = content.rindex(b"PK\x03\x04") + 30 + len(list(attribute.value)[-1])
            content = content[:begin] + b"\xff" * 4 + content[begin + 4 :]
        return Content(content, "application/zip", Content_Disposition='attachment; filename="files.zip"')

    def _store_file(self, entity: str, path: str, ext: str, content: bytes) -> Any:
        self.store.entity(entity).put(path, "file", StoredFile(content, ext))
        return {"errors": []}

    def _store_member(self, entity: str, path: str, member: str, content: bytes) -> Any:
        attribute = self.store.entity(entity).attributes.setdefault(path, Attribute("fileSet", {}))
        attribute.value[member] = content
        return {"errors": []}

    def file_atom_upload(self, request: Request) -> Any:
        """A file in one piece."""
        return self._store_file(request["experimentIdentifier"], request["attribute"], request["ext"], request.body)

    def file_set_file_upload(self, request: Request) -> Any:
        """A member of a file set in one piece."""
        return self._store_member(
            request["experimentIdentifier"], request["attribute"], request["subPath"], request.body
        )

    def _begin(self, request: Request) -> Any:
        number = f"{uuid.uuid4()}.{request['ext']}"
        self._uploads[number] = {}
        return {"uploadId": number, "errors": []}

    def _part(self, request: Request) -> Any:
        self._uploads[request["uploadId"]][request.number("uploadPartIdx")] = request.body
        return {"errors": []}

    file_atom_multipart_upload_start = file_set_file_multipart_upload_start = _begin
    file_atom_multipart_upload_part = file_set_file_multipart_upload_part = _part

    def _joined(self, request: Request) -> bytes:
        parts = self._uploads.pop(request["uploadId"])
        return b"".join(part for _, part in sorted(parts.items()))

    def file_atom_multipart_upload_finish(self, request: Request) -> Any:
        """The last of a large file."""
        ext = request["uploadId"].partition(".")[2]
        return self._store_file(request["experimentIdentifier"], request["attribute"], ext, self._joined(request))

    def file_set_file_multipart_upload_finish(self, request: Request) -> Any:
        """The last of a large member."""
        return self._store_member(
            request["experimentIdentifier"], request["attribute"], request["subPath"], self._joined(request)
        )

    def upload_file_set_attribute_tar(self, request: Request) -> Any:
        """Many members at once."""
        entity = self.store.entity(request["experimentId"])
        if request["reset"] == "True" or request["attribute"] not in entity.attributes:
            entity.put(request["attribute"], "fileSet", {})
        with tarfile.open(fileobj=io.BytesIO(request.body), mode="r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    entity.attributes[request["attribute"]].value[member.name] = content.read()
        return {"errors": []}

    # search

    def search_leaderboard_attributes(self, request: Request) -> Any:
        """Columns by name."""
        project = self.store.project(request["projectIdentifier"])
        types = {
            (path, attribute.type)
            for entity in project.entities
            for path, attribute in entity.attributes.items()
            if request["search"] in path
        }
        return {"entries": [{"name": name, "type": type_} for name, type_ in sorted(types)]}

    def search_leaderboard_entries(self, request: Request) -> Any:
        """A page of entities. Nothing is shown beyond the window of 10,000."""
        asked = request.json
        project = self.store.project(request["projectIdentifier"])
        limit, offset = asked["pagination"]["limit"], asked["pagination"]["offset"]
        if limit + offset > SEARCH_WINDOW:
            raise Refused(400, "BAD_REQUEST", f"offset + limit is over {SEARCH_WINDOW}")
        try:
            predicate = nql.parse(asked["query"]["query"])
        except nql.SyntaxProblem as error:
            raise Refused(400, "BAD_REQUEST", "Syntax error") from error
        types = request.all("type")
        found = [one for one in _sorted(project, asked) if one.type in types and predicate(one.attributes)]
        paths = [one["path"] for one in asked.get("attributeFilters", [])] or None
        page = found[offset : offset + (min(limit, self.entries) if self.entries else limit)]
        entries = [
            {
                "experimentId": one.id,
                "type": one.type,
                "attributes": self._attributes(attribute_dtos(one, iter(paths) if paths else None)),
            }
            for one in page
        ]
        return {"matchingItemCount": len(found), "entries": entries}

    # artifacts

    def create_new_artifact(self, request: Request) -> Any:
        """An artifact by its hash."""
        key = (request["projectIdentifier"], request["hash"])
        return {"artifactHash": key[1], "receivedMetadata": key in self.store.artifacts, "size": 0}

    def upload_artifact_files_metadata(self, request: Request) -> Any:
        """What an artifact is made of."""
        self.store.artifacts[request["projectIdentifier"], request["hash"]] = request.json["files"]
        return {"artifactHash": request["hash"], "receivedMetadata": True, "size": 0}

    def create_artifact_version(self, request: Request) -> Any:
        """An artifact that grew."""
        before = self.store.artifacts[request["projectIdentifier"], request["hash"]]
        number = uuid.uuid5(uuid.NAMESPACE_OID, request["hash"] + json.dumps(request.json)).hex
        self.store.artifacts[request["projectIdentifier"], number] = [*before, *request.json["files"]]
        return {"artifactHash": number, "receivedMetadata": True, "size": 0}

    def list_artifact_files(self, request: Request) -> Any:
        """Metadata of its files; contents never are on the server."""
        files = self.store.artifacts.get((request["projectIdentifier"], request["hash"]))
        if files is None or request.headers.get("X-Neptune-Artifact-Api-Version") != "2":
            raise Refused(404, "ARTIFACT_NOT_FOUND")
        return {"files": files}


def _sorted(project: Project, asked: Mapping[str, Any]) -> list[Entity]:
    sorting = asked.get("sorting")
    if sorting is None:
        return project.entities
    path, is_descending = sorting["sortBy"]["name"], sorting["dir"] == "descending"
    if path == "sys/id":
        entities = [entity for _, entity in project.by_sys_id]
        return entities[::-1] if is_descending else entities
    held = [one for one in project.entities if path in one.attributes]
    return sorted(held, key=lambda one: one.attributes[path].value, reverse=is_descending)
