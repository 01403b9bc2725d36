"""Rows of parquet, ours or neptune-exporter's, as fields, files and points. Knows nothing of files on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shardmig.archive.decimals import read_steps
from shardmig.archive.rows import KINDS, Blob, Column, Keys, Rows, SeriesType, steps_of
from shardmig.archive.table import PAYLOAD_COLUMNS, SCHEMA
from shardmig.errors import BadInput
from shardmig.records import (
    FILE_TYPES,
    NO_TIME,
    SCALAR_TYPES,
    Field,
    FieldType,
    FileRef,
    Finding,
    FindingKind,
    Int64s,
    Texts,
)

WantsField = Callable[[str, FieldType], bool]
COLUMNS: Final = tuple(name for name in SCHEMA.names if name not in ("project_id", "run_id"))
_PER_MS: Final = {"us": 1_000, "ns": 1_000_000}
_KNOWN_TYPES: Final = frozenset(get_args(FieldType))


class Findings:
    """Findings gathered by kind, code and field, with their counts."""

    def __init__(self) -> None:
        self._counts: dict[tuple[FindingKind, str, str, str], int] = {}

    def add(self, kind: FindingKind, code: str, field: str = "", *, count: int = 1, detail: str = "") -> None:
        """Count one more."""
        key = (kind, code, field, detail)
        self._counts[key] = self._counts.get(key, 0) + count

    def list(self) -> list[Finding]:
        """All of them, in order."""
        return [
            Finding(kind, code, field, count, detail)
            for (kind, code, field, detail), count in sorted(self._counts.items())
        ]


class TypedRows:
    """Rows of one field type."""

    def __init__(self, field_type: FieldType, batch: pa.RecordBatch) -> None:
        self.type = field_type
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def fields(self, findings: Findings) -> Iterator[Field]:
        """Scalar fields. A row without value is an absent field, as neptune-exporter writes it."""
        values = self._column(PAYLOAD_COLUMNS[self.type])
        if self.type == "datetime":
            values = self._milliseconds(values, findings)
        for path, value in zip(self._paths(), values.to_pylist(), strict=True):
            if value is None:
                findings.add("note", "absent-field", path)
            elif isinstance(value, list):
                if empty := value.count(None):
                    findings.add("gap", "member-without-value", path, count=empty)
                yield Field(path, self.type, sorted(set(value) - {None}))
            else:
                yield Field(path, self.type, value)

    def files(self, findings: Findings) -> Iterator[FileRef]:
        """References to files; nothing is looked up on disk."""
        whole, fraction, missing = read_steps(self._column("step"), self._optional("exact_step"))
        steps: list[Decimal] = [step for _, part in steps_of(whole, fraction) for step in part.to_decimals()]
        columns = [
            pc.struct_field(self._column("file_value"), "path"),
            self._milliseconds(self._column("timestamp"), findings),
            *(self._column(name) for name in ("file_name", "file_size", "file_sha256", "file_is_tree")),
        ]
        told = zip(*(column.to_pylist() for column in columns), strict=True)
        for path, step, no_step, row in zip(self._paths(), steps, missing.tolist(), told, strict=True):
            place, time_ms, name, size, sha256, is_tree = row
            if place is None:
                findings.add("note", "absent-field", path)
                continue
            yield FileRef(
                path=path,
                type=self.type,
                stored=place,
                name=name or "",
                size_bytes=-1 if size is None else size,
                sha256=sha256 or "",
                step=None if no_step else step,
                time_ms=time_ms,
                is_tree=bool(is_tree),
            )

    def series(self, findings: Findings) -> Rows | None:
        """Points, series after series in order of appearance, rows of a series in their order. Rows without step or value
        are left out and reported."""
        batch = self._complete(findings)
        if batch.num_rows == 0:
            return None
        paths, codes = _encoded(batch.column("attribute_path"))
        batch, codes = _grouped(batch, codes)
        starts = np.concatenate(([0], np.flatnonzero(codes[1:] != codes[:-1]) + 1))
        lengths = np.diff(np.concatenate((starts, [len(codes)])))
        rows = TypedRows(self.type, batch)
        whole, fraction, _ = read_steps(rows._column("step"), rows._optional("exact_step"))
        times = rows._milliseconds(rows._column("timestamp"), findings).fill_null(NO_TIME)
        fixed, blobs = rows._payload()
        series_type: SeriesType = self.type  # type: ignore[assignment]
        return Rows(
            series_type,
            [paths[code] for code in codes[starts].tolist()],
            lengths,
            Keys(whole, fraction, times.to_numpy(zero_copy_only=False)),
            fixed,
            blobs,
        )

    def rows_by_path(self) -> dict[str, int]:
        """How many rows each path has."""
        counts = self._batch.column("attribute_path").value_counts().to_pylist()
        return {pair["values"] or "": pair["counts"] for pair in counts}

    def _complete(self, findings: Findings) -> pa.RecordBatch:
        """Without the rows that are no points. A float without value is NaN and stays."""
        no_step = pc.and_(self._column("step").is_null(), self._column("exact_step").is_null())
        drop = no_step
        self._report(no_step, findings, "loss", "point-without-step")
        if self.type != "float_series":
            no_value = pc.and_not(self._column(PAYLOAD_COLUMNS[self.type]).is_null(), no_step)
            self._report(no_value, findings, "gap", "point-without-value")
            drop = pc.or_(no_step, no_value)
        return self._batch.filter(pc.invert(drop)) if pc.any(drop).as_py() else self._batch

    def _report(self, dropped: pa.Array, findings: Findings, kind: FindingKind, code: str) -> None:
        if pc.any(dropped).as_py():
            for path, count in TypedRows(self.type, self._batch.filter(dropped)).rows_by_path().items():
                findings.add(kind, code, path, count=count)

    def _milliseconds(self, column: pa.Array, findings: Findings) -> pa.Array:
        """Times as integers. What is finer is rounded down and reported."""
        per = _PER_MS.get(column.type.unit) if pa.types.is_timestamp(column.type) else None
        if per is None:
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.timestamp("ms", column.type.tz))
            return column.cast(pa.int64())
        times = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        self._report(pa.array(times % per != 0), findings, "approximation", "time-rounded")
        return pa.array(times // per, mask=column.is_null().to_numpy(zero_copy_only=False))

    def _payload(self) -> tuple[list[Column], list[Blob]]:
        column = self._column(PAYLOAD_COLUMNS[self.type])
        match self.type:
            case "float_series":
                return [column.fill_null(np.nan).to_numpy(zero_copy_only=False)], []
            case "string_series":
                return [], [_text_blob(column)]
            case _:
                kinds, edges, values = (pc.struct_field(column, name) for name in ("type", "edges", "values"))
                return [_kind_codes(kinds)], [_list_blob(edges), _list_blob(values)]

    def _paths(self) -> list[str]:
        paths: list[str] = self._batch.column("attribute_path").to_pylist()
        return paths

    def _column(self, name: str) -> pa.Array:
        """A column; nulls where the file has none."""
        column = self._optional(name)
        return pa.nulls(len(self), SCHEMA.field(name).type) if column is None else column

    def _optional(self, name: str) -> pa.Array | None:
        index = self._batch.schema.get_field_index(name)
        return None if index < 0 else self._batch.column(index)


def wanted_rows(batch: pa.RecordBatch, wants: WantsField, findings: Findings) -> pa.RecordBatch:
    """The rows of wanted fields; rows of unknown types are losses."""
    paths, path_codes = _encoded(batch.column("attribute_path"))
    types, type_codes = _encoded(batch.column("attribute_type"))
    pairs = path_codes.astype(np.int64) * len(types) + type_codes
    distinct, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    keep = np.zeros(len(distinct), dtype=np.bool_)
    for index, (pair, count) in enumerate(zip(distinct.tolist(), counts.tolist(), strict=True)):
        path, field_type = paths[pair // len(types)], types[pair % len(types)]
        if field_type in _KNOWN_TYPES:
            keep[index] = wants(path, field_type)
        else:
            findings.add("loss", "unknown-type", path, count=count, detail=field_type)
    return batch if keep.all() else batch.filter(pa.array(keep[inverse]))


def rows_by_type(batch: pa.RecordBatch) -> Iterator[TypedRows]:
    """The rows of each type together, in their order."""
    types, codes = _encoded(batch.column("attribute_type"))
    for code in np.unique(codes).tolist():
        rows = np.flatnonzero(codes == code)
        part = batch.slice(int(rows[0]), len(rows)) if _is_run(rows) else batch.take(pa.array(rows))
        yield TypedRows(_field_type(types[code]), part)


def stretches(batch: pa.RecordBatch) -> Iterator[list[TypedRows]]:
    """Neighbouring rows that belong in one chunk, in file order: scalars, files, or series of one type."""
    types, codes = _encoded(batch.column("attribute_type"))
    chunk_of = dict.fromkeys(SCALAR_TYPES, "scalar") | dict.fromkeys(FILE_TYPES, "file")
    kinds = [chunk_of.get(_field_type(name), name) for name in types]
    chunk_codes = np.array([kinds.index(kind) for kind in kinds], dtype=np.int32)[codes]
    bounds = [0, *(np.flatnonzero(chunk_codes[1:] != chunk_codes[:-1]) + 1).tolist(), len(codes)]
    for start, stop in pairwise(bounds):
        if stop > start:
            yield list(rows_by_type(batch.slice(start, stop - start)))


def _encoded(column: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    """(distinct texts, which of them each row has); a null is the empty text."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    texts = ["" if text is None else text for text in column.dictionary.to_pylist()]
    codes = column.indices
    if codes.null_count:
        texts, codes = [*texts, ""], codes.fill_null(len(texts))
    return texts, codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)


def _grouped(batch: pa.RecordBatch, codes: NDArray[np.int32]) -> tuple[pa.RecordBatch, NDArray[np.int32]]:
    """Rows of one series side by side."""
    changes = int(np.count_nonzero(codes[1:] != codes[:-1]))
    if changes + 1 == len(np.unique(codes)):
        return batch, codes
    order = np.argsort(codes, kind="stable")
    return batch.take(pa.array(order)), codes[order]


def _text_blob(column: pa.Array) -> Blob:
    texts = Texts.from_arrow(column)
    return Blob(np.diff(texts.offsets), np.frombuffer(texts.utf8, dtype=np.uint8))


def _list_blob(column: pa.Array) -> Blob:
    counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return Blob(counts, column.flatten().fill_null(np.nan).to_numpy(zero_copy_only=False))


def _kind_codes(column: pa.Array) -> Int64s:
    texts, codes = _encoded(column)
    unknown = set(texts) - set(KINDS)
    if unknown:
        raise BadInput(f"a histogram has an unknown type: {', '.join(sorted(unknown))}")
    table = np.array([KINDS.index(text) for text in texts], dtype=np.int64)
    return table[codes] if len(table) else np.zeros(0, dtype=np.int64)


def _is_run(rows: Int64s) -> bool:
    return bool(rows[-1] - rows[0] + 1 == len(rows))


def _field_type(text: str) -> FieldType:
    return text  # type: ignore[return-value]  # wanted_rows lets no other through
