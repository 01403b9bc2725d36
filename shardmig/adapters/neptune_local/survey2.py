"""The first pass over a 1.x log: the final state of everything but the points of series.

Rules (the server's, as the client's own preprocessor mirrors them): the last assignment wins; a delete removes
whatever a path holds; a clear empties a series, a set or an artifact. The server refuses a second type on a path;
here both are kept (a field is a path and a type) and noted, but one scalar type replaces another.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from shardmig.adapters.base import FileSink
from shardmig.adapters.neptune_local import operations2 as ops
from shardmig.adapters.neptune_local.local_files import LocalFiles, TrackedFile, base_name, name_with_extension
from shardmig.adapters.neptune_local.recording import PlannedFile
from shardmig.records import Field, FieldType, FileRef, RunRef

DESCRIPTIONS: Final = "shardmig/image_descriptions"
CONFIG_NAMESPACE: Final = "shardmig/series_config"
UPLOAD_FOLDER: Final = "upload_path"
_INT64: Final = range(-(2**63), 2**63)
_SERIES: Final[tuple[FieldType, ...]] = ("float_series", "string_series", "file_series")


class _Upload(NamedTuple):
    """A single file: logged by path, or saved by the client under its log folder, or kept by this pass."""

    name: str
    file_path: str | None = None
    saved_name: str | None = None
    is_acked: bool = False
    kept: Path | None = None


class _SetChange(NamedTuple):
    """One step in the making of a file set."""

    globs: tuple[str, ...] = ()
    deleted: frozenset[str] = frozenset()


class Survey2:
    """Replays operations. `folders`: of the run's logs, where saved uploads lie. `keep`: a folder of ours for contents
    that stand in the log itself."""

    def __init__(self, container_id: str, folders: Sequence[Path], files: LocalFiles, keep: Path) -> None:
        self.findings = files.findings
        self.series: set[tuple[str, FieldType]] = set()
        self.clears: Counter[tuple[str, FieldType]] = Counter()
        self._container_id = container_id
        self._uploads = [folder / UPLOAD_FOLDER for folder in folders]
        self._local_files = files
        self._keep = keep
        self._slots: dict[tuple[str, str], Any] = {}
        self._families: dict[str, set[str]] = {}
        self._floats: set[str] = set()
        self._apply: dict[type, Callable[[Any], None]] = self._operations()

    def replay(self, records: Iterable[ops.Record | ops.Trouble]) -> None:
        """Apply the next records in order."""
        floats = self._floats
        for record in records:
            operation = record.obj
            if type(operation) is ops.LogFloats:
                path = "/".join(operation.path)
                if path not in floats and operation.values:
                    floats.add(path)
                    self._log("float_series", operation)
            else:
                self._apply[type(operation)](operation)

    def fields(self) -> list[Field]:
        """The scalars."""
        found = []
        for (path, family), slot in self._slots.items():
            if family == "string_set":
                found.append(Field(path, "string_set", sorted(slot)))
            elif family == "artifact" and isinstance(slot, str):
                self.findings.add("gap", "artifact-list-unknown", field=path, detail="only its hash was logged")
                found.append(Field(path, "string", slot))
            elif family == "scalar":
                field_type, value = slot
                if field_type == "int" and value not in _INT64:
                    self.findings.add("loss", "int-out-of-range", field=path, detail=str(value)[:100])
                else:
                    found.append(Field(path, field_type, value))
        return found

    def files(self, wants: Callable[[str, FieldType], bool]) -> list[PlannedFile]:
        """The wanted files, found where they lie now; what is missing is reported."""
        planned = []
        for (path, family), slot in sorted(self._slots.items(), key=lambda entry: entry[0]):
            if family == "file" and wants(path, "file") and (source := self._find(path, slot)):
                planned.append(PlannedFile(path, "file", partial(_put_file, path, source, slot.name)))
            elif (
                family == "file_set" and wants(path, "file_set") and (members := self._members(path, slot)) is not None
            ):
                planned.append(PlannedFile(path, "file_set", partial(_put_set, path, members)))
            elif family == "artifact" and not isinstance(slot, str) and slot and wants(path, "artifact"):
                planned.append(PlannedFile(path, "artifact", partial(self._put_artifact, path, slot)))
        return planned

    def _operations(self) -> dict[type, Callable[[Any], None]]:
        return {
            ops.AssignFloat: partial(self._assign, "float"),
            ops.AssignInt: partial(self._assign, "int"),
            ops.AssignBool: partial(self._assign, "bool"),
            ops.AssignString: partial(self._assign, "string"),
            ops.AssignDatetime: partial(self._assign, "datetime"),
            ops.AssignArtifact: lambda op: self._put(op, "artifact", op.hash),
            ops.UploadFile: self._upload,
            ops.UploadFileContent: self._upload_content,
            ops.UploadFileSet: self._upload_set,
            ops.DeleteFiles: self._delete_files,
            ops.LogFloats: partial(self._log, "float_series"),
            ops.LogStrings: partial(self._log, "string_series"),
            ops.LogImages: self._log_images,
            ops.ClearFloatLog: partial(self._clear_series, "float_series"),
            ops.ClearStringLog: partial(self._clear_series, "string_series"),
            ops.ClearImageLog: partial(self._clear_series, "file_series"),
            ops.ConfigFloatSeries: self._configure,
            ops.AddStrings: lambda op: self._put(op, "string_set", self._set_of(op) | set(op.values)),
            ops.RemoveStrings: lambda op: self._put(op, "string_set", self._set_of(op) - set(op.values)),
            ops.ClearStringSet: lambda op: self._put(op, "string_set", set()),
            ops.DeleteAttribute: self._delete,
            ops.TrackFilesToArtifact: self._track,
            ops.ClearArtifact: lambda op: self._put(op, "artifact", []),
            ops.CopyAttribute: self._copy,
            ops.Problem: self._report,
        }

    def _report(self, problem: ops.Problem) -> None:
        if problem.code not in (ops.CUT_RECORD, ops.BAD_RECORD):  # what those lines cost, versions2 knows
            self.findings.add(problem.kind, problem.code, detail=problem.detail)

    def _put(self, operation: Any, family: str, slot: Any) -> None:
        path = "/".join(operation.path)
        before = self._families.setdefault(path, set())
        was = self._slots.get((path, family))
        if before - {family} or (family == "scalar" and was is not None and was[0] != slot[0]):
            self.findings.add("note", "type-changed", field=path, detail=type(operation).__name__)
        before.add(family)
        self._slots[path, family] = slot

    def _assign(self, field_type: FieldType, operation: Any) -> None:
        self._put(operation, "scalar", (field_type, operation.value))

    def _set_of(self, operation: ops.AddStrings | ops.RemoveStrings) -> set[str]:
        found: set[str] = self._slots.get(("/".join(operation.path), "string_set"), set())
        return found

    def _upload(self, operation: ops.UploadFile) -> None:
        own_name = name_with_extension(operation.path[-1], operation.ext)
        if operation.file_path:
            name = name_with_extension(base_name(operation.file_path) or own_name, operation.ext)
            upload = _Upload(name, file_path=operation.file_path, is_acked=operation.is_acked)
            self._put(operation, "file", upload)
        else:
            saved, is_acked = operation.tmp_file_name or "", operation.is_acked
            self._put(operation, "file", _Upload(own_name, saved_name=saved, is_acked=is_acked))

    def _upload_content(self, operation: ops.UploadFileContent) -> None:
        name = name_with_extension(operation.path[-1], operation.ext)
        kept = self._keep / f"content-{len(list(self._keep.iterdir()))}"
        try:
            kept.write_bytes(base64.b64decode(operation.file_content, validate=True))
        except (binascii.Error, ValueError):
            self.findings.add("loss", "bad-record", field="/".join(operation.path), detail="its content is not base64")
            return
        self._put(operation, "file", _Upload(name, kept=kept))

    def _upload_set(self, operation: ops.UploadFileSet) -> None:
        is_reset = operation.reset not in (False, "False")
        before = () if is_reset else self._slots.get(("/".join(operation.path), "file_set"), ())
        if is_reset or operation.file_globs or before:
            self._put(operation, "file_set", (*before, _SetChange(globs=tuple(operation.file_globs))))

    def _delete_files(self, operation: ops.DeleteFiles) -> None:
        before = self._slots.get(("/".join(operation.path), "file_set"), ())
        self._put(operation, "file_set", (*before, _SetChange(deleted=frozenset(operation.file_paths))))

    def _track(self, operation: ops.TrackFilesToArtifact) -> None:
        before = self._slots.get(("/".join(operation.path), "artifact"), [])
        entries = before if isinstance(before, list) else []
        self._put(operation, "artifact", [*entries, *operation.entries])

    def _log(self, field_type: FieldType, operation: Any) -> None:
        if not operation.values:
            return
        path = "/".join(operation.path)
        if (path, field_type) not in self.series:
            self.series.add((path, field_type))
            families = self._families.setdefault(path, set())
            if families:
                self.findings.add("note", "type-changed", field=path, detail=type(operation).__name__)
            families.add(field_type)

    def _log_images(self, operation: ops.LogImages) -> None:
        self._log("file_series", operation)
        if any(isinstance(point.value, ops.Image) and point.value.description for point in operation.values):
            self.series.add((f"{DESCRIPTIONS}/{'/'.join(operation.path)}", "string_series"))

    def _clear_series(self, field_type: FieldType, operation: Any) -> None:
        path = "/".join(operation.path)
        self.clears[path, field_type] += 1
        self.series.discard((path, field_type))
        self._floats.discard(path)
        self._families.get(path, set()).discard(field_type)

    def _configure(self, operation: ops.ConfigFloatSeries) -> None:
        path = "/".join(operation.path)
        settings: list[tuple[str, FieldType, Any]] = [
            ("min", "float", operation.min),
            ("max", "float", operation.max),
            ("unit", "string", operation.unit),
        ]
        for name, field_type, value in settings:
            if value is not None:
                self._slots[f"{CONFIG_NAMESPACE}/{path}/{name}", "scalar"] = (field_type, value)

    def _delete(self, operation: ops.DeleteAttribute) -> None:
        path = "/".join(operation.path)
        for field_type in _SERIES:
            self._clear_series(field_type, operation)
        for family in self._families.pop(path, set()):
            self._slots.pop((path, family), None)
        for name in ("min", "max", "unit"):
            self._slots.pop((f"{CONFIG_NAMESPACE}/{path}/{name}", "scalar"), None)

    def _copy(self, operation: ops.CopyAttribute) -> None:
        path, origin = "/".join(operation.path), "/".join(operation.source_path)
        if operation.container_id != self._container_id:
            detail = f"copied from {origin} of container {operation.container_id}"
            self.findings.add("loss", "copied-from-other-run", field=path, detail=detail)
            return
        for family in ("scalar", "artifact"):
            if (origin, family) in self._slots:
                self._put(operation, family, self._slots[origin, family])
                return
        self.findings.add("loss", "copied-from-nothing", field=path, detail=f"copied from {origin}")

    def _find(self, path: str, upload: _Upload) -> Path | None:
        if upload.kept is not None:
            return upload.kept
        if upload.file_path is not None:
            # Clients before 0.16 named their own copies by absolute path, which breaks when the folder moves.
            is_saved = f"/{UPLOAD_FOLDER}/" in upload.file_path.replace("\\", "/")
            saved = [folder / base_name(upload.file_path) for folder in self._uploads] if is_saved else []
            places = [*saved, Path(self._local_files.mapped(upload.file_path))]
            if is_saved and upload.is_acked and not any(os.path.isfile(place) for place in places):
                self._tell_sent(path)
                return None
            return self._local_files.find(path, upload.file_path, *saved)
        name = str(upload.saved_name)
        holder = next((one for one in self._uploads if os.path.isfile(one / name)), None)
        if holder is None and upload.is_acked:
            self._tell_sent(path)
            return None
        return self._local_files.find_inside(path, holder or self._uploads[0], name)

    def _tell_sent(self, path: str) -> None:
        self.findings.add("gap", "uploaded-file-gone", field=path, detail="the client removed it once it was sent")

    def _members(self, path: str, changes: tuple[_SetChange, ...]) -> dict[str, Path] | None:
        """None: the set never came into being (the client sends nothing for an upload that matches no file)."""
        members: dict[str, Path] = {}
        for change in changes:
            members.update(self._local_files.expand(path, change.globs))
            for name in change.deleted:
                members = {one: file for one, file in members.items() if one != name and not one.startswith(f"{name}/")}
        return members or None

    def _put_artifact(self, path: str, entries: list[tuple[str, str | None]], sink: FileSink, run: RunRef) -> FileRef:
        lines: dict[str, TrackedFile] = {}
        for location, destination in entries:
            lines.update((line.file_path, line) for line in self._local_files.track(path, location, destination))
        content = msgspec.json.encode([lines[name] for name in sorted(lines)])
        return sink.put(run, path, "artifact", BytesIO(content), name="files_list.json")


def _put_file(path: str, source: Path, name: str, sink: FileSink, run: RunRef) -> FileRef:
    return sink.put(run, path, "file", source, name=name)


def _put_set(path: str, members: dict[str, Path], sink: FileSink, run: RunRef) -> FileRef:
    return sink.put_tree(run, path, "file_set", sorted(members.items()))
