"""The three Swagger documents that the 1.x client downloads before anything else: the least that it can work with.

An operation is one line: name, method, path, parameters, reply. A parameter `[name]` is repeated, `<name>` is the
body, `{name}` a header; all others stand in the query.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

BACKEND: Final = "/api/backend"
LEADERBOARD: Final = "/api/leaderboard"
ARTIFACTS: Final = "/api/artifacts"


class Operation(NamedTuple):
    """One line of the tables below."""

    name: str
    method: str
    path: str
    parameters: str
    reply: str


_OPERATIONS: Final = {
    BACKEND: """
getClientConfig GET /v1/clients/config alpha,{X-Neptune-Api-Token} ClientConfig
exchangeApiToken GET /v1/authorization/oauth-token {X-Neptune-Api-Token} OauthToken
getProject GET /v1/projects/get projectIdentifier Project
listProjects GET /v1/projects organizationIdentifier,offset,limit,searchTerm,userRelation,[sortBy],[sortDirection] Projects
listOrganizations GET /v1/organizations - [Organization]
""",
    LEADERBOARD: """
createExperiment POST /v1/experiments <experimentCreationParams>,{X-Neptune-CliVersion} Experiment
getExperiment GET /v1/experiments experimentId Experiment
trashExperiments POST /v1/experiments/trash projectIdentifier,<experimentIdentifiers> BulkResult
ping POST /v1/experiments/ping experimentId -
getExperimentAttributes GET /v1/attributes experimentId Entity
executeOperations POST /v1/attributes/operations experimentId,<operations> [OperationError]
getFloatAttribute GET /v1/attributes/floats experimentId,attribute Value
getIntAttribute GET /v1/attributes/ints experimentId,attribute Value
getBoolAttribute GET /v1/attributes/booleans experimentId,attribute Value
getStringAttribute GET /v1/attributes/strings experimentId,attribute Value
getDatetimeAttribute GET /v1/attributes/datetimes experimentId,attribute Value
getStringSetAttribute GET /v1/attributes/stringSets experimentId,attribute Value
getFileAttribute GET /v1/attributes/files experimentId,attribute Value
getArtifactAttribute GET /v1/attributes/artifacts experimentId,attribute Value
getFloatSeriesAttribute GET /v1/attributes/floatSeries experimentId,attribute Value
getStringSeriesAttribute GET /v1/attributes/stringSeries experimentId,attribute Value
getFloatSeriesValues GET /v1/attributes/series/float experimentId,attribute,limit,offset Page
getStringSeriesValues GET /v1/attributes/series/string experimentId,attribute,limit,offset Page
getImageSeriesValues GET /v1/attributes/series/image experimentId,attribute,limit,offset Page
getImageSeriesValue GET /v1/attributes/series/image/single experimentId,attribute,index -
downloadAttribute GET /v1/attributes/download experimentId,attribute -
lsFileSetAttribute GET /v1/attributes/ls experimentId,attribute,path [FileEntry]
prepareForDownloadFileSetAttributeZip POST /v1/attributes/downloadFileSetZipRequest experimentId,attribute Download
getDownloadPrepareRequest GET /v1/download/downloadRequest id Download
fetchDownload GET /v1/download/content id -
fileAtomUpload POST /v1/attributes/storage/file experimentIdentifier,attribute,ext Errors
fileAtomMultipartUploadStart POST /v1/attributes/storage/file/start experimentIdentifier,attribute,ext,totalLength Upload
fileAtomMultipartUploadPart POST /v1/attributes/storage/file/part experimentIdentifier,attribute,uploadId,uploadPartIdx Errors
fileAtomMultipartUploadFinish POST /v1/attributes/storage/file/finish experimentIdentifier,attribute,uploadId Errors
fileSetFileUpload POST /v1/attributes/storage/fileset experimentIdentifier,attribute,subPath Errors
fileSetFileMultipartUploadStart POST /v1/attributes/storage/fileset/start experimentIdentifier,attribute,subPath,totalLength Upload
fileSetFileMultipartUploadPart POST /v1/attributes/storage/fileset/part experimentIdentifier,attribute,uploadId,uploadPartIdx,subPath Errors
fileSetFileMultipartUploadFinish POST /v1/attributes/storage/fileset/finish experimentIdentifier,attribute,uploadId,subPath Errors
uploadFileSetAttributeTar POST /v1/attributes/uploadFileSetTar experimentId,attribute,reset Errors
searchLeaderboardAttributes POST /v1/leaderboard/attributes/search projectIdentifier,[type],search,<params> Columns
searchLeaderboardEntries POST /v1/leaderboard/entries/search projectIdentifier,[type],<params> -
""",
    ARTIFACTS: """
createNewArtifact POST /v1/artifacts projectIdentifier,hash,size,parentIdentifier Artifact
createArtifactVersion POST /v1/artifacts/version projectIdentifier,hash,parentIdentifier,<artifactFilesDTO> Artifact
uploadArtifactFilesMetadata POST /v1/artifacts/files projectIdentifier,hash,<artifactFilesDTO> Artifact
listArtifactFiles GET /v1/artifact/files projectIdentifier,hash ArtifactFiles
""",
}

_ATTRIBUTE_TYPES: Final = [
    "float",
    "int",
    "bool",
    "string",
    "datetime",
    "file",
    "fileSet",
    "floatSeries",
    "stringSeries",
    "imageSeries",
    "stringSet",
    "gitRef",
    "experimentState",
    "notebookRef",
    "artifact",
]

_MODELS: Final = {
    "ClientConfig": "apiUrl applicationUrl pyLibVersions:Versions multiPartUpload:Multipart artifacts:ArtifactConfig "
    "sysNameSetByBackend",
    "Versions": "minRecommendedVersion minCompatibleVersion maxCompatibleVersion",
    "Multipart": "enabled minChunkSize maxChunkSize maxChunkCount maxSinglePartSize",
    "ArtifactConfig": "enabled apiVersion",
    "OauthToken": "accessToken refreshToken username",
    "Project": "id name organizationName projectKey version",
    "Projects": "entries:[Project] matchingItemCount totalItemCount",
    "Organization": "id name",
    "Experiment": "id shortId organizationName projectName projectId parentId trashed type",
    "BulkResult": "errors updatedExperimentIdentifiers",
    "Entity": "id attributes:[Attribute]",
    "Attribute": "name type " + " ".join(f"{name}Properties:Value" for name in _ATTRIBUTE_TYPES),
    "Value": "value values last lastStep name ext size hash repositoryDirty currentBranch remotes commit",
    "OperationError": "errorDescription errorType",
    "Errors": "errors:[OperationError]",
    "Upload": "uploadId errors:[OperationError]",
    "Download": "id downloadUrl",
    "FileEntry": "name size mtime fileType",
    "Page": "totalItemCount values:[Point]",
    "Point": "timestampMillis step value",
    "Columns": "entries:[Column]",
    "Column": "name type",
    "Artifact": "artifactHash receivedMetadata size",
    "ArtifactFiles": "files:[ArtifactFile]",
    "ArtifactFile": "filePath fileHash type size metadata:[KeyValue]",
    "KeyValue": "key value",
}


def operations() -> Iterator[Operation]:
    """All operations of the three services, by full path."""
    for service, table in _OPERATIONS.items():
        for line in table.strip().splitlines():
            name, method, path, parameters, reply = line.split()
            yield Operation(name, method, service + path, parameters, reply)


def document(service: str) -> dict[str, Any]:
    """The Swagger document of one service."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations():
        if operation.path.startswith(service + "/"):
            paths.setdefault(operation.path, {})[operation.method.lower()] = {
                "operationId": operation.name,
                "parameters": [_parameter(one) for one in operation.parameters.split(",") if one != "-"],
                "responses": {"200": {"description": "OK", **_reply(operation.reply)}},
            }
    info = {"title": service, "version": "2.5"}
    return {"swagger": "2.0", "info": info, "basePath": "/", "paths": paths, "definitions": dict(_definitions())}


def _parameter(text: str) -> dict[str, Any]:
    name = re.sub(r"[\[\]<>{}]", "", text)
    if text[0] == "<":
        return {"name": name, "in": "body", "schema": {}}
    if text[0] == "{":
        return {"name": name, "in": "header", "type": "string"}
    if text[0] == "[":
        items = {"type": "string"}
        return {"name": name, "in": "query", "type": "array", "items": items, "collectionFormat": "multi"}
    return {"name": name, "in": "query", "type": "string"}


def _reply(text: str) -> dict[str, Any]:
    return {} if text == "-" else {"schema": _schema(text)}


def _schema(text: str) -> dict[str, Any]:
    if text[0] == "[":
        return {"type": "array", "items": _schema(text[1:-1])}
    return {"$ref": f"#/definitions/{text}"}


def _definitions() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, properties in _MODELS.items():
        schemas = {}
        for one in properties.split():
            key, _, reference = one.partition(":")
            schemas[key] = _schema(reference) if reference else {}
        yield name, {"type": "object", "title": name, "x-model": name, "properties": schemas}
