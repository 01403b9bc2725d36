"""The rows of a published run as chunks in canonical order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.archive.canonical import Scalars
from shardmig.archive.ordering import ordered_points
from shardmig.archive.parsing import Findings, TypedRows, WantsField, rows_by_type, stretches, wanted_rows
from shardmig.archive.published import PublishedRun, WantsGroup, every_group, paths_between
from shardmig.archive.rows import content_sizes, cut_row, points_of, slice_points
from shardmig.archive.table import PAYLOAD_COLUMNS
from shardmig.records import (
    FILE_TYPES,
    SCALAR_TYPES,
    SERIES_TYPES,
    Chunk,
    End,
    Fields,
    FieldType,
    Files,
    Header,
    Points,
    Receipt,
)

_COUNTED_COLUMNS: Final = frozenset({"attribute_path", "attribute_type", *PAYLOAD_COLUMNS.values()})


def _every_field(_: str, __: FieldType) -> bool:
    return True


class Wanted(NamedTuple):
    """Which fields, and which row groups may hold them."""

    field: WantsField
    group: WantsGroup = every_group


def canonical_chunks(
    run: PublishedRun, receipt: Receipt, wants: WantsField, findings: Findings, chunk_points: int
) -> Iterator[Chunk]:
    """For a run that lies in canonical order: chunk by chunk, nothing held but one row group. Row groups without a wanted
    field are not read."""
    wants_group = holds_any(field.path for field in receipt.fields if wants(field.path, field.type))
    for path in run.parts:
        for batch in run.row_groups(path, wants_group):
            for stretch in stretches(wanted_rows(batch, wants, findings)):
                if stretch[0].type in SERIES_TYPES:
                    yield from _cut(stretch[0], findings, chunk_points)
                else:
                    yield from _scalars(stretch, findings)


def ordered_chunks(
    run: PublishedRun, wanted: Wanted, findings: Findings, chunk_points: int, scratch: Path
) -> Iterator[Chunk]:
    """For a run whose rows stand in any order: scalars and files are held, points are ordered by way of `scratch`."""
    yield from _scalars(_typed_rows(run, wanted, findings), findings)
    counted = False

    def points() -> Iterator[Points]:
        nonlocal counted
        seen = Findings() if counted else findings  # read twice, reported once
        counted = True
        for rows in _typed_rows(run, wanted, Findings()):
            if rows.type in SERIES_TYPES and (parsed := rows.series(seen)) is not None:
                yield from points_of(parsed)

    yield from ordered_points(points, scratch, chunk_points)


def field_rows(run: PublishedRun) -> dict[tuple[str, FieldType], int]:
    """Rows by path and type, sorted, of a run without receipt. Reads no steps, times or facts of files."""
    counts: Counter[tuple[str, FieldType]] = Counter()
    findings = Findings()
    for path in run.parts:
        for batch in run.batches(path, columns=_COUNTED_COLUMNS):
            for rows in rows_by_type(wanted_rows(batch, _every_field, findings)):
                if rows.type in SCALAR_TYPES:
                    counts.update((field.path, field.type) for field in rows.fields(findings))
                elif rows.type in FILE_TYPES:
                    counts.update((ref.path, ref.type) for ref in rows.files(findings))
                else:
                    counts.update({(path, rows.type): count for path, count in rows.rows_by_path().items()})
    return dict(sorted(counts.items()))


def holds_any(paths: Iterable[str]) -> WantsGroup:
    """May a row group, by its statistics, hold one of these fields?"""
    wanted = sorted(set(paths))

    def holds(row_group: Any) -> bool:
        bounds = paths_between(row_group)
        return bounds is None or bisect_left(wanted, bounds[0]) < bisect_right(wanted, bounds[1])

    return holds


def row_count(chunk: Chunk) -> int:
    """Rows in a chunk: what a cursor counts."""
    match chunk:
        case Fields():
            return len(chunk.fields)
        case Files():
            return len(chunk.files)
        case Header() | End():
            return 0
        case _:
            return len(chunk.times_ms)


def _scalars(typed: Iterable[TypedRows], findings: Findings) -> Iterator[Chunk]:
    scalars = Scalars()
    for rows in typed:
        if rows.type in SCALAR_TYPES:
            scalars.add_fields(rows.fields(findings))
        elif rows.type in FILE_TYPES:
            scalars.add_files(rows.files(findings))
    for path, count in (scalars.replaced_fields + scalars.replaced_files).items():
        findings.add("loss", "two-values", path, count=count, detail="rows of one field differ: the last is taken")
    if fields := scalars.fields():
        yield Fields(fields)
    if files := scalars.files():
        yield Files(files)


def _typed_rows(run: PublishedRun, wanted: Wanted, findings: Findings) -> Iterator[TypedRows]:
    for path in run.parts:
        for batch in run.batches(path, wanted.group):
            yield from rows_by_type(wanted_rows(batch, wanted.field, findings))


def _cut(rows: TypedRows, findings: Findings, chunk_points: int) -> Iterator[Points]:
    parsed = rows.series(findings)
    if parsed is None:
        return
    sizes = content_sizes(parsed.blobs, len(parsed.keys.whole))
    begin = 0
    for points in points_of(parsed):
        end = begin + len(points.times_ms)
        at = begin
        while at < end:
            count = cut_row(parsed.keys.part(slice(at, end)), sizes[at:end], chunk_points)
            yield slice_points(points, slice(at - begin, at - begin + count))
            at += count
        begin = end


def rows_from(chunk: Chunk, start: int) -> Chunk:
    """A chunk without its first rows. Fields and files stay whole: taking one twice changes nothing."""
    if isinstance(chunk, Fields | Files | Header | End):
        return chunk
    return slice_points(chunk, slice(start, len(chunk.times_ms)))
