"""Everything of a run but its points, each once and in canonical order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from shardmig.records import Field, FieldType, FileRef

_FileKey = tuple[str, FieldType, Decimal, int, str]


class Scalars:
    """Scalar fields and files as they come. What comes again replaces what was there: a resumed source may repeat it."""

    def __init__(self) -> None:
        self._fields: dict[tuple[str, FieldType], Field] = {}
        self._files: dict[_FileKey, FileRef] = {}
        self.replaced_fields: Counter[str] = Counter()
        self.replaced_files: Counter[str] = Counter()
        """By path, how many were replaced by something else."""

    def add_fields(self, fields: Iterable[Field]) -> None:
        """One value for each path and type."""
        for field in fields:
            before = self._fields.setdefault((field.path, field.type), field)
            if before is not field and repr(before.value) != repr(field.value):  # NaN is NaN
                self.replaced_fields[field.path] += 1
            self._fields[field.path, field.type] = field

    def add_files(self, files: Iterable[FileRef]) -> None:
        """One file for each path and type; in a file series, for each step, time and name."""
        for ref in files:
            if self._files.setdefault(_file_key(ref), ref) != ref:
                self.replaced_files[ref.path] += 1
            self._files[_file_key(ref)] = ref

    def fields(self) -> list[Field]:
        """By path, then type."""
        return [self._fields[key] for key in sorted(self._fields)]

    def files(self) -> list[FileRef]:
        """By path, type, step, time and name."""
        return [self._files[key] for key in sorted(self._files)]


def _file_key(ref: FileRef) -> _FileKey:
    if ref.type != "file_series":
        return ref.path, ref.type, Decimal(0), 0, ""
    return ref.path, ref.type, ref.step or Decimal(0), ref.time_ms or 0, ref.name or ref.stored
