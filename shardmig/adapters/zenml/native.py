"""How a model version of ZenML's own is written as fields.

    ZenML                          field
    name, number, stage, model     sys/name, sys/zenml/version_number, sys/zenml/stage, sys/zenml/model
    created                        sys/creation_time
    description, tags              sys/description, sys/tags
    metadata <key>                 metadata/<key>; dictionaries go on with slashes: metadata/<key>/<key>
    linked artifact                artifacts/<name>: one file, or a file_set; artifacts/<name>/<version> where several
                                   versions of it are linked
    metadata of an artifact        artifact_metadata/<name>[/<version>]/<key>

Metadata is JSON: what is neither a scalar nor a sorted list of different texts is given as its JSON text
(`value-as-json`). An artifact is the files that its materializer wrote; objects are not loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.names import unlike
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.zenml.artifacts import Folder
from shardmig.adapters.zenml.entities import Artifact, Version
from shardmig.adapters.zenml.fit import flattened
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.errors import Permanent
from shardmig.records import Chunk, Field, Fields, FieldType, FileRef, Files, Finding, RunRef
from shardmig.selection import Matcher

ARTIFACTS: Final = "artifacts/"
FILES_IN_CHUNK: Final = 50
_KINDS: Final[dict[type, FieldType]] = {bool: "bool", int: "int", float: "float", str: "string", list: "string_set"}


class Reading:
    """One model version as chunks. Memory: its metadata, and one file's block."""

    def __init__(self, run: RunRef, version: Version, store: ZenmlStore, want: Want) -> None:
        self._run = run
        self._version = version
        self._store = store
        self._matcher = Matcher(want.selection)
        linked = [artifact for artifact in store.artifacts_of(version.id) if self.gives(artifact)]
        names = Counter(artifact.name for artifact in linked)
        self._artifacts: dict[str, Artifact] = {}
        for one in sorted(linked, key=lambda one: (one.name, one.version)):
            name = one.name if names[one.name] == 1 else f"{one.name}/{one.version}"
            self._artifacts[unlike(name, self._artifacts)] = one
        self.findings: list[Finding] = []

    def gives(self, artifact: Artifact) -> bool:  # noqa: ARG002 (a run that was brought has some that are its own)
        """Is this linked artifact to be read?"""
        return True

    def chunks(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted but header and end."""
        wanted = [field for field in self._fields() if self._matcher.wants_field(field.path, field.type)]
        if wanted:
            yield Fields(sorted(wanted, key=lambda field: (field.path, field.type)))
        yield from self._files(sink)

    def _fields(self) -> Iterator[Field]:
        yield from self._facts()
        values: dict[str, Value] = {}
        for folder, metadata in [
            *self._metadata(),
            *((f"artifact_metadata/{name}", artifact.metadata) for name, artifact in self._artifacts.items()),
        ]:
            for flat in flattened(metadata):
                path = unlike(f"{folder}/{flat.key}", values)
                values[path] = flat.value
                if not flat.is_exact and self._matcher.wants_field(path, "string"):
                    self.findings.append(Finding("approximation", "value-as-json", path))
        yield from (Field(path, _KINDS[type(value)], value) for path, value in values.items())

    def _metadata(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Metadata of the model version, and the folder that it goes to."""
        yield "metadata", self._version.metadata

    def _facts(self) -> Iterator[Field]:
        version = self._version
        texts = {
            "sys/name": version.name,
            "sys/description": version.description,
            "sys/zenml/model": version.model,
            "sys/zenml/stage": version.stage,
        }
        yield from (Field(path, "string", text) for path, text in texts.items() if text)
        yield Field("sys/zenml/version_number", "int", version.number)
        yield Field("sys/creation_time", "datetime", version.created_ms)
        if version.tags:
            yield Field("sys/tags", "string_set", sorted(set(version.tags)))

    def _files(self, sink: FileSink) -> Iterator[Files]:
        refs: list[FileRef] = []
        for name, artifact in self._artifacts.items():
            path = f"{ARTIFACTS}{name}"
            if not self._matcher.wants_field(path, "file"):
                continue
            try:
                refs += self._artifact(path, artifact, sink)
            except Permanent as error:
                self.findings.append(Finding("loss", "artifact-unreadable", path, detail=error.message))
            if len(refs) >= FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def _artifact(self, path: str, artifact: Artifact, sink: FileSink) -> Iterator[FileRef]:
        folder = self._store.folder(artifact.uri, artifact.store_id)
        files = folder.files()
        with TemporaryDirectory(prefix="shardmig-") as staging:
            if len(files) == 1:
                local = Path(staging) / "file"
                folder.get(files[0], local)
                name = (files[0] or artifact.uri).rpartition("/")[2]
                yield sink.put(self._run, path, "file", local, name=name)
            else:
                yield sink.put_tree(self._run, path, "file_set", _fetched(folder, files, Path(staging)))


def _fetched(folder: Folder, files: list[str], staging: Path) -> Iterator[tuple[str, Path]]:
    numbers = count()
    for name in files:
        local = staging / str(next(numbers))
        folder.get(name, local)
        yield name, local
        local.unlink()
