"""Artifacts in S3, or in what speaks its language, through MLflow's own client for it. Files are streamed, large ones in parts.

A file that is there already is not sent again: S3 tells the MD5 of an object, of one that came in parts the MD5 of the
parts' MD5s. An object encrypted with a key of its owner's has another text there, so it is sent again.
"""

from __future__ import annotations

import posixpath
import threading
from hashlib import md5
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from shardmig.adapters.mlflow.refusals import artifact_errors
from shardmig.errors import MissingExtra

PART_BYTES: Final = 8 << 20
"""What boto3 sends at a time of files that are not smaller. Another size makes another digest: the file is sent again."""


class InS3:
    """`RunArtifacts` below one `s3://` URI. Safe to use from several threads."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._repository: Any = None
        self._there: dict[str, str] | None = None

    def put(self, file: Path, path: str) -> None:
        """As ArtifactSink."""
        folder, _, name = path.rpartition("/")
        with TemporaryDirectory(prefix="shardmig-") as temporary, artifact_errors(f"artifact {path}"):
            repository = self._opened()
            held = self._etag(path)
            if held is not None and held == etag_of(file):
                return
            named = Path(temporary, name)  # S3 is told the type of content that goes with the name
            named.symlink_to(file.absolute())
            repository.log_artifact(str(named), folder or None)

    def get(self, path: str, file: Path) -> None:
        """As ArtifactStore."""
        with artifact_errors(f"artifact {path}"):
            self._opened()._download_file(path, str(file))  # noqa: SLF001 (download_artifacts lists before each file)

    def on_disk(self, _: str) -> None:
        """As RunArtifacts: nowhere."""
        return

    def _opened(self) -> Any:
        with self._lock:
            if self._repository is None:
                if find_spec("boto3") is None:
                    raise MissingExtra("artifacts in S3 need the package 'boto3'", hint="pip install boto3")
                from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

                self._repository = get_artifact_repository(self._uri)
            return self._repository

    def _etag(self, path: str) -> str | None:
        """Of the object that is there when the first file is put: listed once, so a new run costs one request."""
        repository = self._opened()
        bucket, root = repository.parse_s3_compliant_uri(self._uri.rstrip("/"))
        with self._lock:
            if self._there is None:
                pages = repository._get_s3_client().get_paginator("list_objects_v2")  # noqa: SLF001
                found = pages.paginate(Bucket=bucket, Prefix=root, **repository._bucket_owner_params)  # noqa: SLF001
                self._there = {one["Key"]: one["ETag"].strip('"') for page in found for one in page.get("Contents", ())}
        return self._there.get(posixpath.join(root, path))


def etag_of(file: Path) -> str:
    """What S3 tells of an object that boto3 sent from this file."""
    with file.open("rb") as content:
        parts = [md5(part, usedforsecurity=False) for part in iter(lambda: content.read(PART_BYTES), b"")]
    if file.stat().st_size < PART_BYTES:
        return (parts[0] if parts else md5(usedforsecurity=False)).hexdigest()
    return f"{md5(b''.join(part.digest() for part in parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
