"""The first pass over the databases of a neptune-scale run: everything but the committed points of series.

Rules: the last assignment wins; tags are added and removed in order; a preview point gives way to a later point of
its step. The server refuses a second type on a path; here both are kept (a field is a path and a type) and noted.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from shardmig.adapters.neptune_local.columns import MICRO
from shardmig.adapters.neptune_local.database3 import CREATE, SNAPSHOT, Row
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.messages3 import messages
from shardmig.records import Field, FieldType

_SCALARS: Final[dict[str, FieldType]] = {"float64": "float", "int64": "int", "bool": "bool", "string": "string"}


class FileValue(NamedTuple):
    """A file that was assigned."""

    database: int
    reference: Any


class Preview(NamedTuple):
    """A float point that was not committed."""

    path: str
    micro: int
    time_ms: int
    value: float


class Survey3:
    """Replays operations."""

    def __init__(self, findings: FindingLog) -> None:
        self.findings = findings
        self.created: Any | None = None
        self.files: dict[str, FileValue] = {}
        self.previews: dict[tuple[str, int], Preview] = {}
        self._scalars: dict[tuple[str, FieldType], Any] = {}
        self.types: dict[str, FieldType] = {}
        self._messages = messages()

    def replay(self, row: Row) -> None:
        """Apply the next operation."""
        time_ms, database, sequence, kind, message = row
        if kind not in (SNAPSHOT, CREATE):
            self.findings.add("loss", "unknown-operation", detail=f"type {kind}")
            return
        try:
            if kind == CREATE:
                self.created = self.created or self._messages.Run.FromString(message)
                return
            snapshot = self._messages.UpdateRunSnapshot.FromString(message)
        except DecodeError:
            self.findings.add("loss", "bad-record", detail=f"sequence id {sequence}")
            return
        if snapshot.assign:
            for path, value in sorted(snapshot.assign.items(), key=itemgetter(0)):  # in the same order in every process
                self._assign(path, value, database)
        if snapshot.modify_sets:
            for path, change in snapshot.modify_sets.items():
                self._modify(path, change)
        is_preview = snapshot.preview.is_preview
        if is_preview or self.previews:
            self._preview(snapshot, time_ms, is_preview)

    def fields(self) -> list[Field]:
        """The scalars that were logged."""
        found = []
        for (path, field_type), value in self._scalars.items():
            found.append(Field(path, field_type, sorted(value) if field_type == "string_set" else value))
        return found

    def _assign(self, path: str, value: Any, database: int) -> None:
        kind = value.WhichOneof("value")
        if kind in _SCALARS:
            self._set(path, _SCALARS[kind], getattr(value, kind))
        elif kind == "timestamp":
            self._set(path, "datetime", milliseconds(value.timestamp))
        elif kind == "string_set":
            self._set(path, "string_set", set(value.string_set.values))
        elif kind == "file_ref":
            self._check_type(path, "file")
            self.files[path] = FileValue(database, value.file_ref)
        else:
            self.findings.add("loss", "unknown-value", field=path, detail=str(kind))

    def _modify(self, path: str, change: Any) -> None:
        tags: set[str] = self._scalars.get((path, "string_set"), set())
        added = {one for one, operation in change.string.values.items() if operation == self._messages.ADD}
        removed = {one for one, operation in change.string.values.items() if operation == self._messages.REMOVE}
        self._set(path, "string_set", (tags | added) - removed)

    def _set(self, path: str, field_type: FieldType, value: Any) -> None:
        self._check_type(path, field_type)
        self._scalars[path, field_type] = value

    def _check_type(self, path: str, field_type: FieldType) -> None:
        if self.types.setdefault(path, field_type) != field_type:
            self.findings.add("note", "type-changed", field=path, detail=field_type)

    def _preview(self, snapshot: Any, row_ms: int, is_preview: bool) -> None:
        micro = step_micro(snapshot)
        if micro is None:
            return
        time_ms = milliseconds(snapshot.timestamp) if snapshot.HasField("timestamp") else row_ms
        for path, value in snapshot.append.items():
            if not is_preview:
                self.previews.pop((path, micro), None)
            elif value.HasField("float64"):
                self.previews[path, micro] = Preview(path, micro, time_ms, value.float64)
            else:
                self.findings.add("loss", "unknown-value", field=path, detail="a preview that is no number")


def milliseconds(timestamp: Any) -> int:
    """A protobuf timestamp in ms, which is what Neptune keeps; finer digits are cut."""
    return int(timestamp.seconds) * 1000 + int(timestamp.nanos) // 1_000_000


def step_micro(snapshot: Any) -> int | None:
    """A snapshot's step in 1e-6, exact; None = it names none."""
    return snapshot.step.whole * MICRO + snapshot.step.micro if snapshot.HasField("step") else None
