"""Finds the files that operations of neptune-scale refer to."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shardmig.adapters.neptune_local.database3 import UploadRequest
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.local_files import LocalFiles, base_name


class FoundFile(NamedTuple):
    """A file on this disk and the name it is stored under."""

    source: Path
    name: str


class Uploads3:
    """The upload requests of a run's databases. `databases[i]` made `requests[i]`."""

    def __init__(
        self,
        databases: Sequence[Path],
        requests: Sequence[Mapping[str, UploadRequest]],
        path_map: Sequence[tuple[str, str]],
    ) -> None:
        self._databases = databases
        self._requests = requests
        self._path_map = path_map

    def find(self, field: str, database: int, reference: Any, findings: FindingLog) -> FoundFile | None:
        """The file behind a FileRef message; None, with a finding, if it is not here. A file that the client saved
        itself lies beside its database, wherever that was moved to."""
        request = self._requests[database].get(reference.path)
        if request is None:
            findings.add("gap", "file-not-here", field=field, detail=f"{reference.path} was uploaded already")
            return None
        beside = self._databases[database].parent / base_name(request.source_path)
        candidates = [beside] if request.is_temporary else []
        source = LocalFiles(self._path_map, findings).find(field, request.source_path, *candidates)
        if source is None:
            return None
        size = source.stat().st_size
        if size != request.size_bytes:
            findings.add("note", "file-changed", field=field, detail=f"{size} bytes, {request.size_bytes} when logged")
        name = _name(field, request)
        if request.mime_type != "application/octet-stream" and mimetypes.guess_type(name)[0] != request.mime_type:
            findings.add("note", "mime-type", field=field, detail=request.mime_type)
        return FoundFile(source, name)


def _name(field: str, request: UploadRequest) -> str:
    own = base_name(request.source_path)
    if not request.is_temporary:
        return own
    extension = Path(own).suffix or mimetypes.guess_extension(request.mime_type) or ""
    last = field.rpartition("/")[2]
    return last if last.endswith(extension) else last + extension
