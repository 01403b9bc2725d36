"""The operations that 1.x clients (neptune 1.x, neptune-client 0.14 and later) write, as typed records.

Old spellings are read too: values without `step`, images as bare base64 text, `reset` as text or boolean.
"""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from shardmig.records import FindingKind

CUT_RECORD: Final = "cut-record"
BAD_RECORD: Final = "bad-record"
"""Codes of the `Problem` in the place of a last line that is cut, and of a line that cannot be read."""


class FloatValue(msgspec.Struct, gc=False):
    """One point of a float series. `ts` is in seconds."""

    value: float
    step: int | float | None = None
    ts: float | None = None


class TextValue(msgspec.Struct, gc=False):
    """One point of a string series."""

    value: str
    step: int | float | None = None
    ts: float | None = None


class Image(msgspec.Struct, gc=False):
    """An image of a file series, as base64 text."""

    data: str | None = None
    name: str | None = None
    description: str | None = None


class ImageValue(msgspec.Struct, gc=False):
    """One point of a file series."""

    value: Image | str | None
    step: int | float | None = None
    ts: float | None = None


class _Operation(msgspec.Struct, tag_field="type", tag=True, gc=False):
    path: list[str]


class AssignFloat(_Operation, gc=False):
    """Sets a float."""

    value: float


class AssignInt(_Operation, gc=False):
    """Sets an integer; JSON bounds it not."""

    value: int


class AssignBool(_Operation, gc=False):
    """Sets a bool."""

    value: bool


class AssignString(_Operation, gc=False):
    """Sets a string."""

    value: str


class AssignDatetime(_Operation, gc=False):
    """Sets a time, in epoch ms."""

    value: int


class AssignArtifact(_Operation, gc=False):
    """Sets an artifact by its hash."""

    hash: str


class UploadFile(_Operation, gc=False):
    """A file by path, or saved below upload_path under `tmp_file_name`. `is_acked` is no part of the record: the reader
    of a log sets it where the server has had the file."""

    ext: str | None = None
    file_path: str | None = None
    tmp_file_name: str | None = None
    is_acked: bool = False


class UploadFileContent(_Operation, gc=False):
    """A file as base64 text (clients up to 0.14)."""

    file_content: str
    ext: str | None = None


class UploadFileSet(_Operation, gc=False):
    """Adds the files that absolute patterns match to a set, which is emptied first on `reset`."""

    file_globs: list[str]
    reset: str | bool = False


class DeleteFiles(_Operation, gc=False):
    """Removes files from a set by name."""

    file_paths: list[str]


class LogFloats(_Operation, gc=False):
    """Points of a float series."""

    values: list[FloatValue]


class LogStrings(_Operation, gc=False):
    """Points of a string series."""

    values: list[TextValue]


class LogImages(_Operation, gc=False):
    """Points of a file series."""

    values: list[ImageValue]


class ClearFloatLog(_Operation, gc=False):
    """Empties a float series."""


class ClearStringLog(_Operation, gc=False):
    """Empties a string series."""


class ClearImageLog(_Operation, gc=False):
    """Empties a file series."""


class ConfigFloatSeries(_Operation, gc=False):
    """How a chart shows a float series."""

    min: float | None = None
    max: float | None = None
    unit: str | None = None


class AddStrings(_Operation, gc=False):
    """Adds to a string set."""

    values: list[str]


class RemoveStrings(_Operation, gc=False):
    """Removes from a string set."""

    values: list[str]


class ClearStringSet(_Operation, gc=False):
    """Empties a string set."""


class DeleteAttribute(_Operation, gc=False):
    """Removes whatever a path holds."""


class TrackFilesToArtifact(_Operation, gc=False):
    """Adds (location, destination) to an artifact."""

    entries: list[tuple[str, str | None]]


class ClearArtifact(_Operation, gc=False):
    """Empties an artifact."""


class CopyAttribute(_Operation, gc=False):
    """Sets a field to what another one holds."""

    container_id: str
    source_path: list[str]


class Problem(msgspec.Struct, gc=False, tag_field="type", tag="shardmig.problem"):
    """Stands where a record could not be read as it is. Never decoded from a log: its tag is refused there."""

    kind: FindingKind
    code: str
    detail: str
    line: bytes = b""


Operation = (
    AssignFloat
    | AssignInt
    | AssignBool
    | AssignString
    | AssignDatetime
    | AssignArtifact
    | UploadFile
    | UploadFileContent
    | UploadFileSet
    | DeleteFiles
    | LogFloats
    | LogStrings
    | LogImages
    | ClearFloatLog
    | ClearStringLog
    | ClearImageLog
    | ConfigFloatSeries
    | AddStrings
    | RemoveStrings
    | ClearStringSet
    | DeleteAttribute
    | TrackFilesToArtifact
    | ClearArtifact
    | CopyAttribute
)


class Record(msgspec.Struct, gc=False):
    """One line of a log. `version` counts from 1 in each folder; `at` is when it was written, in seconds."""

    obj: Operation
    version: int = 0
    at: float | None = None


class Trouble(msgspec.Struct, gc=False):
    """What the reader puts in the place of a line that is no record. `version` 0 = not known."""

    obj: Problem
    version: int = 0
    at: float | None = None


def name_of_unknown(value: Any) -> str | None:
    """The type of a well-formed operation that no client known here writes; None if it is not well-formed."""
    operation = value.get("obj") if isinstance(value, dict) else None
    name = operation.get("type") if isinstance(operation, dict) else None
    known = {str(kind.__struct_config__.tag) for kind in get_args(Operation)}
    return name if isinstance(name, str) and name not in known else None
