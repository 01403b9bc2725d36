"""One field of one run, by hand: what its type is, and its value, values or files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from shardmig.archive.decimals import EXACT_STEP, exact_steps
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.table import PAYLOAD_COLUMNS, points_table
from shardmig.errors import BadInput, NotFound
from shardmig.records import (
    FILE_TYPES,
    SCALAR_TYPES,
    SERIES_TYPES,
    Chunk,
    End,
    Fields,
    FieldType,
    FileRef,
    Files,
    FloatPoints,
    HistogramPoints,
    Points,
    RunId,
    RunRef,
    Selection,
    StringPoints,
)
from shardmig.steps import whole_and_fraction

Value = int | float | str | bool | list[str]


class NoSuchName(NotFound, KeyError):
    """No project, run or field has that name; the message names similar ones."""

    def __str__(self) -> str:
        return self.message


class WrongFieldType(BadInput, TypeError):
    """A field was asked for something that its type does not have."""


_KINDS: Final[dict[FieldType, type[Points]]] = {
    "float_series": FloatPoints,
    "string_series": StringPoints,
    "histogram_series": HistogramPoints,
}


class _Asked(msgspec.Struct, frozen=True):
    """What a field's values are read with."""

    selection: Selection
    chunk_points: int
    cursors: Mapping[RunId, bytes] = {}


class FieldHandle:
    """A field. `path` is its whole name, `type` its one type, `rows` how many points or files it has (1: one value)."""

    def __init__(
        self, reader: ArchiveReader, files: ArchiveFiles, run: RunRef, path: str, field_type: FieldType, rows: int
    ) -> None:
        self._reader, self._files, self._run = reader, files, run
        self.path = path
        self.type = field_type
        self.rows = rows

    def __repr__(self) -> str:
        return f"<{self.type} {self.path!r} of {self._run.label}>"

    def fetch(self) -> Value:
        """The value of a scalar field. datetime: epoch ms (UTC); string_set: a sorted list. Raises WrongFieldType."""
        self._must_be(SCALAR_TYPES, "fetch")
        for chunk in self._chunks():
            for field in chunk.fields if isinstance(chunk, Fields) else ():
                if field.type == self.type:
                    return field.value
        raise self._gone()

    def fetch_values(self) -> pa.Table:
        """All points of a series as an arrow table; `.to_pandas()` makes a data frame of it.

        Columns: step (int64 if every step is whole, else decimal), timestamp (ms, UTC; null = none), value (float64,
        string, or a struct of type, edges and values). Rows in order of step and time. Raises WrongFieldType.
        """
        tables = list(self.iter_values())
        if any(pa.types.is_decimal(table.schema.field("step").type) for table in tables):
            tables = [_with_decimals(table) for table in tables]
        return pa.concat_tables(tables)

    def iter_values(self, chunk_points: int = 250_000) -> Iterator[pa.Table]:
        """As fetch_values, in tables of at most `chunk_points` rows: for series larger than memory. The steps of each
        table are int64 or decimal for themselves."""
        self._must_be(SERIES_TYPES, "fetch_values")
        for chunk in self._chunks(chunk_points):
            if isinstance(chunk, _KINDS[self.type]):
                yield _table(self._run, chunk, PAYLOAD_COLUMNS[self.type])

    def fetch_last(self) -> Any:
        """The value at the highest step of a series."""
        *_, last = self.iter_values()
        return last.column("value")[-1].as_py()

    def fetch_files(self) -> list[FileRef]:
        """The stored files of a file field: name, size, hash; step and time in a file series. Raises BadInput for a file
        that is hostile, missing or damaged."""
        self._must_be(FILE_TYPES, "fetch_files")
        found: list[FileRef] = []
        for chunk in self._chunks():
            if isinstance(chunk, Files):
                found += [ref for ref in chunk.files if ref.type == self.type]
            elif isinstance(chunk, End):
                for finding in chunk.findings:
                    if finding.kind == "loss" and finding.field == self.path:
                        raise BadInput(finding.detail or finding.code, run=self._run.label, field=self.path)
        return found

    def fetch_path(self) -> Path:
        """Where the one file (or tree of files) lies; from an object store, a copy that goes with the run's handle.
        Raises WrongFieldType for a file series."""
        self._must_be(FILE_TYPES - {"file_series"}, "fetch_path")
        files = self.fetch_files()
        if not files:
            raise self._gone()
        return self._files.path(files[0])

    def download(self, destination: str | Path) -> list[Path]:
        """Copy the files into the folder `destination`, which is made; returns the copies. Files of a series get
        their step before their name."""
        folder = Path(destination)
        folder.mkdir(parents=True, exist_ok=True)
        copies: list[Path] = []
        for ref in self.fetch_files():
            for name, path in self._files.members(ref):
                stepped = f"step_{ref.step.normalize():f}_{Path(name).name}" if ref.step is not None else name
                target = folder / (stepped if ref.is_tree or ref.step is not None else Path(name).name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                copies.append(target)
        return copies

    def _chunks(self, chunk_points: int = 250_000) -> Iterator[Chunk]:
        # Several attributes are exact names to a selection, one is a regular expression.
        asked = _Asked(Selection(attributes=(self.path, self.path)), chunk_points)
        for piece in self._reader.read(self._run, asked, hash_files=False):
            yield piece.chunk

    def _gone(self) -> NoSuchName:
        return NoSuchName(f"{self._run.label} has no value in {self.path!r}", run=self._run.label, field=self.path)

    def _must_be(self, types: frozenset[FieldType], wanted: str) -> None:
        if self.type not in types:
            raise WrongFieldType(
                f"{self.path!r} of {self._run.label} is of type {self.type}, which has no {wanted}()",
                run=self._run.label,
                field=self.path,
                hint=f"use {_fetching(self.type)}",
            )


def _fetching(field_type: FieldType) -> str:
    """What values of this type are fetched with."""
    if field_type in SCALAR_TYPES:
        return "fetch()"
    return "fetch_values()" if field_type in SERIES_TYPES else "fetch_files() or download()"


def _table(run: RunRef, points: Points, value: str) -> pa.Table:
    rows = points_table(run, points)
    steps = points.steps
    step = pa.array(steps.units) if steps.scale == 0 else exact_steps(*whole_and_fraction(steps))
    return pa.table([step, rows.column("timestamp"), rows.column(value)], names=["step", "timestamp", "value"])


def _with_decimals(table: pa.Table) -> pa.Table:
    return table.set_column(0, "step", table.column("step").cast(EXACT_STEP))
